# SPDX-License-Identifier: LGPL-2.1-or-later
"""A system call as a step of the daemon's work: who makes it, which it is, and on what.

Words that differ from run to run are left out: numbers of processes, descriptors, inodes and records.
"""

import os
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from support import leaks

from .seccomp import Notice, get_descriptor, name_of

# They fail only where the kernel is out of memory for the process itself, which then ends, or not at all.
PASSED_OVER = [
    "brk",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "membarrier",
    "futex",
    "rseq",
    "set_robust_list",
    "get_robust_list",
    "set_tid_address",
    "sched_yield",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "restart_syscall",
    "exit",
    "exit_group",
    "clock_gettime",
    "clock_nanosleep",
    "gettimeofday",
    "time",
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getpgrp",
    "uname",
]
# One call by several names.
_NAMES = {
    **dict.fromkeys(("fstat", "lstat", "newfstatat", "statx", "fstatat64"), "stat"),
    **dict.fromkeys(("pread64", "readv"), "read"),
    **dict.fromkeys(("pwrite64", "writev"), "write"),
    **dict.fromkeys(("dup2", "dup3"), "dup2"),
    **dict.fromkeys(("epoll_pwait", "epoll_pwait2"), "epoll_wait"),
    **dict.fromkeys(("fork", "vfork", "clone3"), "clone"),
    "openat": "open",
    "unlinkat": "unlink",
    "mkdirat": "mkdir",
    "renameat": "rename",
    "renameat2": "rename",
    "readlinkat": "readlink",
    "faccessat": "access",
    "faccessat2": "access",
    "getdents64": "getdents",
    "pipe2": "pipe",
    "ppoll": "poll",
    "epoll_create1": "epoll_create",
    "prlimit64": "prlimit",
    "execveat": "execve",
    "fstatfs": "statfs",
}
_PATH_FIRST = frozenset(
    [
        "open",
        "stat",
        "lstat",
        "mkdir",
        "rmdir",
        "unlink",
        "readlink",
        "chdir",
        "access",
        "execve",
        "umount2",
        "truncate",
        "fsopen",
        "statfs",
        "chmod",
        "chown",
    ]
)
_AT = frozenset(
    [
        "openat",
        "newfstatat",
        "statx",
        "unlinkat",
        "mkdirat",
        "readlinkat",
        "faccessat",
        "faccessat2",
        "openat2",
        "open_tree",
        "mount_setattr",
        "fchmodat",
        "fchownat",
        "execveat",
    ]
)
_DESCRIPTOR_FIRST = frozenset(
    [
        "read",
        "write",
        "pread64",
        "pwrite64",
        "readv",
        "writev",
        "close",
        "fstat",
        "fcntl",
        "ioctl",
        "lseek",
        "dup",
        "dup2",
        "dup3",
        "getdents64",
        "fchmod",
        "fchown",
        "ftruncate",
        "flock",
        "setns",
        "fsmount",
        "fstatfs",
        "sendto",
        "recvfrom",
        "sendmsg",
        "recvmsg",
        "connect",
        "setsockopt",
        "getsockopt",
        "fchdir",
        "pidfd_send_signal",
        "shutdown",
        "bind",
        "getsockname",
        "getpeername",
        "fsync",
        "fadvise64",
    ]
)
_IOCTLS = {
    0xB703: "NS_GET_NSTYPE",
    0x8008B705: "NS_GET_MNTNS_ID",
    0x5401: "TCGETS",
    0x5413: "TIOCGWINSZ",
    0x540E: "TIOCSCTTY",
    0x5421: "FIONBIO",
    0x5451: "FIOCLEX",
    0x5450: "FIONCLEX",
}
_PRCTLS = {4: "PR_SET_DUMPABLE", 27: "PR_GET_SECUREBITS", 38: "PR_SET_NO_NEW_PRIVS", 47: "PR_CAP_AMBIENT"}
_FSCONFIGS = {0: "set flag", 1: "set string", 6: "create"}
_ROUTINE = {
    *(("ioctl", name) for name in ("TCGETS", "TIOCGWINSZ", "FIONBIO")),
    *((call, "socket") for call in ("fcntl", "stat", "getsockname")),
    ("write", "log"),
}
_ROUTINE_CALLS = {"lseek", "getrandom", "getsockname", "umask", "prlimit", "geteuid"}
_AT_FDCWD = -100
BUS, LOOP = "the bus", "the event loop"
_WORD = re.compile(rb"[^\0]*")


@dataclass(frozen=True, order=True, slots=True)
class Step:
    """A call that is told from others. Attributes: actor: daemon, child; call; what."""

    actor: str
    call: str
    what: str

    @property
    def is_routine(self) -> bool:
        """Whether the interpreter does it of its own accord, and other versions of it do it otherwise."""
        return (self.call, self.what.partition(" ")[0]) in _ROUTINE or self.call in _ROUTINE_CALLS


