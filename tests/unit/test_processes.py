# SPDX-License-Identifier: LGPL-2.1-or-later
"""A look at all processes of the host takes its time, and holds nobody else up; and where the kernel does not say."""

import asyncio
import errno
import os
import signal
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from mountnsd import processes
from mountnsd.interface import MANAGER, NAMESPACE
from mountnsd.methods import Methods
from mountnsd.plan import Plan, Request

FOUND: Any = SimpleNamespace(name="a", inode=7, owner=0)
REGISTRY: Any = SimpleNamespace(all=lambda: [FOUND], processes=lambda found: processes.inside(found.inode))


class Slow:
    """A look that ends when it is told to: by an event loop that turns meanwhile, or not at all."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.looks = 0

    def __call__(self, *_arguments: Any, **_options: Any) -> Any:
        self.looks += 1
        self.began.set()
        assert self.may_end.wait(10), "nobody else could do anything during a look"
        return self.result

    async def released(self) -> None:
        """Wait for the look's beginning, and let it end."""
        while not self.began.is_set():
            await asyncio.sleep(0.001)
        self.may_end.set()


async def _answered(interface: str, member: str, slow: Slow) -> list[Any]:
    entry = Methods(REGISTRY).entries()[interface, member]
    call: Any = SimpleNamespace(body=[])
    plan = entry.prepare(Request(call, None, FOUND))  # type: ignore[arg-type]
    assert isinstance(plan, Plan)
    answer, _ = await asyncio.gather(plan.run(), slow.released())
    assert isinstance(answer.body, list)
    return answer.body


def test_list(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(Counter({7: 2}))
    monkeypatch.setattr(processes, "count", slow)
    (rows,) = asyncio.run(_answered(MANAGER, "List", slow))
    assert [row[-1] for row in rows] == [2]


def test_get_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow([processes.Process(12, 1000, "sh")])
    monkeypatch.setattr(processes, "inside", slow)
    assert asyncio.run(_answered(NAMESPACE, "GetProcesses", slow)) == [[[12, 1000, "sh"]]]


def test_ending_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow([])
    monkeypatch.setattr(processes, "inside", slow)

    async def story() -> list[int]:
        ended, _ = await asyncio.gather(processes.end(7), slow.released())
        return ended

    assert asyncio.run(story()) == []
    assert slow.looks == 1


def _failing(code: int) -> object:
    def fail(*_: object, **__: object) -> str:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EMFILE, errno.EIO])
def test_nobody_is_outside_because_he_could_not_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "readlink", _failing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        processes.inside(1)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH, errno.EACCES])
def test_who_is_gone_or_out_of_reach_is_not_inside(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "readlink", _failing(code))
    assert processes.inside(1) == []


def test_who_is_inside_is_counted_though_nothing_can_be_learnt_of_him(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = processes.namespace_of(os.getpid())
    assert own is not None
    monkeypatch.setattr(os, "fstat", _failing(errno.ENOMEM))
    with pytest.raises(OSError, match="Cannot allocate"):
        processes.inside(own)


def test_a_signal_that_could_not_be_sent_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    own = processes.namespace_of(os.getpid())
    assert own is not None
    assert processes._signal(os.getpid(), own, signal.Signals(signal.SIGURG))
    monkeypatch.setattr(os, "pidfd_open", _failing(errno.EMFILE))
    assert not processes._signal(os.getpid(), own, signal.Signals(signal.SIGURG))
