# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose work goes on next: that of the user who has had the least.

All calls are answered in one thread.  What runs in it between two waits is a
step, and after each step the next one is chosen by user, not by who came
first: so one who sends as fast as he can waits for himself, and another waits
for one step of his at most, and half a millisecond.  When nobody else is there,
nobody waits.

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
# Seconds that steps may take together before the loop has to look.  Most steps take less.
_SLACK = 0.0005


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
        self._spent = 0.0  # seconds that steps have taken since the loop was last made to look
        self._looking = False
        self._left = 0  # turns of the loop until it has looked
        self._line = 0  # steps that wait
        self._called = False  # one of them has its turn, and has not taken it yet

    @property
    def waiting(self) -> bool:
        """Whether any step waits for its turn."""
        return bool(self._line or self._called)

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
                    if self._line or self._called or self._spent >= _SLACK:
                        yield from self._turn(user)
                except BaseException as error:  # noqa: BLE001 - cancelled: the coroutine is to see it
                    thrown = error
            self._take(user)
            start = time.perf_counter()
            try:
                waits_for = work.send(None) if thrown is None else work.throw(thrown)
            except StopIteration as end:
                value: T = end.value
                return value
            finally:
                self._took(user, time.perf_counter() - start)
            try:
                yield waits_for
                thrown = None
            except BaseException as error:  # noqa: BLE001 - the same
                thrown = error

    def _take(self, user: Hashable) -> None:
        share = self._share(user)
        share.used = self._now = max(self._now, share.used)

    def _took(self, user: Hashable, seconds: float) -> None:
        self._share(user).used += seconds
        self._spent += seconds
        if self._spent < _SLACK:
            self._next()
            return
        self._left = _LOOKS  # from now on
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Let the loop look at what came during a step, so that those whom it is for can stand in line, too."""
        if self._left:
            self._left -= 1
            self._loop.call_soon(self._look)
            return
        self._looking = False
        self._spent = 0.0
        self._next()
        if not self._line and not self._called:
            self._shares = {user: share for user, share in self._shares.items() if share.used > self._now}

    def _turn(self, user: Hashable) -> Generator[Any, None, None]:
        waiting = self._loop.create_future()
        self._share(user).waiting.append(waiting)
        self._line += 1
        try:
            yield from waiting
            self._called = False
        except BaseException:
            if waiting.done() and not waiting.cancelled():  # its turn has come, and it does not take it
                self._called = False
                self._loop.call_soon(self._next)
            raise

    def _share(self, user: Hashable) -> _Share:
        share = self._shares.get(user)
        if share is None:
            share = self._shares[user] = _Share(self._now)
        return share

    def _next(self) -> None:
        """Let the next step run: of the users of whom one waits, that of him who had the least."""
        while self._line and not self._called:
            share = min(
                (share for share in self._shares.values() if share.waiting), key=lambda share: share.used
            )
            step = share.waiting.popleft()
            self._line -= 1
            if not step.done():  # cancelled otherwise
                step.set_result(None)
                self._called = True
