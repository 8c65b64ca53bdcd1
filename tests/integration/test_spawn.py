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
    given_up,
    hanging,
    hung,
    in_a_child,
    refused,
    request,
    run,
    run_now,
    story,
    waited_for,
)

from mountnsd import becoming, child, launcher, room, spawn, syscalls
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
        launching, pid = await hung(fd, f"{PLACE}/hung/program")
        assert (await run(fd, "cat", f"{PLACE}/hi-there")).text == "hello from inside\n"
        assert not launching.done()
        await given_up(launching)
        while not waited_for(pid):
            await asyncio.sleep(0.005)

    with hanging() as fd:
        story(told(fd))
    assert forks == []
    wait_until(lambda: len(threads_of()) == 1)


def test_killed_by_somebody_it_is_told_of_as_any_other(forks: list[int]) -> None:
    async def told(fd: int) -> None:
        forks.clear()
        launching, pid = await hung(fd, f"{PLACE}/hung/program")
        os.kill(pid, signal.SIGKILL)
        process = await launching
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
        slow = asyncio.create_task(Launcher().launch(request(inside, "/bin/sleep", "1000")))
        await asyncio.sleep(0.1)
        await given_up(slow)
        assert spawned == []
        while not spawned or not waited_for(spawned[0]):
            await asyncio.sleep(0.005)

    story(told())


def test_given_up_before_it_is_spawned_nothing_is_started(
    inside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_REAP_PATIENCE", 0.05)
    leave_keyring = child.leave_keyring

    def late(plan: child.Plan) -> None:
        time.sleep(0.3)
        leave_keyring(plan)

    monkeypatch.setattr(child, "leave_keyring", late)
    monkeypatch.setattr(syscalls, "posix_spawn", lambda *_: os.abort())

    async def told() -> None:
        slow = asyncio.create_task(Launcher().launch(request(inside, "sleep", "1000")))
        await asyncio.sleep(0.1)
        await given_up(slow)
        assert len(threads_of()) > 1
        while len(threads_of()) > 1:
            await asyncio.sleep(0.005)

    wait_until(lambda: len(threads_of()) == 1)
    story(told())


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


def test_the_daemon_has_the_usual_limit_for_a_moment(inside: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert run_now(inside, "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").split() == ["1024", str(most)]
    assert soft() == most


def test_it_has_it_until_the_last_has_begun(inside: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert room.narrow()
    run_now(inside, "true")
    assert soft() == 1024
    room.widen()
    assert soft() == most


@pytest.mark.parametrize("free", [0, 8])
def test_where_many_are_open_it_is_the_long_way(inside: int, forks: list[int], free: int) -> None:
    """However many of the low numbers are free."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    held = [os.dup(0) for _ in range(1500)]
    try:
        for fd in held[:free]:
            os.close(fd)
        assert run_now(inside, "/bin/sh", "-c", "ulimit -Sn").split() == ["1024"]
        assert len(forks) == 1
        assert soft() == most
    finally:
        for fd in held[free:]:
            os.close(fd)


def test_a_hung_one_keeps_nobody_from_descriptors(forks: list[int]) -> None:
    async def told(fd: int) -> None:
        forks.clear()
        launching, pid = await hung(fd, f"{PLACE}/hung/program")
        await asyncio.sleep(0.1)
        assert soft() == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == 1024
        await given_up(launching)
        wait_until(lambda: waited_for(pid))

    with hanging() as fd:
        story(told(fd))
    assert forks == []


LATE_LIMITS = {
    "its own": ("ulimit -Sn 77; sleep 0.3; ulimit -Sn", "77"),
    "the daemon's": ("sleep 0.3; ulimit -Sn", "1024"),
}


@pytest.mark.parametrize(("text", "limit"), LATE_LIMITS.values(), ids=LATE_LIMITS)
def test_begun_late_it_has_the_usual_limit_in_the_end(
    inside: int, forks: list[int], monkeypatch: pytest.MonkeyPatch, text: str, limit: str
) -> None:
    posix_spawn = syscalls.posix_spawn

    def late(*given: Any) -> int:
        time.sleep(0.2)
        return posix_spawn(*given)

    monkeypatch.setattr(syscalls, "posix_spawn", late)
    assert run_now(inside, "/bin/sh", "-c", text).split() == [limit]
    assert forks == []


# Its parent -------------------------------------------------------------------------------------------------


def test_who_wants_to_die_with_his_parent_lives_as_long_as_the_daemon(inside: int, forks: list[int]) -> None:
    """The parent is a thread, for PR_SET_PDEATHSIG: so that stays, but out of the namespace."""
    for _ in range(5):
        run_now(inside, "setpriv", "--pdeathsig", "KILL", "sleep", "0.2")
    assert forks == []

    async def told() -> None:
        process = await Launcher().launch(request(inside, "sleep", "1000"))
        [thread] = threads_of() - threads
        place = f"/proc/self/task/{thread}"
        host = os.readlink("/proc/self/ns/mnt")
        while os.readlink(f"{place}/ns/mnt") != host or os.listdir(f"{place}/fd"):
            await asyncio.sleep(0.005)
        assert leaks.alive(process.pid)
        await process.end()

    wait_until(lambda: len(threads_of()) == 1)
    threads = threads_of()
    story(told())
    wait_until(lambda: threads_of() <= threads)


def test_it_keeps_few_threads(inside: int, forks: list[int]) -> None:
    async def told() -> None:
        processes = [await Launcher().launch(request(inside, "sleep", "1000")) for _ in range(spawn.MOST + 3)]
        assert len(forks) == 3
        for process in processes:
            await process.end()

    wait_until(lambda: len(threads_of()) == 1)
    story(told())
    wait_until(lambda: len(threads_of()) == 1)
    run_now(inside, "true")
    assert len(forks) == 3


# What others sent -------------------------------------------------------------------------------------------


def test_nothing_that_is_received_meanwhile_is_in_its_table(
    inside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is copied before the event loop goes on, and so at a moment when it has nothing of others."""
    turns: list[int] = []
    copied: list[int] = []
    unshare = syscalls.unshare

    def slow(flags: int) -> None:
        begun = len(turns)
        time.sleep(0.1)
        unshare(flags)
        copied.append(len(turns) - begun)

    async def told() -> None:
        async def others() -> None:
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        busy = asyncio.create_task(others())
        await run(inside, "true")
        busy.cancel()

    monkeypatch.setattr(syscalls, "unshare", slow)
    story(told())
    assert copied == [0]
    assert turns
