# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that is the main process of a transient unit, from its start until nothing is left of the unit.

What systemd is asked for meanwhile is asked for until it answers: a unit that nobody takes away, a process that
nobody ends and an exit status that nobody hears of are worse than waiting.

Out of scope: how it was started (transient.py).
"""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mountnsd import cgroup, ended, names, syscalls, waiting
from mountnsd.bus import CallError, Disconnected
from mountnsd.records import Origin, Records
from mountnsd.units import Main, Units

log = logging.getLogger(__name__)

_UNKNOWN = (os.CLD_EXITED, 255)  # where nobody can know how a process ended
_ENDED = ("exited", "failed", "dead")
_TELLING = (
    0.1  # seconds that it may take to tell the caller how a process ended; nobody does of what never ran
)


class UnitProcess:
    """A process in a unit.

    Attributes: pid: 0 where it is not known (yet), or there never was one; pidfd: ours until `close`, -1 where there
        is none; exited: as of launcher.Process; over: done when the unit is gone; origin: as of its record.
    """

    def __init__(
        self,
        systemd: Units,
        records: Records,
        number: str,
        origin: Origin,
        pid: int = 0,
        pidfd: int = -1,
        *,
        abandoned: bool = False,
    ) -> None:
        """Watch over a unit in the running event loop, until it is gone.

        Arguments: records, number: where it is kept; pid, pidfd: ours; where they are missing, systemd says;
            abandoned: the unit is to be stopped, if it is there.
        """
        self.pid = pid
        self.pidfd = pidfd
        self.origin = origin
        self._units = systemd
        self._records = records
        self._number = number
        self._unit = names.service_in(origin.namespace, number)
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[tuple[int, int]] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self._was_told: asyncio.Future[None] = loop.create_future()
        self._closed = False
        self._task = asyncio.ensure_future(self._watch(abandoned))

    async def kill(self) -> None:
        """Send SIGKILL to it, and to all that is in its unit."""
        with suppress(OSError):  # it has ended
            if self.pidfd >= 0 and not self.exited.done():
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        await self._unless_over(self._units.kill(self._unit, signal.SIGKILL))

    async def stop(self) -> None:
        """Have the unit stopped: SIGTERM and SIGHUP, then SIGKILL, to all that is in it."""
        await self._unless_over(self._units.stop(self._unit))

    def told(self) -> None:
        """The caller has been told how it ended, and need not be told by the next daemon."""
        self.origin = replace(self.origin, told=True)
        if not self._was_told.done():
            self._was_told.set_result(None)
        if not self.over.done():
            self._records.mark_told(self._number, self.origin)

    def close(self) -> None:
        """Give up the pidfd.  The unit is watched until nothing is left in it."""
        self._closed = True
        self._close_if_unused()

    async def end(self) -> None:
        """Kill it and give up the pidfd; wait for its end a second, and leave what takes longer to the event loop."""
        killing = asyncio.ensure_future(self.kill())
        try:
            await asyncio.wait((self.over,), timeout=1.0)
        finally:
            self.close()
            if self.over.done():
                killing.cancel()

    async def forsake(self) -> None:
        """Watch no longer: the next daemon will."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        self.close()

    async def _watch(self, abandoned: bool) -> None:
        try:
            await (self._units.stop(self._unit) if abandoned else self._see_through())
            await self._remove()
        except Disconnected:
            return  # the daemon ends; the next one goes on from here
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("The unit %s cannot be watched", self._unit)
        self._settle(_UNKNOWN)
        self.over.set_result(None)
        self._close_if_unused()

    async def _see_through(self) -> None:
        if not self.pid:
            await self._adopt()
        if self.pid:
            if self.pidfd >= 0:
                await waiting.readable(self.pidfd)
            self._settle(await self._status())
            # Who waits for that is told before systemd is asked anything.
            await asyncio.wait((self._was_told,), timeout=_TELLING)
            self._close_if_unused()
        await self._emptied()

    async def _adopt(self) -> None:
        """Learn of systemd what an earlier daemon knew."""
        await self._units.hold(self._unit)
        async for _ in waiting.patience():
            with suppress(CallError):
                main = await self._units.main(self._unit)
                if main.pid:
                    self.pidfd = await self._pidfd(main)
                    self.pid = main.pid
                    return
                if await self._units.sub_state(self._unit) in _ENDED:
                    return

    async def _pidfd(self, main: Main) -> int:
        """A pidfd of the main process; -1 where it has ended.  Raises CallError."""
        if main.code:
            return -1
        try:
            pidfd = os.pidfd_open(main.pid)
        except ProcessLookupError:
            return -1
        try:
            if not (await self._units.main(self._unit)).code:
                return pidfd
        except BaseException:
            syscalls.close(pidfd)
            raise
        syscalls.close(pidfd)  # the pid may be another process's by now
        return -1

    async def _status(self) -> tuple[int, int]:
        """How the main process ended: by the kernel's word, or else by systemd's, which may be a moment late."""
        if self.pidfd >= 0 and (known := ended.status(self.pid, self.pidfd)) is not None:
            return known
        async for _ in waiting.patience():
            with suppress(CallError):  # it is busy
                state, code, status = await self._units.end_of_main(self._unit)
                if code:
                    return code, status
                if state in _ENDED:
                    break
        log.warning("How the process of %s ended is not known", self._unit)
        return _UNKNOWN

    async def _emptied(self) -> None:
        """Wait until nothing is left in the unit: the main process may have left others behind."""
        async for _ in waiting.patience():
            with suppress(CallError, OSError):
                state = await self._units.sub_state(self._unit)
                if state in _ENDED:
                    return
                if state == "running":
                    await cgroup.emptied(await self._units.control_group(self._unit))

    async def _remove(self) -> None:
        """Take the unit away, and then what is kept of it."""
        await self._units.stop(self._unit)
        await self._units.reset(self._unit)
        await self._units.release(self._unit)
        self._records.remove(self._number)

    async def _unless_over(self, order: Coroutine[Any, Any, None]) -> None:
        """Give an order until it is taken, or there is no need any more."""
        task = asyncio.ensure_future(order)
        try:
            await asyncio.wait((task, self.over), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                with suppress(Disconnected):
                    task.result()
        finally:
            task.cancel()

    def _settle(self, status: tuple[int, int]) -> None:
        if not self.exited.done():
            self.exited.set_result(status)

    def _close_if_unused(self) -> None:
        if self._closed and (self.exited.done() or self._task.done()) and self.pidfd >= 0:
            syscalls.close(self.pidfd)
            self.pidfd = -1
