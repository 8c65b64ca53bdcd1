# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is inside a mount namespace: /proc, read as root.

A process counts where its main thread is, as lsns(8) has it, or where another one is if that has ended.  It keeps a
namespace alive by any thread: `inside` looks at them all where that matters.

A look takes 6 microseconds for each program that runs on the host: it is for a helper thread, where the answer may be
a moment old.  One that cannot be made, because descriptors or memory have run out, is an OSError and never an empty
answer.
Source: proc_pid_ns(5), proc_pid_task(5), pidfd_open(2).
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

from mountnsd import helper, syscalls
from mountnsd.kernelthreads import KernelThreads

_PREFIX = "mnt:["
_LINKS_OF_ONE = 3  # to /proc/PID/task of a process that has one thread: two, and one for each
# The process is gone, or out of reach: a sandbox may keep even root from looking at some.
_NOT_TO_BE_SEEN = (errno.ENOENT, errno.ESRCH, errno.EACCES, errno.EPERM)
_kernel_threads = KernelThreads()


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    uid: int
    command: str  # the comm, at most 15 bytes: what the process calls itself, so not to be trusted


def namespace_of(pid: int) -> int | None:
    """The inode of the mount namespace that process `pid` is in, or None where it is gone or out of reach.

    Raises: OSError.
    """
    place = f"/proc/{pid}"
    inode = _linked(place)
    # Its main thread may have ended, and others go on.
    return next(_of_threads(place), None) if inode is None else inode


def _linked(place: str) -> int | None:
    """The inode of the mount namespace of what has a directory in /proc; None where nothing is to be seen.

    Raises: OSError.
    """
    try:
        link = os.readlink(place + "/ns/mnt")
    except OSError as error:
        if error.errno in _NOT_TO_BE_SEEN:
            return None
        raise
    return int(link[len(_PREFIX) : -1]) if link.startswith(_PREFIX) else None


def _of_threads(place: str) -> Iterator[int]:
    """The inodes of the mount namespaces that the threads of a process are in, where it has several.

    Raises: OSError.
    """
    tasks = place + "/task"
    try:
        if os.stat(tasks).st_nlink <= _LINKS_OF_ONE:  # as of most, also of those that have ended
            return
        threads = os.listdir(tasks)
    except OSError as error:
        if error.errno in _NOT_TO_BE_SEEN:
            return
        raise
    for thread in threads:
        inode = _linked(f"{tasks}/{thread}")
        if inode is not None:
            yield inode


def _is_inside(pid: int, inode: int, threads: bool, directory: int | None = None) -> bool:
    """Whether a process is in the mount namespace `inode`, or with `threads` any thread of it.

    Arguments: directory: a descriptor of its /proc/PID, where it must be that very process.
    Raises: OSError.
    """
    place = f"/proc/{pid}" if directory is None else f"/proc/self/fd/{directory}"
    main = _linked(place)
    if main is not None and (main == inode or not threads):
        return main == inode
    if not threads:
        return next(_of_threads(place), None) == inode
    # Our helper threads look and mount inside, and end with that.
    return pid != os.getpid() and inode in _of_threads(place)


def _not_plainly_outside(inode: int, threads: bool) -> Iterator[int]:
    """The processes of which it takes more to see that they are outside than of nearly all.

    So a look takes as long as this does: two system calls for each program, and as little as can be around them.
    """
    readlink, stat = os.readlink, os.stat
    inside = f"{_PREFIX}{inode}]"
    there = _there()
    for pid in there.keys() - _kernel_threads.among(there, inside):
        place = "/proc/" + pid
        try:
            if readlink(place + "/ns/mnt") != inside and (
                not threads or stat(place + "/task").st_nlink <= _LINKS_OF_ONE
            ):
                continue
        except OSError:
            pass  # looked at again, and said if it matters
        yield int(pid)


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


def _there() -> dict[str, int]:
    """The processes: the inode of the directory of each in /proc, by pid."""
    with os.scandir("/proc") as entries:
        return {name: entry.inode() for entry in entries if (name := entry.name).isdigit()}


def count() -> Counter[int]:
    """How many processes are in each mount namespace, by inode.  Raises OSError."""
    return Counter(inode for pid in _there() if (inode := namespace_of(int(pid))) is not None)


def inside(inode: int, *, threads: bool = False) -> list[Process]:
    """The processes in the mount namespace `inode`, by pid.

    Arguments: threads: also those that have any thread there; that costs a look at every thread of the system.
    Raises: OSError.
    """
    found = []
    for pid in _not_plainly_outside(inode, threads):
        if _is_inside(pid, inode, threads):
            process = _describe(pid, inode, threads)
            if process is not None:
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def _describe(pid: int, inode: int, threads: bool) -> Process | None:
    """The process inside that has the pid; None where another has it by now.

    All is read by one directory of /proc, which is of that process: nothing is in it any more when that has ended.
    Raises: OSError.
    """
    directory = comm = -1
    try:
        directory = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if not _is_inside(pid, inode, threads, directory):
            return None
        uid = os.fstat(directory).st_uid
        comm = os.open("comm", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        command = os.read(comm, 64).rstrip(b"\n").decode("utf-8", "replace")
    except OSError as error:
        if error.errno in _NOT_TO_BE_SEEN:
            return None
        raise
    finally:
        for opened in (comm, directory):
            if opened >= 0:
                syscalls.close(opened)
    return Process(pid, uid, command)


async def end(inode: int, grace: float = 5.0, last: float = 2.0) -> list[int]:
    """End all processes with a thread in the mount namespace `inode`: SIGTERM, and after `grace` seconds SIGKILL.

    Arguments: grace: seconds between the two; last: seconds to wait after SIGKILL.
    Returns: the pids that were signalled.  Those that could not be ended are still inside.
    Raises: OSError.
    """
    signalled: dict[int, None] = {}
    start = time.monotonic()
    pause = 0.005
    told: set[int] = set()
    empty = False
    while True:
        elapsed = time.monotonic() - start
        kill = elapsed >= grace
        there = await helper.run(partial(inside, inode, threads=True), lane="processes")
        living = [process.pid for process in there if process.pid not in (1, os.getpid())]
        if elapsed >= grace + last or (not living and (empty or not signalled)):
            return list(signalled)
        empty = not living
        if empty:
            continue  # a look sees nobody who is forked off behind it: two in a row are to be believed
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
        if not _is_inside(pid, inode, threads=True):
            return False
        signal.pidfd_send_signal(pidfd, number)
        return True
    except OSError:
        return False
    finally:
        syscalls.close(pidfd)
