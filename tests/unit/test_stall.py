# SPDX-License-Identifier: LGPL-2.1-or-later
"""When a bus is taken to have stalled."""

import asyncio
from typing import Any

import pytest

from mountnsd import stall
from mountnsd.bus import CallError, Disconnected


class FakeBus:
    """A bus that answers or not, in order; then the connection ends."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def call(self, *_call: Any, timeout: float) -> list[Any]:  # noqa: ASYNC109
        """Answer as it was told to."""
        assert timeout > 0
        self.asked += 1
        if not self.answers:
            self.close("the story ends")
            raise Disconnected
        if not self.answers.pop(0):
            raise CallError("org.freedesktop.DBus.Error.NoReply", "")
        return []

    def close(self, reason: str) -> None:
        """End."""
        self.ended.set_result(reason)


def play(*answers: bool) -> tuple[str, int]:
    """Why the connection ended, and how often the bus was asked; somebody calls all the time."""

    async def story() -> tuple[str, int]:
        bus, called = FakeBus(*answers), asyncio.Event()

        async def call() -> None:
            while True:
                called.set()
                await asyncio.sleep(0)

        calling = asyncio.ensure_future(call())
        await asyncio.wait_for(stall.watch(bus, called), 5)  # type: ignore[arg-type]
        calling.cancel()
        return bus.ended.result(), bus.asked

    return asyncio.run(story())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "_PERIOD", 0.001)


def test_a_bus_that_answers() -> None:
    assert play(True, True, True) == ("the story ends", 4)


def test_once_is_not_enough() -> None:
    assert play(False, True, False, True) == ("the story ends", 5)


def test_twice_in_a_row() -> None:
    reason, asked = play(True, False, False, True)
    assert (reason.startswith("the bus has taken nothing from us for 20 s"), asked) == (True, 3)


def test_when_nobody_calls_nothing_is_asked() -> None:
    async def story() -> int:
        bus = FakeBus()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stall.watch(bus, asyncio.Event()), 0.1)  # type: ignore[arg-type]
        return bus.asked

    assert asyncio.run(story()) == 0
