# SPDX-License-Identifier: LGPL-2.1-or-later
"""How many questions are before polkit at a time; what it is asked, and what comes of its answers, needs a bus."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mountnsd import authority, log
from mountnsd.authority import Action, Authority
from mountnsd.bus import CallError
from mountnsd.callers import Caller
from mountnsd.errors import AccessDenied, InteractiveAuthorizationRequired, LimitsExceeded

YES: list[Any] = [[True, False, {}]]
CHALLENGE: list[Any] = [[False, True, {}]]


class FakeBus:
    """A bus with a polkit, which asks persons for ever; `answer` is what it says to anything else."""

    def __init__(self) -> None:
        self.answer = YES
        self.open = 0  # questions
        self.most = 0
        self.cancelled = 0

    async def call(self, *call: Any, **_more: Any) -> list[Any]:
        """Be asked."""
        *_, (_, _, _, flags, _) = call
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if flags:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0.001)
            return self.answer
        finally:
            self.open -= 1

    async def watch(self, _name: str) -> asyncio.Future[None]:
        """Nobody leaves."""
        return asyncio.get_running_loop().create_future()

    def unwatch(self, _name: str, future: asyncio.Future[None]) -> None:
        """Watch no longer."""
        future.cancel()

    def send_only(self, *_call: Any) -> None:
        """Take a question back."""
        self.cancelled += 1


def ask(may: Authority, uid: int, interactive: bool) -> asyncio.Task[bool]:
    """A user's question."""
    caller = Caller(f":1.{uid}", uid, 0, None)
    return asyncio.ensure_future(may.check(caller, Action.LIST, {}, interactive))


def play(story: Callable[[FakeBus, Authority], Coroutine[Any, Any, None]]) -> None:
    """Play a story, bounded in time."""

    async def told() -> None:
        bus = FakeBus()
        await asyncio.wait_for(story(bus, Authority(bus)), 10)  # type: ignore[arg-type]

    asyncio.run(told())


def test_of_one_user() -> None:
    async def story(bus: FakeBus, may: Authority) -> None:
        asked = [ask(may, 1000, True) for _ in range(30)]
        await asyncio.sleep(0.01)
        assert bus.open == authority.MAX_QUESTIONS_PER_USER
        await ask(may, 1001, False)
        for task in asked:
            task.cancel()

    play(story)


def test_to_persons_of_all_users() -> None:
    async def story(bus: FakeBus, may: Authority) -> None:
        asked = [ask(may, uid, True) for uid in range(1000, 1010) for _ in range(16)]
        while len(others := [task for task in asked if not task.done()]) > authority.MAX_QUESTIONS_TO_PERSONS:
            await asyncio.sleep(0.001)
        assert bus.open == len(others) == authority.MAX_QUESTIONS_TO_PERSONS
        await ask(may, 2000, True)  # the rules say yes to him
        bus.answer = CHALLENGE
        with pytest.raises(LimitsExceeded):
            await ask(may, 2000, True)
        with pytest.raises(InteractiveAuthorizationRequired):
            await ask(may, 2000, False)
        bus.answer = [[False, False, {}]]
        with pytest.raises(AccessDenied):
            await ask(may, 2000, True)
        others[0].cancel()
        await asyncio.wait(others[:1])
        assert bus.cancelled == 1
        again = ask(may, 2000, True)
        await asyncio.sleep(0.01)
        assert not again.done()
        for task in (*others, again):
            task.cancel()

    play(story)


def test_to_rules_of_all_users() -> None:
    async def story(bus: FakeBus, may: Authority) -> None:
        await asyncio.gather(*(ask(may, uid, False) for uid in range(1000, 1010) for _ in range(16)))
        assert bus.most == authority.MAX_QUESTIONS_TO_RULES

    play(story)


def test_all_together_are_fewer_than_a_bus_lets_wait() -> None:
    """dbus-daemon: 128 calls of one connection; systemd is asked for at most 32 things at a time."""
    most = authority.MAX_QUESTIONS_TO_PERSONS + authority.MAX_QUESTIONS_TO_RULES
    assert most + 32 <= 128


def test_without_polkit_the_log_is_not_flooded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log, "SELDOM", 0.05)

    async def story(bus: FakeBus, may: Authority) -> None:
        async def fail(*_call: Any, **_more: Any) -> list[Any]:
            raise CallError("org.freedesktop.DBus.Error.ServiceUnknown", "")

        bus.call = fail  # type: ignore[method-assign]
        for _ in range(500):
            with pytest.raises(AccessDenied):
                await ask(may, 1000, False)
        assert caplog.messages[0].startswith("polkit gave no answer, so uid 1000 may not: ")
        while 1 + sum(int(line.rpartition("(")[2].split()[0]) for line in caplog.messages[1:]) < 500:
            await asyncio.sleep(0.01)
        assert len(caplog.messages) < 50  # with time to spare, on a slow machine

    play(story)
