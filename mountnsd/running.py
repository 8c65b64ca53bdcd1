# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process that was entered, and what starts it, can do, whether with systemd or without."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from mountnsd.program import Request
from mountnsd.records import Origin


class Running(Protocol):
    """A process that was entered.

    Attributes: pid; pidfd: ours until `close`; exited: (si_code, si_status) as in waitid(2).  A task that may be
        cancelled awaits `asyncio.shield(process.exited)`.
    """

    pid: int
    pidfd: int
    exited: asyncio.Future[tuple[int, int]]

    async def kill(self) -> None:
        """Send it SIGKILL, and where it has a unit all that is in there."""

    def close(self) -> None:
        """Give up the pidfd.  A process that still runs goes on."""


class Starter(Protocol):
    """Starts processes inside namespaces: launcher.Launcher, transient.TransientLauncher."""

    async def launch(self, request: Request, origin: Origin) -> Running:
        """Start what the request says, and wait until it runs.  Raises EnterFailed."""

    async def recover(self) -> Sequence[tuple[Origin, Running]]:
        """The processes that an earlier daemon started and whose end nobody was told yet."""

    async def end_all(self, namespace: str) -> None:
        """End what was entered into a namespace, and whatever that started, wherever it went."""

    async def namespace_gone(self, namespace: str) -> None:
        """A namespace has been destroyed or lost."""

    async def close(self) -> None:
        """Look after nothing any more; the processes go on."""
