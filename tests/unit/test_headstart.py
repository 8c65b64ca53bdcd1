# SPDX-License-Identifier: LGPL-2.1-or-later
"""Head starts: when they are given, and that none is in the way of anything."""

import asyncio
import logging
import threading

import pytest

from mountnsd import cgroup, headstart
from mountnsd.headstart import HeadStart

OLD, NEW = 252, 257


class Lock:
    """What is waited for, by those who wait until `free`."""

    def __init__(self) -> None:
        self.taken = 0
        self.free = threading.Event()

    def __call__(self) -> None:
        self.taken += 1
        self.free.wait(10)


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Lock:
    made = Lock()
    monkeypatch.setattr(headstart, "_have_the_lock", made)
    return made


async def _a_while() -> None:
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("version", [0, OLD])
def test_early(lock: Lock, version: int) -> None:
    async def work() -> None:
        starts = HeadStart()
        starts.suit(version)
        lock.free.set()
        starts.coming()
        await _a_while()
        assert lock.taken == 1
        starts.ordered()
        await _a_while()
        assert lock.taken == 1
        await starts.close()

    asyncio.run(work())


def test_late(lock: Lock) -> None:
    async def work() -> None:
        starts = HeadStart()
        starts.suit(NEW)
        lock.free.set()
        starts.coming()
        await _a_while()
        before = lock.taken
        starts.ordered()
        starts.ordered()
        await _a_while()
        assert (before, lock.taken) == (0, 1)
        await starts.close()

    asyncio.run(work())


def test_one_is_enough(lock: Lock) -> None:
    async def work() -> None:
        starts = HeadStart()
        for _ in range(20):
            starts.coming()
        await _a_while()
        assert lock.taken == 1
        lock.free.set()
        await _a_while()
        starts.coming()
        await _a_while()
        assert lock.taken == 2
        await starts.close()

    asyncio.run(work())


def test_none_is_given_after_the_end(lock: Lock) -> None:
    async def work() -> None:
        starts = HeadStart()
        starts.suit(NEW)
        starts.ordered()
        await starts.close()
        await _a_while()
        assert not lock.taken

    asyncio.run(work())


def test_it_is_no_loss(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied")

    async def work() -> None:
        starts = HeadStart()
        starts.coming()
        await _a_while()
        await starts.close()

    monkeypatch.setattr(headstart, "_have_the_lock", refuse)
    with caplog.at_level(logging.INFO):
        asyncio.run(work())
    assert not caplog.records


def test_the_group_that_we_are_in() -> None:
    with open("/proc/self/cgroup") as file:  # noqa: PTH123
        lines = file.read().splitlines()
    own = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if own and ".." not in own[0].split("/"):
        assert cgroup.own() == own[0]
    else:
        with pytest.raises(FileNotFoundError):
            cgroup.own()
