# SPDX-License-Identifier: LGPL-2.1-or-later
"""The short way in: root's programs are spawned, and nothing of the daemon is copied for that.

test_launcher.py holds for both ways.  Here is when it is taken, and that it leaves no trace in the daemon, of which
it changes a thread.
"""

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.ctl import wait_until
from support.entering import (
    NOBODY,
    PLACE,
    ROOT,
    fields,
    hanging,
    in_a_child,
    refused,
    request,
    run,
    run_now,
    story,
    the_new_child,
    waited_for,
)

from mountnsd import becoming, launcher, room, syscalls
from mountnsd.descriptors import Descriptors
from mountnsd.errors import EnterFailed
from mountnsd.launcher import Launcher
from mountnsd.program import Passed

pytestmark = pytest.mark.usefixtures("tidy", "limits")


@pytest.fixture
def limits() -> Iterator[None]:
    """The soft limit of descriptors is that of the test runner again."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    room.take_all()
    yield
    room.take_all()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Those that the launcher made."""
    monkeypatch.setattr(os, "fork", os.fork)  # that it is put back
    return counting()


def counting() -> list[int]:
    """The pids of those that are forked from now on."""
    made: list[int] = []
    fork = os.fork

    def counted() -> int:
        pid = fork()
        made.append(pid)
        return pid

    os.fork = counted
    return made


# When it is taken -------------------------------------------------------------------------------------------


def test_for_a_program_of_roots_nothing_is_copied(inside: int, forks: list[int]) -> None:
    assert run_now(inside, "cat", f"{PLACE}/hi-there") == "hello from inside\n"
    assert forks == []


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": NOBODY},
        {"identity": replace(ROOT, gid=100)},
        {"cwd": "/"},
        {"argv": ()},  # a login shell, which begins at home
    ],
)
def test_for_others_there_is_the_long_way(inside: int, forks: list[int], changes: dict[str, Any]) -> None:
    run_now(inside, "true", **changes)
    assert len(forks) == 1


def _nice() -> None:
    os.nice(3)


def _killed_early() -> None:
    Path("/proc/self/oom_score_adj").write_text("300")


def _batch() -> None:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _secured() -> None:
    becoming.set_securebits(1)


def _unheard() -> None:
    signal.signal(signal.SIGCHLD, lambda *_: None)


def _crowded() -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    while os.dup(null) < 600:
        pass


@pytest.mark.parametrize("unlike", [_nice, _killed_early, _batch, _secured, _unheard, _crowded])
def test_what_of_the_daemon_a_thread_cannot_change_takes_the_long_way(
    inside: int, unlike: Callable[[], None]
) -> None:
    def work() -> str:
        unlike()
        made = counting()
        text = "nice; ulimit -Sn; cat /proc/self/oom_score_adj; chrt -p $$ | head -n 1"
        return f"{run_now(inside, '/bin/sh', '-c', text)}{len(made)}"

    told = in_a_child(work).split("\n")
    assert told[:3] == ["0", "1024", "0"]
    assert "SCHED_OTHER" in told[3]
    assert told[-1] == "1"


# What fails is tried again ----------------------------------------------------------------------------------


def test_why_a_program_cannot_run_the_long_way_says(inside: int, forks: list[int]) -> None:
    assert refused(inside, "no-such-program")[0] == "execve"
    assert len(forks) == 1


def test_descriptors_that_a_caller_sent_are_there_both_ways(inside: int, forks: list[int]) -> None:
    async def told(*argv: str) -> bytes:
        read, write = os.pipe()
        parcel = Descriptors([write])
        try:
            wanted = request(inside, *argv, passed=Passed(parcel, {1: 0, 2: 0, 7: 0}))
            process = await Launcher().launch(wanted)
            await process.exited
            process.close()
        finally:
            parcel.close()
            with os.fdopen(read, "rb") as file:
                text = file.read()
        return text

    assert story(told("/bin/sh", "-c", "echo one; echo seven >&7")) == b"one\nseven\n"
    assert forks == []
    with pytest.raises(EnterFailed) as caught:
        story(told("no-such-program"))
    assert caught.value.step == "execve"


# Where nobody answers ---------------------------------------------------------------------------------------


def threads_of() -> set[str]:
    """The threads of this process."""
    return {*os.listdir("/proc/self/task")}


def test_hung_on_its_way_it_holds_up_nobody_and_is_killed_when_cancelled(forks: list[int]) -> None:
    async def told(fd: int) -> None:
        forks.clear()
        before = {*leaks.children(os.getpid())}
        hung = asyncio.create_task(Launcher().launch(request(fd, f"{PLACE}/hung/program")))
        pid = await the_new_child(before)
        assert (await run(fd, "cat", f"{PLACE}/hi-there")).text == "hello from inside\n"
        assert not hung.done()
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        while not waited_for(pid):
            await asyncio.sleep(0.005)

    threads = threads_of()
    with hanging() as fd:
        story(told(fd))
    assert forks == []
    wait_until(lambda: threads_of() <= threads)


