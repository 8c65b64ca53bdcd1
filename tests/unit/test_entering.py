# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of Enter comes before anything is asked or entered."""

import asyncio
import threading
from typing import Any, cast

import pytest

from mountnsd import entering
from mountnsd.callers import Caller
from mountnsd.entering import MAX_LOOKUPS_PER_USER, Entering


def test_a_user_database_that_is_slow_for_one_is_not_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are eight threads for looks into it; who names users that a server must be asked for has two of them."""
    answered = threading.Event()
    looking: list[int] = []

    def look(caller: Caller, user: str | None) -> Any:
        looking.append(caller.uid)
        if user == "slow":
            answered.wait(20)
        return user

    monkeypatch.setattr(entering, "_identify", look)

    async def story() -> None:
        enter = Entering(*cast(Any, (None,) * 5))
        slow = [
            asyncio.ensure_future(enter._identify(Caller(f":1.{number}", 1000, 0, None), "slow"))
            for number in range(64)
        ]
        try:
            while looking.count(1000) < MAX_LOOKUPS_PER_USER:
                await asyncio.sleep(0.001)
            for uid in (1001, 0):
                caller = Caller(f":2.{uid}", uid, 0, None)
                found: Any = await asyncio.wait_for(enter._identify(caller, "quick"), 10)
                assert found == "quick"
            while looking.count(1000) < MAX_LOOKUPS_PER_USER:  # a thread that was started may not have begun
                await asyncio.sleep(0.01)
            assert looking.count(1000) == MAX_LOOKUPS_PER_USER
            roots = [
                asyncio.ensure_future(enter._identify(Caller(":3.0", 0, 0, None), "slow")) for _ in range(4)
            ]
            while looking.count(0) < 5:
                await asyncio.sleep(0.01)
        finally:
            answered.set()
        await asyncio.gather(*slow, *roots)

    asyncio.run(asyncio.wait_for(story(), 60))
    assert looking.count(1000) == 64
