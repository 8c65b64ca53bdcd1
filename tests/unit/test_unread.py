# SPDX-License-Identifier: LGPL-2.1-or-later
"""What counts as unread, for how long, and who waits."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mountnsd import unread
from mountnsd.unread import Unread

USER, OTHER = 1000, 1001
Play = Callable[[Callable[["World"], Awaitable[None]]], None]


class World:
    """Three things that a user may have unread, and a clock that is set by hand."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.unread = Unread(3)
        self.unread._loop = self  # type: ignore[assignment]
        self.now = loop.time()

    def time(self) -> float:
        """The clock."""
        return self.now

    async def waits(self, uid: int = USER) -> bool:
        """Whether the user has to wait."""
        try:
            await asyncio.wait_for(self.unread.room(uid), 0.01)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def play() -> Play:
    """Play a story in a world of its own."""

    def run(story: Callable[[World], Awaitable[None]]) -> None:
        async def told() -> None:
            await story(World())

        asyncio.run(told())

    return run


def test_who_has_enough_waits_and_nobody_else(play: Play) -> None:
    async def story(world: World) -> None:
        for number in range(3):
            assert not await world.waits()
            world.unread.add(USER, f":1.{number}", 1)
        assert await world.waits()
        assert not await world.waits(OTHER)

    play(story)


def test_root_is_not_bounded(play: Play) -> None:
    async def story(world: World) -> None:
        world.unread.add(0, ":1.1", 100)
        assert not await world.waits(0)

    play(story)


def test_it_counts_for_a_while(play: Play) -> None:
    async def story(world: World) -> None:
        world.unread.add(USER, ":1.1", 3)
        world.now += unread.SECONDS - 1
        assert await world.waits()
        world.now += unread.SECONDS + 1
        assert not await world.waits()
        assert world.unread._accounts == {}

    play(story)


@pytest.mark.parametrize("earlier", [1.0, 10.5, 100.0, 1000.25])
def test_whatever_was_before(play: Play, earlier: float) -> None:
    async def story(world: World) -> None:
        world.unread.add(USER, ":1.1", 1)
        world.now += unread.SECONDS * earlier
        world.unread.add(USER, ":1.1", 3)
        world.now += unread.SECONDS - 0.01
        assert await world.waits()

    play(story)


def test_who_has_left_the_bus_has_nothing_unread(play: Play) -> None:
    async def story(world: World) -> None:
        world.unread.add(USER, ":1.1", 2)
        world.unread.add(USER, ":1.2", 1)
        assert await world.waits()
        waiting = asyncio.ensure_future(world.unread.room(USER))
        world.unread.left(":1.3")
        await asyncio.sleep(0.01)
        assert not waiting.done()
        world.unread.left(":1.1")
        await asyncio.wait_for(waiting, 5)

    play(story)


def test_what_is_coming_counts_until_it_has_come(play: Play) -> None:
    async def story(world: World) -> None:
        for _ in range(3):
            world.unread.expect(USER)
        world.now += 10 * unread.SECONDS
        assert await world.waits()
        world.unread.expect_no_more(USER)
        assert not await world.waits()
        world.unread.add(USER, ":1.1")
        assert await world.waits()

    play(story)


def test_where_one_can_look_time_tells_nothing(play: Play) -> None:
    lying: int | None = 3

    async def look() -> int | None:
        return lying

    async def story(world: World) -> None:
        nonlocal lying
        world.unread._look = look
        world.unread.add(USER, ":1.1", 3)
        world.now += 10 * unread.SECONDS
        assert await world.waits()
        lying = 2
        assert not await world.waits()
        world.unread.add(USER, ":1.1", 2)
        world.unread.expect(USER)
        waiting = [asyncio.ensure_future(world.unread.room(USER)) for _ in range(2)]
        world.unread.expect(USER)
        world.unread.expect(USER)
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)  # nothing was sent of what is coming
        lying = None  # one cannot look any more
        world.unread.expect_no_more(USER)
        await asyncio.wait_for(asyncio.gather(*waiting), 5)

    play(story)
