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

import asyncio
import logging
import os

from mountnsd import cgroup, helper, syscalls

log = logging.getLogger(__name__)

_EXECUTOR = 256  # the version of systemd that starts a program to put itself into the group it was made in
_SOON = 0.001  # seconds
_ROOM = 1 << 16  # bytes; our unit has no other process


class HeadStart:
    """Gives head starts, one at a time."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late = False

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
        if self._task is not None:
            await asyncio.wait((self._task,))

    def _give(self) -> None:
        self._timer = None
        if self._task is None:
            self._task = asyncio.ensure_future(self._wait())
            self._task.add_done_callback(self._given)

    def _given(self, _task: asyncio.Task[None]) -> None:
        self._task = None

    async def _wait(self) -> None:
        try:
            await helper.run(_have_the_lock, lane="headstart")
        except Exception as error:  # noqa: BLE001 - it is no loss
            log.debug("No head start was given: %s", error)


def _have_the_lock() -> None:
    """Put ourselves into the control group that we are in.  Raises OSError."""
    fd = os.open(cgroup.path(cgroup.own()) / "cgroup.procs", os.O_RDWR | os.O_CLOEXEC)
    try:
        # By another mount of the hierarchy it could be another group: then it is left alone.
        if str(os.getpid()).encode() in os.read(fd, _ROOM).split():
            os.write(fd, b"0")
    finally:
        syscalls.close(fd)
