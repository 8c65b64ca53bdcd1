# SPDX-License-Identifier: LGPL-2.1-or-later
"""The system calls by which a process becomes another one, and which Python does not wrap: one thin function a call.

As syscalls.py, which has all the others, but without ctypes: it is on the way of every process that is started, and
the half of that module that is written in C does.  Every function raises OSError with the errno.

Sources: setns(2), close_range(2), prctl(2), capset(2), keyctl(2), and Lib/ctypes/__init__.py of CPython, which shows
what its other half takes.
"""

from __future__ import annotations

import _ctypes
import errno
import sys

from mountnsd.bare import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWNS = 0x00020000  # sched.h

# linux/prctl.h, linux/keyctl.h
PR_SET_DUMPABLE = 4
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
KEYCTL_JOIN_SESSION_KEYRING = 1

_LINUX_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Unsigned(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "I"


class _UnsignedLong(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class _Bytes(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """A pointer to the content of bytes, which the callee does not change; None stands for NULL."""

    _type_ = "z"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


def _function(name: str, *arguments: type, result: type = _Int) -> Callable[..., int]:
    """A function of the C library."""
    found = _Function(_ctypes.dlsym(_libc, name))
    found.argtypes = arguments
    found.restype = result
    return found


_libc = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None: what is loaded already
_setns = _function("setns", _Int, _Int)
_close_range = _function("close_range", _Unsigned, _Unsigned, _Int)
_prctl = _function("prctl", _Int, _UnsignedLong, _UnsignedLong, _UnsignedLong, _UnsignedLong)
_capset = _function("capset", _Bytes, _Bytes)
_syscall = _function("syscall", _Long, _Long, _Bytes, result=_Long)

_HINTS = {
    ("close_range", errno.ENOSYS): "needs Linux 5.9",
    ("setns", errno.EPERM): "needs CAP_SYS_ADMIN and CAP_SYS_CHROOT",
}

# Python makes a call again that a signal interrupted (PEP 475), and so do we; but not for ever: EINTR can also be the
# word of a FUSE server.
_TRIES = 32


def again(function: Callable[..., int], *arguments: object) -> int:
    """The result of a call, made again when a signal interrupted it."""
    for _ in range(_TRIES - 1):
        result = function(*arguments)
        if result >= 0 or _ctypes.get_errno() != errno.EINTR:
            return result
    return function(*arguments)


def _check(result: int, call: str) -> int:
    """Return a system call's result, or raise OSError."""
    if result >= 0:
        return result
    code = _ctypes.get_errno()
    hint = _HINTS.get((call, code))
    raise OSError(code, f"{call}: {os.strerror(code)}" + (f" ({hint})" if hint else ""))


def setns(fd: int, nstype: int) -> None:
    """Move the calling thread into the namespace that `fd` refers to, setns(2).

    For a mount namespace the thread must not share its filesystem attributes:
    call `unshare(CLONE_FS)` first in a process with more than one thread.
    """
    _check(again(_setns, fd, nstype), "setns")


def set_no_new_privs() -> None:
    """Give up for good that execve(2) can grant privileges, PR_SET_NO_NEW_PRIVS(2const)."""
    _check(_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def set_dumpable(dumpable: bool) -> None:
    """Whether the calling process may be traced by others of its user, PR_SET_DUMPABLE(2const)."""
    _check(_prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0), "prctl")


def get_securebits() -> int:
    """How uid 0 and capabilities hang together in the calling thread, PR_GET_SECUREBITS(2const)."""
    return _check(_prctl(PR_GET_SECUREBITS, 0, 0, 0, 0), "prctl")


def set_securebits(bits: int) -> None:
    """Set the secure bits, PR_SET_SECUREBITS(2const).  EPERM: without CAP_SETPCAP, or they are locked."""
    _check(_prctl(PR_SET_SECUREBITS, bits, 0, 0, 0), "prctl")


def clear_ambient_capabilities() -> None:
    """Empty the ambient capability set of the calling thread, PR_CAP_AMBIENT(2const)."""
    _check(_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")


def clear_capabilities() -> None:
    """Empty the effective, permitted and inheritable capability sets of the calling thread, capset(2)."""
    header = _LINUX_CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)  # and the pid, 0: our own
    _check(_capset(header, bytes(24)), "capset")  # two times effective, permitted, inheritable


def close_range(first: int, last: int) -> None:
    """Close the descriptors from `first` to `last`, both included, without looking at /proc, close_range(2)."""
    _check(again(_close_range, first, last, 0), "close_range")


def close(fd: int) -> None:
    """Close a descriptor to which nothing was written, close(2).

    It is gone whatever the kernel says; an error would only keep the caller from what is left to do.
    Raises: OSError: EBADF: it was no descriptor.
    """
    try:
        os.close(fd)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise


def join_new_session_keyring() -> None:
    """Leave the inherited session keyring for a new, empty one, keyctl(2).

    Does nothing on a kernel without keyrings or on an architecture whose call number is not known here.
    """
    number = _SYS_KEYCTL.get(os.uname().machine)
    if number is None:
        return
    if again(_syscall, number, KEYCTL_JOIN_SESSION_KEYRING, None) < 0 and _ctypes.get_errno() != errno.ENOSYS:
        _check(-1, "keyctl")
