# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process may try to do to another one of its user.

Sources: ptrace(2) ("Ptrace access mode checking"), proc(5), pidfd_getfd(2), kcmp(2), process_vm_readv(2).
"""

import ctypes
import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .ground import attempt, call

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206
_SYS_PIDFD_GETFD, _SYS_KCMP = 438, 312
REFUSALS = (errno.EACCES, errno.EPERM)


def seize(pid: int) -> None:
    """Become the tracer of a process.  Raises: OSError."""
    ptrace(_PTRACE_SEIZE, pid)


def ptrace(request: int, pid: int) -> None:
    _LIBC.ptrace.restype = ctypes.c_long
    call(_LIBC.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, None))


def take_fd(pid: int, number: int) -> None:
    call(_LIBC.syscall(_SYS_PIDFD_GETFD, os.pidfd_open(pid), number, 0))


def open_and_read(name: str, pid: int) -> None:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
        file.read(8)


def open_to_write(name: str, pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/{name}", os.O_WRONLY))


def read_link(name: str, pid: int) -> str:
    return os.readlink(f"/proc/{pid}/{name}")


def read_memory(pid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    there = (ctypes.c_size_t * 2)(id(None), 8)
    call(_LIBC.process_vm_readv(pid, vector, 1, there, 1, 0))


# What another process of the user may try, and what the kernel says.
ATTEMPTS: dict[str, Callable[[int], object]] = {
    "ptrace attach": lambda pid: ptrace(_PTRACE_ATTACH, pid),
    "ptrace seize": seize,
    "process_vm_readv": read_memory,
    "pidfd_getfd": lambda pid: take_fd(pid, 0),
    "kcmp": lambda pid: call(_LIBC.syscall(_SYS_KCMP, pid, os.getpid(), 2, 0, 0)),
    **{
        f"open {name}": partial(open_and_read, name)
        for name in ("mem", "environ", "maps", "smaps", "auxv", "syscall", "stack", "pagemap", "timers")
    },
    **{f"readlink {name}": partial(read_link, name) for name in ("exe", "cwd", "root", "fd/0", "ns/mnt")},
    "list fd": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "list map_files": lambda pid: os.listdir(f"/proc/{pid}/map_files"),
    "open exe to write": partial(open_to_write, "exe"),
    "write oom_score_adj": lambda pid: Path(f"/proc/{pid}/oom_score_adj").write_text("1000"),
    "write coredump_filter": lambda pid: Path(f"/proc/{pid}/coredump_filter").write_text("0xff"),
    "write mem": partial(open_to_write, "mem"),
}


def attempts_at(pid: int) -> dict[str, int]:
    """Try each; returns the errno of each, 0 where it was done."""
    return {what: attempt(partial(work, pid)) for what, work in ATTEMPTS.items()}
