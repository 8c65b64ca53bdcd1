# SPDX-License-Identifier: LGPL-2.1-or-later
"""System calls that Python does not wrap: one thin typed function a call.

Every function raises OSError with the errno and, where there is one, the path;
every descriptor that it returns is close-on-exec.  No policy lives here, and
nothing here knows what a namespace is for.

Sources: unshare(2), mount(2), umount2(2), statfs(2), capset(2), prctl(2),
ioctl_ns(2), and the kernel's include/uapi/linux/mount.h for the
file-descriptor based mount API, which man-pages 6 describes only in part.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from mountnsd import becoming

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a process that becomes another one needs is in a module of its own, and is to be had here with all the others.
CLONE_NEWNS = becoming.CLONE_NEWNS
PR_CAP_AMBIENT = becoming.PR_CAP_AMBIENT
clear_ambient_capabilities = becoming.clear_ambient_capabilities
clear_capabilities = becoming.clear_capabilities
close = becoming.close
close_range = becoming.close_range
get_securebits = becoming.get_securebits
join_new_session_keyring = becoming.join_new_session_keyring
set_dumpable = becoming.set_dumpable
set_no_new_privs = becoming.set_no_new_privs
set_securebits = becoming.set_securebits
setns = becoming.setns
_again = becoming.again

# sched.h
CLONE_FS = 0x00000200
CLONE_FILES = 0x00000400
CLONE_NEWUTS = 0x04000000

# sys/mount.h, linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_NOSYMFOLLOW = 1 << 8
MS_NOATIME = 1 << 10
MS_NODIRATIME = 1 << 11
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_STRICTATIME = 1 << 24

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_ATIME = 0x70  # the field
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_CACHED = 0x20

# linux/nsfs.h: _IO(0xb7, 3) and _IOR(0xb7, 5, __u64)
NS_GET_NSTYPE = 0xB703
NS_GET_MNTNS_ID = 0x8008B705

# linux/magic.h
NSFS_MAGIC = 0x6E736673
CGROUP2_SUPER_MAGIC = 0x63677270

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT_LOWER = 3

# linux/capability.h
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_SYS_OPENAT2 = 437  # on every architecture that Python is built for
_SYS_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}

_POSIX_SPAWN_FLAGS = 0x04 | 0x08 | 0x80  # spawn.h: SETSIGDEF, SETSIGMASK, SETSID


# struct statx of linux/stat.h: stx_mask, stx_mode, stx_rdev_major, stx_dev_major and stx_mnt_id, with what lies
# between passed over.
_STATX = struct.Struct("=I24xH98xI4xI4xQ")
_STATX_MNT_ID = 0x1000


class _Statfs(ctypes.Structure):
    """struct statfs of 64-bit Linux; only f_type is read, the rest is room enough."""

    # A word, but in the kernel's arch/s390/include/uapi/asm/statfs.h.
    _fields_ = [
        ("f_type", ctypes.c_uint32 if os.uname().machine == "s390x" else ctypes.c_long),
        ("rest", ctypes.c_byte * 504),
    ]


class _CapabilityHeader(ctypes.Structure):
    """struct __user_cap_header_struct of linux/capability.h, capset(2)."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h, openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _MountAttr(ctypes.Structure):
    """struct mount_attr of linux/mount.h, mount_setattr(2)."""

    _fields_ = [(field, ctypes.c_uint64) for field in ("attr_set", "attr_clr", "propagation", "userns_fd")]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(_Statfs))
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.capset.argtypes = (ctypes.POINTER(_CapabilityHeader), ctypes.POINTER(ctypes.c_uint32))
_libc.capget.argtypes = _libc.capset.argtypes
_libc.open_tree.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.move_mount.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.fsopen.argtypes = (ctypes.c_char_p, ctypes.c_uint)
_libc.fsconfig.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_libc.fsmount.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_libc.mount_setattr.argtypes = (*_libc.open_tree.argtypes, ctypes.POINTER(_MountAttr), ctypes.c_size_t)
_libc.statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p)
_libc.syscall.restype = ctypes.c_long

