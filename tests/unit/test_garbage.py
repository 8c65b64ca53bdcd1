# SPDX-License-Identifier: LGPL-2.1-or-later
"""Garbage is collected with the calls that come, and not while nobody calls."""

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest
from support.daemon import REPOSITORY

from mountnsd import garbage
from mountnsd.garbage import Collector


class Cycle:
    """Something that only the collector ends."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _taken_over() -> Iterator[None]:
    gc.collect()
    garbage.take_over()
    yield
    gc.enable()
    gc.unfreeze()


def test_much_of_it_goes_with_the_next_call() -> None:
    async def story() -> None:
        collector = Collector()
        left = weakref.ref(Cycle())
        collector.collect()
        assert left() is not None
        kept = [Cycle() for _ in range(gc.get_threshold()[0])]
        collector.collect()
        assert left() is None
        collector.close()
        del kept

    asyncio.run(story())


def test_all_of_it_goes_in_the_end_and_then_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_LATER", 0.001)

    async def story() -> None:
        collector = Collector()
        left = weakref.ref(Cycle())
        collector.collect()
        while left() is not None:
            await asyncio.sleep(0.001)
        assert collector._timer is None
        assert gc.get_freeze_count() > 0
        frozen = gc.get_freeze_count()
        later = weakref.ref(Cycle())
        collector.collect_later()
        while later() is not None:
            await asyncio.sleep(0.001)
        assert gc.get_freeze_count() <= frozen, "what came later was frozen too"

    asyncio.run(asyncio.wait_for(story(), 10))


def test_threads_take_memory_from_one_place() -> None:
    """What a helper thread freed would stay in an arena of its own."""
    code = (
        "import ctypes\n"
        "from mountnsd import garbage, helper\n"
        "garbage.take_over()\n"
        "helper.run_blocking(lambda: len(bytearray(100_000)))\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, 'stdout'))\n"
        "libc.fflush(None)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True)
    assert said.stdout.count(b"<heap nr=") == 1
