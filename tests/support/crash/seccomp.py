# SPDX-License-Identifier: LGPL-2.1-or-later
"""System calls that wait for somebody's word: the kernel's own seam.

A process that has installed the filter, and all that it starts, asks before each system call. So nothing is missed,
whoever makes the call: our code, the interpreter, the C library, a thread or a child.

Sources: seccomp(2), seccomp_unotify(2), pidfd_getfd(2), seccomp_syscall_resolve_name(3).
"""

import ctypes
import fcntl
import os
import platform
import select
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBSECCOMP = ctypes.CDLL("libseccomp.so.2")
_LIBSECCOMP.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, linux/audit.h

# linux/seccomp.h
_SET_MODE_FILTER = 1
_FLAG_TSYNC = 1 << 0
_FLAG_NEW_LISTENER = 1 << 3
_FLAG_TSYNC_ESRCH = 1 << 4
_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # a signal in the meantime does not make it ask again; Linux 5.19
_RET_USER_NOTIF = 0x7FC00000
_RET_ALLOW = 0x7FFF0000
_CONTINUE = 1
_ADDFD_SETFD = 1
_NOTIF_RECV = 0xC0502100
_NOTIF_SEND = 0xC0182101
_NOTIF_ADDFD = 0x40182103
_NOTIF_SET_FLAGS = 0x40082104
_SYNC_WAKE_UP = 1
_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_ADDFD = struct.Struct("=QIIII")

# linux/bpf_common.h: load a word, compare with a constant, return
_LD, _JEQ, _RET = 0x20, 0x15, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # where they are in struct seccomp_data, little endian
_INSTRUCTION = struct.Struct("=HBBI")

_NEWER = {457: "statmount", 458: "listmount"}  # than libseccomp 2.5 knows

_ANNOUNCING = 1022  # the descriptor by which the listener's number is told: writing there is nobody's step


@cache
def name_of(number: int) -> str:
    """The name of a system call of this machine."""
    text = _LIBSECCOMP.seccomp_syscall_resolve_num_arch(0, number)
    return ctypes.string_at(text).decode() if text else _NEWER.get(number, str(number))


@cache
def number_of(name: str) -> int:
    """The number of a system call, negative where this machine has none of that name."""
    return int(_LIBSECCOMP.seccomp_syscall_resolve_name(name.encode()))


@dataclass(frozen=True, slots=True)
class Notice:
    """A thread that waits in a system call. Attributes: id; tid; number, arguments: of the call."""

    id: int
    tid: int
    number: int
    arguments: tuple[int, ...]


class Listener:
    """The other end of a filter.

    Arguments: fd: ours.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        with suppress(OSError):  # who asks and who answers take turns at once; Linux 6.6
            fcntl.ioctl(fd, _NOTIF_SET_FLAGS, _SYNC_WAKE_UP)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def receive(self, milliseconds: int) -> Notice | None:
        """The next thread that asks; None where there was none in that time.

        Raises: EOFError: nobody has the filter any more.
        """
        for _, events in self._poll.poll(milliseconds):
            if not events & select.POLLIN:
                raise EOFError
            buffer = bytearray(_NOTICE.size)
            with suppress(FileNotFoundError, InterruptedError):  # it was killed meanwhile
                fcntl.ioctl(self.fd, _NOTIF_RECV, buffer, True)
                number_of_notice, tid, _, number, _, _, *arguments = _NOTICE.unpack(buffer)
                return Notice(number_of_notice, tid, number, tuple(arguments))
        return None

    def proceed(self, notice: Notice) -> None:
        """Let the call be made."""
        self._answer(notice, 0, _CONTINUE)

    def fail(self, notice: Notice, code: int) -> None:
        """Let the call fail with that errno, without having been made."""
        self._answer(notice, -code, 0)

    def put(self, notice: Notice, fd: int, number: int) -> None:
        """Give the process another file under a descriptor, which closes what it had there; close-on-exec."""
        with suppress(FileNotFoundError):
            fcntl.ioctl(self.fd, _NOTIF_ADDFD, _ADDFD.pack(notice.id, _ADDFD_SETFD, fd, number, os.O_CLOEXEC))

    def _answer(self, notice: Notice, error: int, flags: int) -> None:
        with suppress(FileNotFoundError):  # it was killed meanwhile
            fcntl.ioctl(self.fd, _NOTIF_SEND, _ANSWER.pack(notice.id, 0, error, flags))

    def close(self) -> None:
        """Whoever asks from now on fails with ENOSYS."""
        os.close(self.fd)


def installed(notice: Notice) -> bool:
    """Whether it is the last call of `install`: from now on, it is the process's own work."""
    return notice.number == number_of("close") and notice.arguments[0] == _ANNOUNCING


def install(announce: int, passed_over: Iterable[str]) -> None:
    """Have this process ask before each call from now on; it goes on when somebody listens.

    Arguments: announce: a pipe to him, ours no more; passed_over: names of calls that are not asked about.
    Raises: OSError.
    """
    os.dup2(announce, _ANNOUNCING, inheritable=False)
    os.close(announce)
    program = _program([number for name in passed_over if (number := number_of(name)) >= 0])
    code = ctypes.create_string_buffer(program, len(program))
    length = len(program) // _INSTRUCTION.size
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", length, ctypes.addressof(code)))
    flags = _FLAG_NEW_LISTENER | _FLAG_TSYNC | _FLAG_TSYNC_ESRCH | _FLAG_WAIT_KILLABLE_RECV
    fd = _LIBC.syscall(number_of("seccomp"), _SET_MODE_FILTER, flags, header)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    os.write(_ANNOUNCING, struct.pack("i", fd))
    os.close(fd)
    os.close(_ANNOUNCING)


def listen(pid: int, announced: int) -> Listener:
    """The other end of the filter that a process installs.

    Arguments: announced: the reading end of the pipe, borrowed.
    Raises: EOFError: it ended instead.
    """
    told = os.read(announced, 4)
    if len(told) < 4:
        raise EOFError
    pidfd = os.pidfd_open(pid)
    try:
        return Listener(get_descriptor(pidfd, struct.unpack("i", told)[0]))
    finally:
        os.close(pidfd)


def get_descriptor(pidfd: int, number: int) -> int:
    """A copy of a descriptor of another process, close-on-exec, pidfd_getfd(2).  Raises OSError."""
    fd = int(_LIBC.syscall(number_of("pidfd_getfd"), pidfd, number, 0))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"pidfd_getfd: {os.strerror(code)}")
    return fd


def _program(passed_over: list[int]) -> bytes:
    """The filter: ask, but for what is passed over, and for telling of the listener."""
    arch = _ARCHITECTURES[platform.machine()]
    code = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, arch), (_RET, 0, 0, _RET_ALLOW), (_LD, 0, 0, _NUMBER)]
    for number in passed_over:
        code += [(_JEQ, 0, 1, number), (_RET, 0, 0, _RET_ALLOW)]
    code += [
        (_JEQ, 0, 3, number_of("write")),
        (_LD, 0, 0, _FIRST_ARGUMENT),
        (_JEQ, 0, 1, _ANNOUNCING),
        (_RET, 0, 0, _RET_ALLOW),
        (_RET, 0, 0, _RET_USER_NOTIF),
    ]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)
