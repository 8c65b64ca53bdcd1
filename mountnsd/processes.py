# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is inside a mount namespace: /proc, read as root.

A process counts where its main thread is, as lsns(8) has it.  A look takes 10 microseconds a process of the host: it
is for a helper thread, where the answer may be a moment old.
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
from functools import partial

from mountnsd import helper

_PREFIX = "mnt:["
_GONE = (errno.ENOENT, errno.ESRCH)


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    uid: int
    command: str  # the comm, at most 15 bytes: what the process calls itself, so not to be trusted


def namespace_of(pid: int) -> int | None:
    """The inode of the mount namespace that process `pid` is in, or None where it is gone."""
    try:
        link = os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None
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
        os.close(pidfd)


def _pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def count() -> Counter[int]:
    """How many processes are in each mount namespace, by inode."""
    return Counter(inode for pid in _pids() if (inode := namespace_of(pid)) is not None)


def inside(inode: int) -> list[Process]:
    """The processes in the mount namespace `inode`, by pid.  Raises: OSError, where one cannot be looked at."""
    found = []
    for pid in _pids():
        if namespace_of(pid) != inode:
            continue
        process = _describe(pid, inode)
        if process is not None:
            found.append(process)
    return sorted(found, key=lambda process: process.pid)


def _describe(pid: int, inode: int) -> Process | None:
    """The process in the mount namespace `inode` that has the pid; None where another has it by now.

    All is read by one directory of /proc, which is of that process: nothing is in it any more when that has ended.
    Raises: OSError: EMFILE and the like, which do not say that nobody is there.
    """
    directory = -1
    try:
        directory = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if os.readlink("ns/mnt", dir_fd=directory) != f"{_PREFIX}{inode}]":
            return None
        uid = os.fstat(directory).st_uid
        with open(os.open("comm", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory), "rb") as file:  # noqa: PTH123
            command = file.read(64).rstrip(b"\n").decode("utf-8", "replace")
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    finally:
        if directory >= 0:
            os.close(directory)
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
        there = await helper.run(partial(inside, inode), lane="processes")
        living = [process.pid for process in there if process.pid not in (1, os.getpid())]
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
        if namespace_of(pid) == inode:
            signal.pidfd_send_signal(pidfd, number)
    except OSError:
        pass
    finally:
        os.close(pidfd)
