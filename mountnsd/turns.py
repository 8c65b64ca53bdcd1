# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose work goes on next: that of the user who has had the least.

All calls are answered in one thread.  What runs in it between two waits is a
step, and after each step the next one is chosen by user, not by who came
first: so one who sends as fast as he can waits for himself, and another waits
for one step of his at most.  When nobody else is there, nobody waits.

Source: Goyal, Vin, Cheng, "Start-time Fair Queueing".
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Generator, Hashable
from dataclasses import dataclass, field
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Turns of the loop between a step and the next: one reads what came, one wakes whom it is for.
_LOOKS = 2


@dataclass(slots=True)
class _Share:
    """What one user had, in seconds, and his steps that wait."""

    used: float
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._shares: dict[Hashable, _Share] = {}
        self._now = 0.0  # what the one had whose turn was last: who comes anew begins there
        self._taken = False  # a step has run, and the loop has not turned since

    async def run(self, user: Hashable, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine step by step, each when it is the user's turn.

        Arguments: user: whose it is.  Returns and raises: what the coroutine does.
        """
        return await self._steps(user, work)

    @coroutine
    def _steps(self, user: Hashable, work: Coroutine[Any, Any, T]) -> Generator[Any, None, T]:
        thrown: BaseException | None = None
        while True:
            if thrown is None:
                try:
                    if self._taken:
                        yield from self._turn(user)
                    self._take(user)
                except BaseException as error:  # noqa: BLE001 - cancelled: the coroutine is to see it
                    thrown = error
            start = time.perf_counter()
            try:
                waits_for = work.send(None) if thrown is None else work.throw(thrown)
            except StopIteration as end:
                value: T = end.value
                return value
            finally:
                self._share(user).used += time.perf_counter() - start
            try:
                yield waits_for
                thrown = None
            except BaseException as error:  # noqa: BLE001 - the same
                thrown = error

    def _take(self, user: Hashable) -> None:
        share = self._share(user)
        share.used = self._now = max(self._now, share.used)
        self._taken = True
        self._loop.call_soon(self._look, _LOOKS)

    def _look(self, left: int) -> None:
        """Let the loop look at what came during a step, so that those whom it is for can stand in line, too."""
        if left:
            self._loop.call_soon(self._look, left - 1)
        else:
            self._next()

    def _turn(self, user: Hashable) -> Generator[Any, None, None]:
        waiting = self._loop.create_future()
        self._share(user).waiting.append(waiting)
        try:
            yield from waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled():  # its turn has come, and it does not take it
                self._loop.call_soon(self._next)
            raise

    def _share(self, user: Hashable) -> _Share:
        share = self._shares.get(user)
        if share is None:
            share = self._shares[user] = _Share(self._now)
        return share

    def _next(self) -> None:
        """Let the next step run: of the users of whom one waits, that of him who had the least."""
        while True:
            waiting = [share for share in self._shares.values() if share.waiting]
            if not waiting:
                self._taken = False
                self._shares = {user: share for user, share in self._shares.items() if share.used > self._now}
                return
            share = min(waiting, key=lambda share: share.used)
            step = share.waiting.popleft()
            if not step.done():  # cancelled otherwise
                step.set_result(None)
                return