# Where `posix_spawn` and `set_groups_of_thread` are what they are here.  The one of musl keeps a lock until the
# program is executed, for which fork(2) waits.
CAN_SPAWN = (
    hasattr(_libc, "gnu_get_libc_version") and sys.maxsize > 2**32 and os.uname().machine in _SYS_SETGROUPS
)

_HINTS = {
    ("open_tree", errno.ENOSYS): "needs Linux 5.2",
    ("fsopen", errno.ENOSYS): "needs Linux 5.2",
    ("mount_setattr", errno.ENOSYS): "needs Linux 5.12",
    ("openat2", errno.EINVAL): "needs Linux 5.12",
    ("unshare", errno.EPERM): "needs CAP_SYS_ADMIN",
    ("mount", errno.EPERM): "needs CAP_SYS_ADMIN",
}


def _check(result: int, call: str, path: str | bytes | None = None) -> int:
    """Return a system call's result, or raise OSError(errno, text, path)."""
    if result >= 0:
        return result
    code = ctypes.get_errno()
    hint = _HINTS.get((call, code))
    text = f"{call}: {os.strerror(code)}" + (f" ({hint})" if hint else "")
    raise OSError(code, text, os.fsdecode(path) if path is not None else None)


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own, unshare(2)."""
    _check(_again(_libc.unshare, flags), "unshare")


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """Mount, remount, bind or change propagation, mount(2).  None stands for NULL."""
    _check(
        _again(
            _libc.mount,
            None if source is None else os.fsencode(source),
            os.fsencode(target),
            None if fstype is None else os.fsencode(fstype),
            flags,
            None if data is None else os.fsencode(data),
        ),
        "mount",
        target,
    )


def umount2(target: str, flags: int = 0) -> None:
    """Unmount what is topmost at `target`, umount2(2)."""
    _check(_again(_libc.umount2, os.fsencode(target), flags), "umount2", target)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """A descriptor of the mount at `path`, or with OPEN_TREE_CLONE of a detached copy of it, open_tree(2)."""
    result = _again(_libc.open_tree, dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)
    return _check(result, "open_tree", path)


def move_mount(from_dirfd: int, from_path: str, to_dirfd: int, to_path: str, flags: int) -> None:
    """Attach or move a mount, move_mount(2)."""
    source, target = os.fsencode(from_path), os.fsencode(to_path)
    result = _again(_libc.move_mount, from_dirfd, source, to_dirfd, target, flags)
    _check(result, "move_mount", to_path)


def fsopen(fstype: str) -> int:
    """A descriptor of a new filesystem context, fsopen(2)."""
    return _check(_again(_libc.fsopen, os.fsencode(fstype), FSOPEN_CLOEXEC), "fsopen")


def fsconfig_set(fd: int, key: str, value: str | None = None) -> None:
    """Set a flag (value None) or a string parameter of a filesystem context, fsconfig(2)."""
    command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
    encoded = None if value is None else os.fsencode(value)
    _check(_again(_libc.fsconfig, fd, command, os.fsencode(key), encoded, 0), "fsconfig", key)


def fsconfig_create(fd: int) -> None:
    """Make the filesystem of a configured context, fsconfig(2).

    Raises: OSError; EINTR, too: the context is spent with the first try.
    """
    _check(_libc.fsconfig(fd, FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig")


def fsmount(fd: int, attributes: int) -> int:
    """A descriptor of a detached mount of a made filesystem, with MOUNT_ATTR_* attributes, fsmount(2)."""
    return _check(_again(_libc.fsmount, fd, FSMOUNT_CLOEXEC, attributes), "fsmount")


def mount_setattr(
    dirfd: int, path: str, flags: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0
) -> None:
    """Change attributes (MOUNT_ATTR_*) and propagation (MS_*) of a mount, mount_setattr(2)."""
    attributes = _MountAttr(attr_set, attr_clr, propagation, 0)
    size = ctypes.sizeof(attributes)
    pointer = ctypes.byref(attributes)
    result = _again(_libc.mount_setattr, dirfd, os.fsencode(path), flags, pointer, size)
    _check(result, "mount_setattr", path)


def openat2(dirfd: int, path: str, flags: int, resolve: int) -> int:
    """Open a path with RESOLVE_* restrictions on its lookup, openat2(2).

    Raises: OSError; ELOOP where RESOLVE_NO_SYMLINKS or RESOLVE_NO_MAGICLINKS met a link.
    """
    how = _OpenHow(flags, 0, resolve)
    size = ctypes.c_long(ctypes.sizeof(how))
    # A variadic call: only int, pointer and long arguments are passed as the kernel takes them.
    name = ctypes.c_char_p(os.fsencode(path))
    result = _again(_libc.syscall, _SYS_OPENAT2, dirfd, name, ctypes.byref(how), size)
    return _check(result, "openat2", path)


def open_cached(path: str) -> int:
    """An O_PATH descriptor of a path without symbolic links, found in the kernel's cache alone, openat2(2).

    No filesystem on the way is asked, so that none can make the caller wait.
    Raises: OSError; EAGAIN where one would have to be asked, and also when mounts change at the same time.
    """
    resolve = RESOLVE_CACHED | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    return openat2(AT_FDCWD, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, resolve)


def known_status(fd: int) -> tuple[int, int, int]:
    """What the kernel knows of an open file without asking its filesystem, which may never answer, statx(2).

    Returns: its mode, its major number where it is a device, and that of the device it is on: 0 where that is none.
    """
    return _known(fd)[1:4]


def mount_id(fd: int) -> int:
    """The id of the mount that a descriptor is on, as in mountinfo; no filesystem is asked, statx(2).

    Raises: OSError; ENOSYS before Linux 5.8.
    """
    mask, *_, number = _known(fd)
    if not mask & _STATX_MNT_ID:
        raise OSError(errno.ENOSYS, "statx: has no id of the mount")
    return number


def _known(fd: int) -> tuple[int, int, int, int, int]:
    status = ctypes.create_string_buffer(256)
    # With a mask of nothing FUSE does not even look at who asks.
    _check(_again(_libc.statx, fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, status), "statx")
    return _STATX.unpack_from(status)


def fstatfs_type(fd: int) -> int:
    """The magic number (f_type) of the filesystem that `fd` is on, fstatfs(2)."""
    buffer = _Statfs()
    _check(_again(_libc.fstatfs, fd, ctypes.byref(buffer)), "fstatfs")
    return int(buffer.f_type)


def ns_type(fd: int) -> int:
    """The CLONE_NEW* type of the namespace that `fd` refers to, ioctl_ns(2).  ENOTTY: not a namespace."""
    return _check(_again(_libc.ioctl, fd, NS_GET_NSTYPE, 0), "ioctl")


def mntns_id(fd: int) -> int:
    """The kernel's 64-bit id of the mount namespace `fd`, unique since boot; 0 where the kernel has none.

    NS_GET_MNTNS_ID, Linux 6.11, include/uapi/linux/nsfs.h.
    """
    number = ctypes.c_uint64()
    try:
        _check(_again(_libc.ioctl, fd, NS_GET_MNTNS_ID, ctypes.byref(number)), "ioctl")
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return 0
        raise
    return number.value


def get_capabilities() -> tuple[int, int, int]:
    """The effective, permitted and inheritable capability sets of the calling thread, as bit masks, capget(2)."""
    header = _CapabilityHeader(_LINUX_CAPABILITY_VERSION_3, 0)
    low = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(ctypes.byref(header), low), "capget")
    effective, permitted, inheritable = (low[n] | low[n + 3] << 32 for n in range(3))
    return effective, permitted, inheritable


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capability sets of the calling thread, as bit masks, capset(2).  EPERM: that would be more."""
    header = _CapabilityHeader(_LINUX_CAPABILITY_VERSION_3, 0)
    masks = (effective, permitted, inheritable)
    low, high = [mask & 0xFFFFFFFF for mask in masks], [mask >> 32 for mask in masks]
    _check(_libc.capset(ctypes.byref(header), (ctypes.c_uint32 * 6)(*low, *high)), "capset")


