# SPDX-License-Identifier: LGPL-2.1-or-later
"""Head starts: when they are given, and that none is in the way of anything."""

import _thread
import asyncio
import os
import threading
from pathlib import Path

import pytest

from mountnsd import cgroup, headstart
from mountnsd.headstart import HeadStart

OLD, NEW = 252, 257


class Lock:
    """What is waited for, by those who wait until `free`."""

    def __init__(self) -> None:
        self.taken = 0
        self.free = threading.Event()

    def __call__(self, _fd: int) -> None:
        self.taken += 1
        self.free.wait(10)


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Lock:
    made = Lock()
    monkeypatch.setattr(headstart, "_have_the_lock", made)
    monkeypatch.setattr(HeadStart, "_find", lambda _self: None)
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


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("step", ["_find", "_have_the_lock", "start_new_thread"])
def test_it_is_no_loss(step: str, lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        starts = HeadStart()
        starts.coming()
        await _a_while()
        lock.free.set()
        await starts.close()

    place = {"_find": HeadStart, "_have_the_lock": headstart, "start_new_thread": _thread}[step]
    monkeypatch.setattr(place, step, _refuse)
    asyncio.run(work())
    assert not lock.taken


class Group:
    """A control group by a file that says who is in it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = directory / "cgroup.procs"
        monkeypatch.setattr(cgroup, "own", lambda: "/")
        monkeypatch.setattr(cgroup, "path", lambda _group: directory)

    def has(self, *pids: int) -> None:
        self._file.write_text("".join(f"{pid}\n" for pid in pids))

    @property
    def untouched(self) -> bool:
        return not self._file.read_text().startswith("0")


def test_only_our_own_group_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to any other one would put us into it."""
    group = Group(tmp_path, monkeypatch)
    us = os.getpid()

    async def work() -> None:
        starts = HeadStart()
        group.has(1, us + 1)
        starts.coming()
        await _a_while()
        assert group.untouched
        group.has(1, us)
        starts.coming()
        await _a_while()
        assert not group.untouched
        group.has(1)  # we were moved
        starts.coming()
        await _a_while()
        assert group.untouched
        await starts.close()

    asyncio.run(work())
    assert not [fd for fd in os.listdir("/proc/self/fd") if _leads_to(fd, tmp_path)]


def _leads_to(fd: str, directory: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(directory))
    except FileNotFoundError:
        return False


def test_the_group_that_we_are_in() -> None:
    with open("/proc/self/cgroup") as file:  # noqa: PTH123
        lines = file.read().splitlines()
    own = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if own and ".." not in own[0].split("/"):
        assert cgroup.own() == own[0]
    else:
        with pytest.raises(FileNotFoundError):
            cgroup.own()
