# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting for a descriptor, and for what one can only look at again and again."""

import asyncio
from collections.abc import AsyncIterator


async def readable(fd: int) -> None:
    """Wait until a descriptor can be read: of a pidfd, until the process has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def patience(longest: float = 0.5) -> AsyncIterator[None]:
    """Times to look again, ever further apart: at once, after a millisecond, and at last every `longest` seconds."""
    pause = 0.001
    while True:
        yield
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest)
