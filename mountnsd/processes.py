# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is inside a mount namespace: /proc, read as root.

A process counts where its main thread is, as lsns(8) has it, or where another one is if that has ended.  It keeps a
namespace alive by any thread: `inside` looks at them all where that matters.
Source: proc_pid_ns(5), proc_pid_task(5), pidfd_open(2).
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

_PREFIX = "mnt:["
_LINKS_OF_ONE = 3  # to /proc/PID/task of a process that has one thread: two, and one for each


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    uid: int
    command: str  # the comm, at most 15 bytes: what the process calls itself, so not to be trusted


def namespace_of(pid: int) -> int | None:
    """The inode of the mount namespace that process `pid` is in, or None where it is gone."""
    try:
        return _linked(f"/proc/{pid}/ns/mnt")
    except OSError:  # its main thread has ended, the others may go on
        return next(_of_threads(pid), None)


def _linked(path: str) -> int | None:
    """The inode that a link in /proc names.  Raises OSError."""
    link = os.readlink(path)
    return int(link[len(_PREFIX) : -1]) if link.startswith(_PREFIX) else None


def _of_threads(pid: int) -> Iterator[int]:
    """The inodes of the mount namespaces that the threads of a process are in."""
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                inode = _linked(f"/proc/{pid}/task/{thread}/ns/mnt")
                if inode is not None:
                    yield inode


def _has_threads_in(pid: int, inode: int) -> bool:
    """Whether any thread of a process is in the mount namespace `inode`."""
    if namespace_of(pid) == inode:
        return True
    if pid == os.getpid():  # our helper threads look and mount inside, and end with that
        return False
    with suppress(OSError):
        if os.stat(f"/proc/{pid}/task").st_nlink > _LINKS_OF_ONE:
            return inode in _of_threads(pid)
    return False


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
        os.close(pidfd)


def _pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def count() -> Counter[int]:
    """How many processes are in each mount namespace, by inode."""
    return Counter(inode for pid in _pids() if (inode := namespace_of(pid)) is not None)


def inside(inode: int, *, threads: bool = False) -> list[Process]:
    """The processes in the mount namespace `inode`, by pid.

    Arguments: threads: also those that have any thread there; that costs a look at every thread of the system.
    """
    found = []
    for pid in _pids():
        if not (_has_threads_in(pid, inode) if threads else namespace_of(pid) == inode):
            continue
        process = _describe(pid)
        if process is not None:
            found.append(process)
    return sorted(found, key=lambda process: process.pid)


def _describe(pid: int) -> Process | None:
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        with open(f"/proc/{pid}/comm", "rb") as file:  # noqa: PTH123
            command = file.read(64).rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return None
    return Process(pid, uid, command)


async def end(inode: int, grace: float = 5.0, last: float = 2.0) -> list[int]:
    """End all processes with a thread in the mount namespace `inode`: SIGTERM, and after `grace` seconds SIGKILL.

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
        living = [
            process.pid for process in inside(inode, threads=True) if process.pid not in (1, os.getpid())
        ]
        if not living or elapsed >= grace + last:
            return list(signalled)
        for pid in living:
            if kill or pid not in told:
                _signal(pid, inode, signal.SIGKILL if kill else signal.SIGTERM)
                told.add(pid)
                signalled[pid] = None
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.1)


def _signal(pid: int, inode: int, number: signal.Signals) -> None:
    """Signal a process that is still the one seen inside."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _has_threads_in(pid, inode):
            signal.pidfd_send_signal(pidfd, number)
    except OSError:
        pass
    finally:
        os.close(pidfd)
