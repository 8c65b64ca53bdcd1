# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turns: who has had the least goes on, nobody waits for nobody, and a coroutine notices nothing of it."""

import asyncio
import time
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from mountnsd import turns as turns_of_work
from mountnsd.turns import Turns


async def busy(log: list[str], name: str, steps: int, seconds: float) -> None:
    """Work in steps, each of which holds the thread."""
    for _ in range(steps):
        log.append(name)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        await asyncio.sleep(0)


def play(story: Coroutine[Any, Any, None]) -> None:
    """Run a story."""
    asyncio.run(asyncio.wait_for(story, 30))


def test_one_who_has_much_to_do_waits_for_himself() -> None:
    """A hundred calls of one user came first, and another's call is done when a few of them are."""
    log: list[str] = []

    async def story() -> None:
        turns = Turns()
        many = [asyncio.ensure_future(turns.run("many", busy(log, "many", 3, 0.002))) for _ in range(100)]
        await asyncio.sleep(0)
        await turns.run("one", busy(log, "one", 3, 0.0005))
        before = log.count("many")
        await asyncio.gather(*many)
        assert before < 10
        assert log.count("many") == 300

    play(story())


async def beside_the_loop(log: list[str], steps: int, seconds: float, patch: pytest.MonkeyPatch) -> None:
    """Steps of as many users, each of them once, by a clock that they set; the log has the turns of the loop, too."""
    turns = Turns()
    now = 0.0
    ended = False

    def look() -> None:
        log.append("loop")
        if not ended:
            asyncio.get_running_loop().call_soon(look)

    async def step() -> None:
        nonlocal now
        now += seconds
        log.append("step")

    look()
    with patch.context() as clock:
        clock.setattr(turns_of_work, "time", SimpleNamespace(perf_counter=lambda: now))
        await asyncio.gather(*(turns.run(user, step()) for user in range(steps)))
    ended = True


def test_one_step_a_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else the loop has to do, such as to read, comes between any two steps that take long."""
    log: list[str] = []
    play(beside_the_loop(log, 20, turns_of_work._SLACK, monkeypatch))
    assert "step step" not in " ".join(log)
    assert "step loop step" not in " ".join(log)


def test_short_steps_follow_each_other_until_the_loop_has_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes as long as many a step."""
    log: list[str] = []
    play(beside_the_loop(log, 40, turns_of_work._SLACK * 0.26, monkeypatch))
    assert log.count("step") == 40
    assert " ".join(log).count("step step step step") == 1
    assert "step step step step step" not in " ".join(log)
    assert log.count("loop") < 40 * 2


def test_a_short_step_alone_has_the_loop_look_at_nothing() -> None:
    async def story() -> None:
        turns = Turns()
        turns._loop = SimpleNamespace()  # type: ignore[assignment]
        for _ in range(3):
            assert await turns.run("one", asyncio.sleep(0, 7)) == 7
        assert not turns.waiting

    play(story())


def test_one_that_comes_while_others_wait_stands_in_line() -> None:
    """However short his steps are."""
    log: list[str] = []

    async def story() -> None:
        turns = Turns()
        many = [asyncio.ensure_future(turns.run("many", busy(log, "many", 1, 0.002))) for _ in range(3)]
        await asyncio.sleep(0)
        assert log == ["many"]
        await turns.run("many", busy(log, "last", 1, 0))
        assert log == ["many"] * 3 + ["last"]
        await asyncio.gather(*many)

    play(story())


def test_shares_are_equal_in_time_and_not_in_steps() -> None:
    """Of two who always have calls that wait, the one with the long steps gets fewer of them."""
    log: list[str] = []

    async def story() -> None:
        turns = Turns()
        short = [asyncio.ensure_future(turns.run("short", busy(log, "short", 10, 0.001))) for _ in range(4)]
        long = [asyncio.ensure_future(turns.run("long", busy(log, "long", 10, 0.005))) for _ in range(4)]
        await asyncio.gather(*short)
        assert log.count("long") < 25
        await asyncio.gather(*long)

    play(story())


def test_what_was_had_alone_is_no_debt() -> None:
    """Who was alone for long and then is no more is not made to wait for that."""
    log: list[str] = []

    async def story() -> None:
        turns = Turns()
        await turns.run("long", busy(log, "long", 50, 0.004))
        tasks = [
            asyncio.ensure_future(turns.run(user, busy(log, user, 20, 0.002))) for user in ("new", "long")
        ]
        await asyncio.gather(*tasks)
        assert log[50:].index("long") < 5

    play(story())


def test_values_and_errors_pass_through() -> None:
    async def story() -> None:
        turns = Turns()

        async def value() -> int:
            await asyncio.sleep(0.001)
            return 7

        async def fails() -> None:
            await asyncio.sleep(0)
            raise KeyError("x")

        async def in_time() -> str:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(5)
            except TimeoutError:
                return "late"
            return "never"

        assert await turns.run(1, value()) == 7
        with pytest.raises(KeyError):
            await turns.run(1, fails())
        assert await turns.run(1, in_time()) == "late"

    play(story())


def test_one_that_is_cancelled_while_it_waits_gives_its_turn_away() -> None:
    log: list[str] = []

    async def story() -> None:
        turns = Turns()

        async def tidy() -> None:
            try:
                await busy(log, "tidy", 100, 0)
            finally:
                log.append("end")

        tasks = [asyncio.ensure_future(turns.run(user, tidy())) for user in range(10)]
        await asyncio.sleep(0.001)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False] * 5
        assert log.count("end") == 10
        await turns.run("later", busy(log, "later", 1, 0))
        assert log[-1] == "later"

    play(story())