def lower_ambient_capability(number: int) -> None:
    """Take a capability out of the ambient set, PR_CAP_AMBIENT(2const).  EINVAL: the kernel has none of it."""
    _check(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, number, 0, 0), "prctl")


def in_bounding_set(number: int) -> bool:
    """Whether a capability is in the bounding set, PR_CAPBSET_READ(2const).  EINVAL: the kernel has none of it."""
    return bool(_check(_libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0), "prctl"))


def drop_from_bounding_set(number: int) -> None:
    """Take a capability out of the bounding set, PR_CAPBSET_DROP(2const).  EPERM: needs CAP_SETPCAP."""
    _check(_libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "prctl")


def set_groups_of_thread(groups: Sequence[int]) -> None:
    """Set the supplementary groups of the calling thread, setgroups(2); the C library's function sets all threads'.

    Only where CAN_SPAWN.  Raises: OSError.
    """
    number = _SYS_SETGROUPS[os.uname().machine]
    array = (ctypes.c_uint32 * len(groups))(*groups)
    _check(_libc.syscall(number, ctypes.c_long(len(groups)), array), "setgroups")


def posix_spawn(program: bytes, argv: Sequence[bytes], env: Mapping[bytes, bytes]) -> int:
    """Start a program in a session of its own, with no signal blocked or ignored, posix_spawn(3).

    It has of the calling thread what execve(2) keeps.  Other threads go on meanwhile, which they would not with the
    function of the module os: that a program is executed may take for ever.

    Returns: its pid.  Raises: OSError: the errno of fork(2) or execve(2).
    """
    attributes = (ctypes.c_uint64 * 64)()  # posix_spawnattr_t has 336 bytes
    none = (ctypes.c_uint64 * 16)()  # sigset_t has 128
    # Not by sigfillset(3), which leaves out those of the library.
    every = (ctypes.c_uint64 * 16)(*(2**64 - 1,) * 16)
    pid = ctypes.c_int()
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv)
    variables = (ctypes.c_char_p * (len(env) + 1))(*(key + b"=" + value for key, value in env.items()))
    code = _libc.posix_spawnattr_init(attributes)
    if code == 0:
        code = (
            _libc.posix_spawnattr_setsigmask(attributes, none)
            or _libc.posix_spawnattr_setsigdefault(attributes, every)
            or _libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_POSIX_SPAWN_FLAGS))
            or _libc.posix_spawn(ctypes.byref(pid), program, None, attributes, arguments, variables)
        )
        _libc.posix_spawnattr_destroy(attributes)
    if code != 0:
        raise OSError(code, f"posix_spawn: {os.strerror(code)}", os.fsdecode(program))
    return pid.value


def load_unwinder() -> None:
    """Load what pthread_exit(3) of glibc would load when it is first called, wherever that thread is then.

    Raises: OSError: the library is not there.
    """
    ctypes.CDLL("libgcc_s.so.1")


def beginning(path: str, size: int) -> bytes:
    """At most `size` bytes of a file that is read in one go, as those of /proc are, read(2).  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, size)
    finally:
        close(fd)


def entries(directory: int) -> list[str]:
    """The names in an open directory, wherever its reading stopped before, getdents(2).  Raises OSError."""
    os.lseek(directory, 0, os.SEEK_SET)
    return os.listdir(directory)
