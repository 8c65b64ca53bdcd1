# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all callers of a run share: the daemon, what was acknowledged, and what went wrong."""

import asyncio
import os
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.daemon import Daemon

from .model import Model
from .tally import Tally


@dataclass(frozen=True, slots=True)
class Resident:
    """A process that was entered to stay.

    Attributes: pidfd: ours; inode: of the namespace it was in; life: the daemon that started it; leaves: it is to end
        when its caller leaves.
    """

    pid: int
    pidfd: int
    name: str
    inode: int
    life: int
    leaves: bool

    @property
    def ended(self) -> bool:
        """Whether it has ended, were it only to be waited for."""
        return bool(select.select([self.pidfd], [], [], 0)[0])


@dataclass
class World:
    """One run.

    Attributes: life: counts the daemons; up: whether this one should answer; steady_from: the second from which there
        are no more restarts; wrong: what broke a promise.
    """

    daemon: Daemon
    seed: int
    model: Model = field(default_factory=Model)
    tally: Tally = field(default_factory=Tally)
    life: int = 0
    up: bool = False
    ending: bool = False
    steady_from: float = 0.0
    wrong: list[str] = field(default_factory=list)
    residents: list[Resident] = field(default_factory=list)
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: int = 0

    @property
    def address(self) -> str:
        return self.daemon.bus.address

    def pin(self, name: str) -> Path:
        """Where the pin of a namespace is."""
        return self.daemon.pins / name

    def has_pin(self, name: str) -> bool:
        """Whether there is one."""
        return os.path.lexists(self.pin(name))

    def complain(self, what: str) -> None:
        """Something broke a promise."""
        self.wrong.append(f"{self.tally.second:.1f} s, life {self.life}: {what}")

    def open(self) -> None:
        """Let the callers work."""
        self._open.set()

    async def quiet(self, seconds: float = 90.0) -> None:
        """Keep callers from beginning anything, and wait until none is at it."""
        self._open.clear()
        try:
            async with asyncio.timeout(seconds):
                while self._busy:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            self.complain(f"{self._busy} calls were still not answered after {seconds} s")

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """One caller at one deed; waits until callers may work."""
        await self._open.wait()
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    def forget_ended(self) -> None:
        """Drop residents that have ended, and wait for those that became our children."""
        for resident in [one for one in self.residents if one.ended]:
            self.residents.remove(resident)
            os.close(resident.pidfd)
            try:
                os.waitpid(resident.pid, os.WNOHANG)
            except ChildProcessError:
                continue
