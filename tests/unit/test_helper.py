# SPDX-License-Identifier: LGPL-2.1-or-later
"""Helper threads: what they make is never lost, what they hold is closed, and eight at once is enough."""

import _thread
import asyncio
import threading
from collections.abc import Callable

import pytest

from mountnsd import helper
from mountnsd.errors import Failed

PATIENCE = 5.0


class Work:
    """Work that waits until it is let go, and says how many of it run at once."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        assert self.let_go.wait(PATIENCE)
        with self._lock:
            self._running -= 1
        return threading.get_native_id()


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.001)


def refuse() -> int:
    """Work that fails."""
    raise OSError(5, "no")


class TestBlocking:
    """A thread that one waits for."""

    def test_result_of_another_thread(self) -> None:
        assert helper.run_blocking(threading.get_native_id) != threading.get_native_id()

    def test_what_it_raises_is_raised(self) -> None:
        with pytest.raises(OSError, match="no"):
            helper.run_blocking(refuse)


class TestRun:
    """A thread that a task waits for."""

    def test_result_and_the_last_word(self) -> None:
        last: list[str] = []
        found = asyncio.run(helper.run(threading.get_native_id, always=lambda: last.append("closed")))
        assert found != threading.get_native_id()
        assert last == ["closed"]

    def test_what_it_raises_is_raised(self) -> None:
        last: list[str] = []
        with pytest.raises(OSError, match="no"):
            asyncio.run(helper.run(refuse, always=lambda: last.append("closed")))
        assert last == ["closed"]

    def test_each_has_a_thread_of_its_own_and_eight_run_at_once(self) -> None:
        async def story() -> tuple[set[int], int]:
            work = Work()
            tasks = [asyncio.ensure_future(helper.run(work)) for _ in range(20)]
            await until(lambda: work.most == 8)
            work.let_go.set()
            return set(await asyncio.gather(*tasks)), work.most

        _, most = asyncio.run(story())
        assert most == 8

    def test_a_slow_lane_holds_up_no_other(self) -> None:
        async def story() -> None:
            work = Work()
            slow = [asyncio.ensure_future(helper.run(work, lane="slow")) for _ in range(9)]
            await until(lambda: work.most == 8)
            assert await asyncio.wait_for(helper.run(lambda: 1), PATIENCE) == 1
            work.let_go.set()
            await asyncio.gather(*slow)

        asyncio.run(story())

    def test_what_nobody_waits_for_any_more_is_discarded(self) -> None:
        async def story() -> None:
            work = Work()
            discarded: list[int] = []
            last: list[str] = []
            task = asyncio.ensure_future(
                helper.run(work, discard=discarded.append, always=lambda: last.append("closed"))
            )
            await until(lambda: work.most == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (discarded, last) == ([], [])  # it still runs, and needs what it works on
            work.let_go.set()
            await until(lambda: bool(discarded))
            assert last == ["closed"]

        asyncio.run(story())

    def test_cancelled_before_its_turn_it_never_runs(self) -> None:
        async def story() -> None:
            work = Work()
            last: list[str] = []
            before = [asyncio.ensure_future(helper.run(work)) for _ in range(8)]
            await until(lambda: work.most == 8)
            task = asyncio.ensure_future(helper.run(refuse, always=lambda: last.append("closed")))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert last == ["closed"]
            work.let_go.set()
            await asyncio.gather(*before)

        asyncio.run(story())

    def test_a_system_without_threads_is_an_answer_and_takes_no_place(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def story() -> None:
            last: list[str] = []

            def start(*_: object) -> int:
                raise RuntimeError("can't start new thread")

            with monkeypatch.context() as patch:
                patch.setattr(_thread, "start_new_thread", start)
                for _ in range(10):
                    with pytest.raises(Failed, match="try again later"):
                        await helper.run(lambda: 1, always=lambda: last.append("closed"))
            assert last == ["closed"] * 10
            assert await asyncio.wait_for(helper.run(lambda: 1), PATIENCE) == 1

        asyncio.run(story())

    @pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
    def test_a_loop_that_ends_first_is_no_fault(self) -> None:
        work = Work()
        before = _thread._count()

        async def story() -> None:
            task = asyncio.ensure_future(helper.run(work))
            await until(lambda: work.most == 1)
            task.cancel()

        asyncio.run(story())
        work.let_go.set()
        asyncio.run(until(lambda: _thread._count() <= before))  # others may have been just ending
