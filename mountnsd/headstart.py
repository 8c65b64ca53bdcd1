# SPDX-License-Identifier: LGPL-2.1-or-later
"""A head start for what takes longest when systemd starts a process: to put it into its control group.

That takes the kernel's lock against processes that come and go, cgroup_threadgroup_rwsem, which waits for a grace
period of RCU, 10 ms or so, unless somebody has just had it.  So we have it, by a write that changes nothing, while
systemd has other things to do: it waits no longer than it would have, and we wait for less.

While one waits for that lock, the kernel makes and removes no control groups.  So there are two moments for it.
Where PID 1 makes the group and puts the process into it in one go, as early as possible.  Where it starts a program
that does so after 5 ms (systemd 256, systemd-executor), when PID 1 has made the group, which is soon after it has
taken the order.  At the wrong moment it only gains less.

Out of scope: hosts without the unified hierarchy; it is no loss where none of this works.

Sources: kernel/cgroup/cgroup.c (cgroup_procs_write_start), kernel/locking/percpu-rwsem.c, kernel/rcu/sync.c.
"""

import _thread
import asyncio
import os
from contextlib import suppress

from mountnsd import cgroup, syscalls

_EXECUTOR = 256  # the version of systemd that starts a program to put itself into the group it was made in
_SOON = 0.001  # seconds
_ROOM = 1 << 16  # bytes; our unit has no other process
_LOOK = 0.002  # seconds between two looks whether the last one has been given


class HeadStart:
    """Gives head starts, one at a time."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._late = False
        self._giving = False
        self._fd = -1  # of the list of the processes in our control group

    def suit(self, version: int) -> None:
        """Choose the moment.  Arguments: version: systemd's, 0 where it is not known."""
        self._late = version >= _EXECUTOR

    def coming(self) -> None:
        """Somebody who may is about to have a process started."""
        if not self._late:
            self._give()

    def ordered(self) -> None:
        """The order to start one has been taken by systemd."""
        if self._late and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SOON, self._give)

    async def close(self) -> None:
        """Give none any more; wait for the one that is being given."""
        if self._timer is not None:
            self._timer.cancel()
        while self._giving:
            await asyncio.sleep(_LOOK)
        if self._fd >= 0:
            syscalls.close(self._fd)
            self._fd = -1

    def _give(self) -> None:
        self._timer = None
        if self._giving:
            return
        with suppress(OSError, RuntimeError):
            self._find()
            self._giving = True
            try:
                # Not by helper.py, where it would begin a few turns of the event loop later.
                _thread.start_new_thread(self._wait, ())
            except BaseException:
                self._giving = False
                raise

    def _find(self) -> None:
        """Have our control group open.  Raises OSError."""
        if self._fd >= 0 and _is_ours(self._fd):
            return
        if self._fd >= 0:  # somebody has put us into another one
            syscalls.close(self._fd)
            self._fd = -1
        fd = os.open(cgroup.path(cgroup.own()) / "cgroup.procs", os.O_RDWR | os.O_CLOEXEC)
        # By another mount of the hierarchy it could be another group.
        if not _is_ours(fd):
            syscalls.close(fd)
            raise FileNotFoundError
        self._fd = fd

    def _wait(self) -> None:
        try:
            with suppress(OSError):
                _have_the_lock(self._fd)
        finally:
            self._giving = False


def _is_ours(fd: int) -> bool:
    """Whether we are in the control group whose list of processes that is.  Raises OSError."""
    return str(os.getpid()).encode() in os.pread(fd, _ROOM, 0).split()


def _have_the_lock(fd: int) -> None:
    """Put ourselves into the control group that we are in.  Raises OSError."""
    os.write(fd, b"0")
