# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel tells of single mounts: their ids, what they are, and that they come and go.

One thin typed function a system call, as in syscalls.py; and the reader of
fanotify's events.  A mount is named by its unique id here, which is never used
again until the next boot; mountinfo has another one, which is.

Out of scope: which mounts matter (inventory.py).  Sources: statx(2),
statmount(2) and listmount(2) (Linux 6.8, of other mount namespaces 6.11),
fanotify(7) with FAN_REPORT_MNT (Linux 6.15), and the kernel's
include/uapi/linux/mount.h and fanotify.h, which older C libraries lack.
"""

import ctypes
import errno
import os
import struct
from enum import Enum, auto
from typing import NamedTuple

from mountnsd import syscalls

# On every architecture that Python is built for, but on Alpha and 32-bit MIPS.
_SYS_STATMOUNT = ctypes.c_long(457)
_SYS_LISTMOUNT = ctypes.c_long(458)

# linux/stat.h, linux/mount.h
_STATX_MNT_ID_UNIQUE = 0x4000
_STATMOUNT_MNT_BASIC = 0x02
_STATMOUNT_MNT_ROOT = 0x08
_STATMOUNT_MNT_POINT = 0x10
_STATMOUNT_FS_TYPE = 0x20
_WANTED = _STATMOUNT_MNT_BASIC | _STATMOUNT_MNT_ROOT | _STATMOUNT_MNT_POINT | _STATMOUNT_FS_TYPE

_STATX = struct.Struct("=I140xQ104x")  # struct statx: stx_mask, stx_mnt_id
_REQUEST = struct.Struct("=IIQQQ")  # struct mnt_id_req: size, spare, mnt_id, param, mnt_ns_id
# struct statmount: mask, fs_type, mnt_id, mnt_parent_id, mnt_root, mnt_point; offsets are into the strings behind it.
_STATMOUNT = struct.Struct("=8xQ20xIQQ48xII400x")
_SMALL = 1024  # bytes for a mount with short paths
_LARGE = 1 << 17

_IDS = 4096  # mounts that are listed at once

# linux/fanotify.h
_FAN_CLOEXEC = 0x1
_FAN_NONBLOCK = 0x2
_FAN_REPORT_MNT = 0x4000
_FAN_MARK_ADD = 0x1
_FAN_MARK_MNTNS = 0x110
_FAN_Q_OVERFLOW = 0x4000
_FAN_MNT_ATTACH = 0x01000000
_FAN_MNT_DETACH = 0x02000000
_EVENT = struct.Struct(
    "=IBBHQii"
)  # struct fanotify_event_metadata: event_len, vers, reserved, metadata_len, mask
_INFO = struct.Struct("=BxH4xQ")  # struct fanotify_event_info_mnt: info_type, len, mnt_id
_VERSION = 3  # FANOTIFY_METADATA_VERSION
_INFO_MNT = 7  # FAN_EVENT_INFO_TYPE_MNT
_PIECE = 1 << 16  # bytes of events that are read at once

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.fanotify_init.argtypes = (ctypes.c_uint, ctypes.c_uint)
_libc.fanotify_mark.argtypes = (
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_char_p,
)
_libc.statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)


class Told(NamedTuple):
    """What the kernel tells of one mount.  Paths are as in mountinfo, and not escaped."""

    id: int
    parent: int
    root: str
    target: str
    fstype: str


class Event(Enum):
    """What became of a mount."""

    CAME = auto()
    MOVED = auto()  # with all that is mounted on it, of which nothing is told then
    WENT = auto()


def _check(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def id_of(fd: int) -> int:
    """The unique id of the mount that a descriptor is on, statx(2).

    Raises: OSError; ENOSYS where the kernel has none (before Linux 6.8).
    """
    buffer = ctypes.create_string_buffer(_STATX.size)
    _check(_libc.statx(fd, b"", syscalls.AT_EMPTY_PATH, _STATX_MNT_ID_UNIQUE, buffer), "statx")
    mask: int
    number: int
    mask, number = _STATX.unpack_from(buffer)
    if not mask & _STATX_MNT_ID_UNIQUE:
        raise OSError(errno.ENOSYS, "statx: has no unique id of the mount")
    return number


def look(mount: int, namespace: int) -> Told | None:
    """What there is to say of a mount by its unique id, or None where it is not (or no longer) there, statmount(2).

    Arguments: namespace: the 64-bit id of the mount namespace to look in.
    Raises: OSError.
    """
    request = _REQUEST.pack(_REQUEST.size, 0, mount, _WANTED, namespace)
    size = _SMALL
    while True:
        buffer = ctypes.create_string_buffer(size)
        if _libc.syscall(_SYS_STATMOUNT, request, buffer, ctypes.c_size_t(size), 0) == 0:
            return _told(buffer.raw)
        code = ctypes.get_errno()
        if code == errno.ENOENT:
            return None
        if code != errno.EOVERFLOW or size >= _LARGE:
            raise OSError(code, f"statmount: {os.strerror(code)}")
        size = _LARGE


def _told(raw: bytes) -> Told:
    mask, fstype, number, parent, root, target = _STATMOUNT.unpack_from(raw)
    if mask & _WANTED & ~_STATMOUNT_MNT_POINT != _WANTED & ~_STATMOUNT_MNT_POINT:
        raise OSError(errno.ENOSYS, "statmount: does not tell what was asked for")
    return Told(
        number,
        parent,
        _string(raw, root),
        _string(raw, target) if mask & _STATMOUNT_MNT_POINT else "",  # not to be reached from the root
        _string(raw, fstype),
    )


def _string(raw: bytes, offset: int) -> str:
    start = _STATMOUNT.size + offset
    return os.fsdecode(raw[start : raw.index(0, start)])


def below(mount: int, namespace: int) -> list[int]:
    """The unique ids of all mounts below a mount, at any depth, in ascending order, listmount(2).

    Arguments: namespace: the 64-bit id of the mount namespace to look in.
    Raises: OSError; ENOENT where the mount is not there.
    """
    found: list[int] = []
    ids = (ctypes.c_uint64 * _IDS)()
    while True:
        request = _REQUEST.pack(_REQUEST.size, 0, mount, found[-1] if found else 0, namespace)
        count = _check(_libc.syscall(_SYS_LISTMOUNT, request, ids, ctypes.c_size_t(_IDS), 0), "listmount")
        found += ids[:count]
        if count < _IDS:
            return found


class Events:
    """What comes and goes in one mount namespace, from now on.

    It does not keep the namespace: when that ends, there are no events any more.
    """

    def __init__(self, namespace: int) -> None:
        """Arguments: namespace: a descriptor of it, borrowed.

        Raises: OSError; EINVAL before Linux 6.15; EPERM where a sandbox forbids it; EMFILE where the user has too
            many already.
        """
        flags = _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_REPORT_MNT
        self._fd = _check(_libc.fanotify_init(flags, 0), "fanotify_init")
        try:
            what = _FAN_MNT_ATTACH | _FAN_MNT_DETACH
            how = _FAN_MARK_ADD | _FAN_MARK_MNTNS
            _check(_libc.fanotify_mark(self._fd, how, what, namespace, None), "fanotify_mark")
        except BaseException:
            syscalls.close(self._fd)
            raise

    def fileno(self) -> int:
        """What is readable while there are events that were not taken."""
        return self._fd

    def take(self) -> dict[int, Event] | None:
        """What became of mounts since last time, by their ids; None where that is more than the kernel keeps.

        Raises: OSError.
        """
        found: dict[int, Event] = {}
        lost = False
        while True:
            try:
                piece = os.read(self._fd, _PIECE)
            except BlockingIOError:
                return None if lost else found
            lost |= not _read(piece, found)
            if len(piece) < _PIECE - _EVENT.size - _INFO.size:
                return None if lost else found

    def close(self) -> None:
        syscalls.close(self._fd)


def _read(piece: bytes, found: dict[int, Event]) -> bool:
    """Take the events of one reading in.  Returns False where something is missing, or not understood."""
    place = 0
    while place < len(piece):
        length, version, _, head, mask, _, _ = _EVENT.unpack_from(piece, place)
        if version != _VERSION or mask & _FAN_Q_OVERFLOW or length < head + _INFO.size:
            return False
        kind, _, mount = _INFO.unpack_from(piece, place + head)
        if kind != _INFO_MNT:
            return False
        if not mask & _FAN_MNT_ATTACH:
            found[mount] = Event.WENT
        elif mask & _FAN_MNT_DETACH or mount in found:
            found[mount] = Event.MOVED
        else:
            found[mount] = Event.CAME
        place += length
    return True