def test_killed_by_somebody_it_is_told_of_as_any_other(forks: list[int]) -> None:
    async def told(fd: int) -> None:
        forks.clear()
        before = {*leaks.children(os.getpid())}
        hung = asyncio.create_task(Launcher().launch(request(fd, f"{PLACE}/hung/program")))
        os.kill(await the_new_child(before), signal.SIGKILL)
        process = await hung
        assert await process.exited == (os.CLD_KILLED, signal.SIGKILL)
        process.close()

    with hanging() as fd:
        story(told(fd))
    assert forks == []


def test_given_up_too_early_to_be_killed_it_is_ended_later(
    inside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_REAP_PATIENCE", 0.05)
    spawned: list[int] = []
    posix_spawn = syscalls.posix_spawn

    def late(*given: Any) -> int:
        time.sleep(0.3)
        spawned.append(posix_spawn(*given))
        return spawned[-1]

    monkeypatch.setattr(syscalls, "posix_spawn", late)

    async def told() -> None:
        slow = asyncio.create_task(Launcher().launch(request(inside, "sleep", "1000")))
        await asyncio.sleep(0.1)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert spawned == []
        while not spawned or not waited_for(spawned[0]):
            await asyncio.sleep(0.005)

    story(told())


def test_given_up_before_it_began_nothing_is_started(inside: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptors that it was to have may be others by then."""
    monkeypatch.setattr(launcher, "_REAP_PATIENCE", 0.05)
    unshare = syscalls.unshare
    begun = threading.Event()

    def late(flags: int) -> None:
        time.sleep(0.3)
        unshare(flags)
        begun.set()

    monkeypatch.setattr(syscalls, "unshare", late)
    monkeypatch.setattr(syscalls, "posix_spawn", lambda *_: os.abort())

    async def told() -> None:
        slow = asyncio.create_task(Launcher().launch(request(inside, "sleep", "1000")))
        await asyncio.sleep(0.1)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert not begun.is_set()
        assert await asyncio.to_thread(begun.wait, 10)

    threads = threads_of()
    story(told())
    wait_until(lambda: threads_of() <= threads)


# What is left in the daemon ---------------------------------------------------------------------------------


def test_nothing_of_the_daemon_has_changed(inside: int) -> None:
    def state() -> list[Any]:
        umask = os.umask(0o077)
        os.umask(umask)
        status = fields(Path("/proc/thread-self/status").read_text())
        own = (
            "Uid",
            "Gid",
            "Groups",
            "CapEff",
            "CapPrm",
            "CapInh",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "SigBlk",
            "SigIgn",
        )
        return [
            umask,
            os.getcwd(),
            os.readlink("/proc/thread-self/ns/mnt"),
            leaks.fds_of(os.getpid()),
            os.getsid(0),
            *(status[name] for name in own),
        ]

    before = state()
    run_now(inside, "true")
    assert state() == before


def test_the_daemons_groups_stay_behind(inside: int) -> None:
    def work() -> list[Any]:
        os.setgroups([0, 27, 100])
        text = run_now(inside, "id", "-G")
        return [text, os.getgroups(), threading.active_count()]

    assert in_a_child(work) == ["0\n", [0, 27, 100], 1]


# Room for descriptors ---------------------------------------------------------------------------------------


def soft() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_the_daemon_keeps_to_the_usual_limit_while_that_is_enough(inside: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert soft() == most
    assert run_now(inside, "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").split() == ["1024", str(most)]
    assert soft() == 1024
    room.see(10)
    assert soft() == 1024
    room.see(100)  # calls at a time
    assert soft() == most
    run_now(inside, "true")
    assert soft() == 1024


def test_it_takes_all_before_descriptors_run_out(inside: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    run_now(inside, "true")
    held: list[int] = []
    try:
        while len(held) < 600:
            held.append(os.dup(0))
        room.see(1)
        assert soft() == most
        assert run_now(inside, "/bin/sh", "-c", "ulimit -Sn").split() == ["1024"]  # by the long way
        assert soft() == most
    finally:
        for fd in held:
            os.close(fd)


def test_who_is_on_his_way_meanwhile_has_the_usual_limit(
    inside: int, forks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = syscalls.posix_spawn

    def slow(*given: Any) -> int:
        room.take_all()
        return spawn(*given)

    monkeypatch.setattr(syscalls, "posix_spawn", slow)
    # It begins with the daemon's limit, and has the usual one when Enter is answered.
    assert run_now(inside, "/bin/sh", "-c", "sleep 0.3; ulimit -Sn").split() == ["1024"]
    assert forks == []
