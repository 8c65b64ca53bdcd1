# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process that was entered, and what starts it, can do, whether with systemd or without."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from mountnsd.named import Namespace
from mountnsd.program import Request
from mountnsd.records import Origin


class Running(Protocol):
    """A process that was entered.

    Attributes: pid: 0 where there never was one; pidfd: ours until `close`; exited: (si_code, si_status) as in
        waitid(2); over: done when nothing is left of it, with systemd also of what it started.  A task that may be
        cancelled awaits them by `asyncio.wait` or `asyncio.shield`.
    """

    pid: int
    pidfd: int

    @property
    def exited(self) -> asyncio.Future[tuple[int, int]]: ...

    @property
    def over(self) -> asyncio.Future[None]: ...

    async def kill(self) -> None:
        """Send it SIGKILL, and where it has a unit all that is in there."""

    def told(self) -> None:
        """The caller has been told how it ended."""

    def close(self) -> None:
        """Give up the pidfd.  A process that still runs goes on."""


class Starter(Protocol):
    """Starts processes inside namespaces: launcher.Launcher, transient.TransientLauncher."""

    def expect(self) -> None:
        """Somebody who may enter is about to: what takes time in the kernel can begin."""

    async def launch(self, request: Request, origin: Origin) -> Running:
        """Start what the request says, and wait until it runs.  Cancelled, it kills it.  Raises EnterFailed."""

    def recover(self) -> Sequence[tuple[Origin, Running]]:
        """The processes that an earlier daemon started and that are not over."""

    async def end_all(self, namespace: Namespace) -> None:
        """End what was entered into a namespace, and whatever that started, wherever it went."""

    async def namespace_gone(self, namespace: str) -> None:
        """A namespace has been destroyed or lost."""

    async def close(self) -> None:
        """Look after nothing any more; the processes go on."""