class Reader:
    """Reads steps out of notices.

    Arguments: pid: of the daemon; places: the directories that differ from run to run, and what they are called.
    """

    def __init__(self, pid: int, places: dict[str, str]) -> None:
        self._pid = pid
        self._places = places
        self._loop: set[str] = set()
        self._program = os.readlink("/proc/self/exe")

    def begin(self) -> None:
        """The sockets that the daemon has now are the bus and those of the event loop."""
        try:
            targets = [*leaks.fds_of(self._pid).values()]
        except OSError:
            targets = []
        self._loop |= {target for target in targets if target.startswith("socket:")}

    def concerns(self, notice: Notice) -> bool:
        """Whether it is the daemon's doing, and not that of a program that it started."""
        try:
            return os.readlink(f"/proc/{notice.tid}/exe") == self._program
        except OSError:
            return True

    def step(self, notice: Notice) -> Step:
        """What a thread is about to do."""
        actor = "daemon" if os.path.exists(f"/proc/{self._pid}/task/{notice.tid}") else "child"
        name = name_of(notice.number)
        return Step(actor, _NAMES.get(name, name), self._shown(self._where(self._what(notice, name), notice)))

    def _where(self, what: str, notice: Notice) -> str:
        """What is told apart although it looks the same: sockets, and processes."""
        if what in self._loop:
            return BUS if _is_named(notice.tid, notice.arguments[0]) else LOOP
        if name_of(notice.number).startswith("epoll_"):
            return LOOP
        found = re.match(r"/proc/(\d+)", what)
        if found and int(found[1]) != self._pid and _is_elsewhere(int(found[1])):
            return what.replace(found[1], "INSIDE", 1)
        return what

    def _what(self, notice: Notice, name: str) -> str:
        first, second, third, fourth, *_ = notice.arguments
        tid = notice.tid
        if name == "mount":
            return _string(tid, second)
        if name == "move_mount":
            return _at(tid, third, fourth)
        if name in ("renameat", "renameat2"):
            return _at(tid, third, fourth)
        if name == "rename":
            return _string(tid, second)
        if name == "epoll_ctl":
            return _descriptor(tid, third)
        if name == "pidfd_open":
            return f"/proc/{first}"
        if name == "prctl":
            return _PRCTLS.get(first, str(first))
        if name == "fsconfig":
            key = _string(tid, third)
            return f"{_FSCONFIGS.get(second, second)} {key}".strip()
        if name in _PATH_FIRST:
            return _string(tid, first)
        if name in _AT:
            return _at(tid, first, second)
        if name in _DESCRIPTOR_FIRST:
            target = _descriptor(tid, first)
            return f"{_IOCTLS.get(second & 0xFFFFFFFF, hex(second))} {target}" if name == "ioctl" else target
        return ""

    def _shown(self, text: str) -> str:
        for place, word in self._places.items():
            text = text.replace(place, word)
        text = re.sub(r"\b(mnt|socket|pipe|net|user):\[\d+\]", r"\1", text)
        text = re.sub(r"(?<!\w)/proc/\d+(?=/|$)", "/proc/PID", text)
        text = re.sub(r"/proc/PID/task/\d+(?=/)", "/proc/thread-self", text)
        text = re.sub(r"\b(fd|fdinfo)/\d+", r"\1/N", text)
        text = re.sub(r"\b[0-9a-f]{16}\b", "NUMBER", text)
        return text.removeprefix("anon_inode:").removesuffix(" (deleted)")


def _is_elsewhere(pid: int) -> bool:
    """Whether a process is in another mount namespace."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    except OSError:
        return False


def _process_of(tid: int) -> int:
    """The process of a thread."""
    status = Path(f"/proc/{tid}/status").read_text()
    return int(status.split("Tgid:\t")[1].split("\n")[0])


def _is_named(tid: int, number: int) -> bool:
    """Whether a socket of a process's leads to one with a name, as the bus has."""
    try:
        pidfd = os.pidfd_open(_process_of(tid))
    except OSError:
        return False
    try:
        with socket.socket(fileno=get_descriptor(pidfd, number)) as sock:
            return bool(sock.getpeername())
    except OSError:
        return False
    finally:
        os.close(pidfd)


def _string(tid: int, address: int) -> str:
    """The string at an address of a thread's."""
    if not address:
        return ""
    try:
        fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        data = os.pread(fd, min(4096, 4096 - address % 4096) + 0, address)
        found = _WORD.match(data)
        whole = found.group() if found else b""
        if len(whole) == len(data):
            whole += (_WORD.match(os.pread(fd, 4096, address + len(data))) or [b""])[0]
        return os.fsdecode(whole)
    except OSError:
        return ""
    finally:
        os.close(fd)


def _signed(number: int) -> int:
    return int(struct.unpack("i", struct.pack("I", number & 0xFFFFFFFF))[0])


def _descriptor(tid: int, number: int) -> str:
    """What a descriptor of a thread's leads to."""
    try:
        return os.readlink(f"/proc/{tid}/fd/{_signed(number)}")
    except OSError:
        return "nothing"


def _at(tid: int, directory: int, path: int) -> str:
    """What a path below a directory descriptor leads to."""
    text = _string(tid, path)
    if text.startswith("/") or _signed(directory) == _AT_FDCWD:
        return text
    below = _descriptor(tid, directory)
    return os.path.join(below, text) if text else below
