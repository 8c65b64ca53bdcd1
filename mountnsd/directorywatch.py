# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which names in a directory come and go, whoever does it, in whatever mount namespace.

Out of scope: what lies under them.  Source: inotify(7), which man-pages
describes whole and Python does not wrap.
"""

import ctypes
import os
import struct

from mountnsd import syscalls

# sys/inotify.h
_IN_MOVED_FROM = 0x40
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_IN_ONLYDIR = 0x01000000
_WANTED = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_PLAIN = _IN_CREATE | _IN_DELETE
_EVENT = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, len; then the name
_PIECE = 1 << 16  # bytes of events that are read at once

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class DirectoryWatch:
    """The names that change in one directory, from now on."""

    def __init__(self, directory: int) -> None:
        """Arguments: directory: a descriptor of it, borrowed.

        Raises: OSError; EMFILE, ENOSPC where the user watches too much already.
        """
        self._fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        try:
            path = os.fsencode(f"/proc/self/fd/{directory}")
            _check(_libc.inotify_add_watch(self._fd, path, _WANTED | _IN_ONLYDIR), "inotify_add_watch")
        except BaseException:
            syscalls.close(self._fd)
            raise

    def take(self) -> set[str] | None:
        """The names that came or went since last time.

        None where all have to be looked at: one became another, and what is mounted there went along with it, or
        there were more than the kernel keeps.  Raises: OSError.
        """
        found: set[str] = set()
        known = True
        while True:
            try:
                piece = os.read(self._fd, _PIECE)
            except BlockingIOError:
                return found if known else None
            known &= _read(piece, found)

    def close(self) -> None:
        syscalls.close(self._fd)


def _read(piece: bytes, found: set[str]) -> bool:
    """Take the events of one reading in.  Returns False where they do not tell everything."""
    place = 0
    while place < len(piece):
        _, mask, _, length = _EVENT.unpack_from(piece, place)
        if not mask & _PLAIN:
            return False
        place += _EVENT.size
        found.add(os.fsdecode(piece[place : place + length].rstrip(b"\0")))
        place += length
    return True


def _check(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result
