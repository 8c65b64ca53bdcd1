# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is inside a mount namespace: /proc, read as root.

A process counts where its main thread is, as lsns(8) has it.
Source: proc_pid_ns(5), pidfd_open(2).
"""

import asyncio
import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mountnsd import syscalls

_PREFIX = "mnt:["
_GONE = (errno.ENOENT, errno.ESRCH)
# A sandbox may keep even root from looking at some.
_OUT_OF_REACH = (errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    uid: int
    command: str  # the comm, at most 15 bytes: what the process calls itself, so not to be trusted


def namespace_of(pid: int) -> int | None:
    """The inode of the mount namespace that process `pid` is in, or None where it is gone or out of reach.

    Raises: OSError for anything else, such as ENOMEM: nobody is outside because he could not be looked at.
    """
    try:
        link = os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError as error:
        if error.errno in (*_GONE, *_OUT_OF_REACH):
            return None
        raise
    return int(link[len(_PREFIX) : -1]) if link.startswith(_PREFIX) else None


def namespace_of_living(pid: int) -> int | None:
    """As `namespace_of`, sure that the pid was not given to another process meanwhile."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        inode = namespace_of(pid)
        signal.pidfd_send_signal(pidfd, 0)  # still the same one
        return inode
    except OSError:
        return None
    finally:
        syscalls.close(pidfd)


def _pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def count() -> Counter[int]:
    """How many processes are in each mount namespace, by inode."""
    return Counter(inode for pid in _pids() if (inode := namespace_of(pid)) is not None)


def inside(inode: int) -> list[Process]:
    """The processes in the mount namespace `inode`, by pid.  Raises OSError where it cannot be told."""
    found = []
    for pid in _pids():
        if namespace_of(pid) != inode:
            continue
        process = _describe(pid)
        if process is not None:
            found.append(process)
    return sorted(found, key=lambda process: process.pid)


def _describe(pid: int) -> Process | None:
    """A process, None where it is gone.  Raises OSError."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        fd = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            command = os.read(fd, 64).rstrip(b"\n").decode("utf-8", "replace")
        finally:
            syscalls.close(fd)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return Process(pid, uid, command)


async def end(inode: int, grace: float = 5.0, last: float = 2.0) -> list[int]:
    """End all processes in the mount namespace `inode`: SIGTERM, and after `grace` seconds SIGKILL.

    Arguments: grace: seconds between the two; last: seconds to wait after SIGKILL.
    Returns: the pids that were signalled.  Those that could not be ended are still inside.
    """
    signalled: dict[int, None] = {}
    start = time.monotonic()
    pause = 0.005
    told: set[int] = set()
    while True:
        elapsed = time.monotonic() - start
        kill = elapsed >= grace
        living = [process.pid for process in inside(inode) if process.pid not in (1, os.getpid())]
        if not living or elapsed >= grace + last:
            return list(signalled)
        for pid in living:
            if (kill or pid not in told) and _signal(pid, inode, signal.SIGKILL if kill else signal.SIGTERM):
                told.add(pid)
                signalled[pid] = None
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.1)


def _signal(pid: int, inode: int, number: signal.Signals) -> bool:
    """Signal a process that is still the one seen inside.  Returns: whether it was; if not, it can be tried again."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if namespace_of(pid) != inode:
            return False
        signal.pidfd_send_signal(pidfd, number)
        return True
    except OSError:
        return False
    finally:
        syscalls.close(pidfd)
