# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that is the main process of a transient unit, until nothing is left of that.

Out of scope: how it was started (transient.py).
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable

from mountnsd import units, waiting
from mountnsd.bus import CallError, Disconnected
from mountnsd.records import Origin
from mountnsd.units import Units

log = logging.getLogger(__name__)

_UNKNOWN = (os.CLD_EXITED, 255)  # where nobody can know how a process ended


class UnitProcess:
    """A process that was entered, until its unit has been seen to end.

    Attributes: pid; pidfd: ours until `close`; exited: as of launcher.Process; over: done when the unit is gone.
    """

    def __init__(
        self,
        systemd: Units,
        number: str,
        origin: Origin,
        pid: int,
        pidfd: int,
        see_off: Callable[["UnitProcess"], Awaitable[None]],
    ) -> None:
        """Watch over a unit in the running event loop.

        Arguments: number, origin: as of its record; pidfd: ours, -1 where the process has ended; see_off: called
            when it has ended, and waited for, takes the unit away.
        """
        self.pid = pid
        self.pidfd = pidfd
        self.origin = origin
        self.number = number
        self.unit = units.service_in(origin.namespace, number)
        self._units = systemd
        self._see_off = see_off
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[tuple[int, int]] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self._running = pidfd >= 0
        self._closed = False
        self._task = asyncio.ensure_future(self._watch())

    async def kill(self) -> None:
        """Send SIGKILL to all that is in the unit."""
        await units.tolerant(self._units.kill(self.unit, signal.SIGKILL))

    async def stop(self) -> None:
        """Have the unit stopped: SIGTERM and SIGHUP, then SIGKILL, to all that is in it."""
        await units.tolerant(self._units.stop(self.unit))

    def close(self) -> None:
        """Give up the pidfd.  The unit is watched until nothing is left in it."""
        self._closed = True
        self._close_if_unused()

    async def end(self) -> None:
        """Kill it and give up the pidfd; wait for its end a second, and leave what takes longer to the event loop."""
        await self.kill()
        try:
            await asyncio.wait((self.over,), timeout=1.0)
        finally:
            self.close()

    async def forsake(self) -> None:
        """Watch no longer: the next daemon will."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _watch(self) -> None:
        try:
            if self._running:
                await waiting.readable(self.pidfd)
            status = await self._status()
            if not self.exited.done():
                self.exited.set_result(status)
            self._close_if_unused()
            await self._see_off(self)
            self.over.set_result(None)
        except Disconnected:
            pass  # the daemon ends; the next one goes on from here
        except Exception:
            log.exception("The unit %s cannot be watched", self.unit)

    async def _status(self) -> tuple[int, int]:
        """How the main process ended, by systemd's word, which may be a moment late."""
        async for _ in waiting.patience(10.0):
            with contextlib.suppress(CallError):  # it is busy
                main = await self._units.main(self.unit)
                if main is None:
                    break
                if main.code:
                    return main.code, main.status
        log.warning("How the process of %s ended is not known", self.unit)
        return _UNKNOWN

    def _close_if_unused(self) -> None:
        if self._closed and self._task.done() | self.exited.done() and self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
