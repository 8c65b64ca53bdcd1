# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter, told as a story: a program in a namespace, and all that must not come with it."""

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support import leaks
from support.entering import (
    CAPABILITY_SETS,
    NOBODY,
    PLACE,
    ROOT,
    fields,
    in_a_child,
    memory,
    namespace,
    refused,
    request,
    run,
    run_now,
    script,
    story,
    waited_for,
)

from mountnsd import becoming, program, room, spawn, syscalls
from mountnsd.errors import EnterFailed
from mountnsd.identity import Identity
from mountnsd.launcher import Launcher

pytestmark = pytest.mark.usefixtures("tidy", "way")


@pytest.fixture(params=["short", "long"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Most programs of root's are spawned (test_spawn.py); what holds for them also holds when they are forked."""
    if request.param == "long":
        monkeypatch.setattr(spawn, "begin", lambda *_: None)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    room.take_all()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


# A program runs inside --------------------------------------------------------------------------------------


def test_it_runs_inside_and_only_there(inside: int) -> None:
    assert run_now(inside, "cat", f"{PLACE}/hi-there") == "hello from inside\n"
    assert not Path(PLACE, "hi-there").exists()
    own = os.fstat(inside).st_ino
    assert run_now(inside, "readlink", "/proc/self/ns/mnt").strip() == f"mnt:[{own}]"


def test_how_it_ended_is_told(inside: int) -> None:
    async def told() -> None:
        result = await run(inside, "/bin/sh", "-c", "exit 7")
        assert (result.code, result.status) == (os.CLD_EXITED, 7)
        result = await run(inside, "/bin/sh", "-c", "kill -TERM $$")
        assert (result.code, result.status) == (os.CLD_KILLED, signal.SIGTERM)

    story(told())


def test_it_can_be_signalled_until_it_has_ended(inside: int) -> None:
    async def told() -> None:
        process = await Launcher().launch(request(inside, "sleep", "1000"))
        assert leaks.alive(process.pid)
        process.signal(signal.SIGINT)
        assert await process.exited == (os.CLD_KILLED, signal.SIGINT)
        assert waited_for(process.pid)
        with pytest.raises(ProcessLookupError):
            process.signal(signal.SIGTERM)
        process.close()
        process.close()

    story(told())


def test_given_up_early_it_runs_on_and_is_waited_for(inside: int) -> None:
    async def told() -> None:
        process = await Launcher().launch(request(inside, "sleep", "0.05"))
        process.close()
        assert await process.exited == (os.CLD_EXITED, 0)
        assert process.pidfd == -1

    story(told())


# A program that cannot run ----------------------------------------------------------------------------------


def _odd_programs() -> None:
    script(f"{PLACE}/data", "no program", 0o644)
    script(f"{PLACE}/no-magic", "no program")
    script(f"{PLACE}/no-interpreter", "#!/nowhere\n")
    script(f"{PLACE}/bin/greet", "#!/bin/sh\necho greetings\n")
    script(f"{PLACE}/later/greet", "#!/bin/sh\necho too late\n")
    script(f"{PLACE}/locked/anything", "#!/bin/sh\n")
    Path(PLACE, "locked").chmod(0o700)


def test_a_missing_program_is_told_before_launch_returns(inside: int) -> None:
    with pytest.raises(EnterFailed) as caught:
        story(run(inside, "no-such-program"))
    assert (caught.value.step, caught.value.errno) == ("execve", errno.ENOENT)
    assert "'no-such-program' in namespace 'demo'" in caught.value.message
    assert "ENOENT" in caught.value.message


def test_every_way_a_program_can_fail_has_its_errno() -> None:
    with namespace(_odd_programs) as fd:
        assert refused(fd, f"{PLACE}/none") == ("execve", errno.ENOENT)
        assert refused(fd, f"{PLACE}/data") == ("execve", errno.EACCES)
        assert refused(fd, f"{PLACE}/data/x") == ("execve", errno.ENOTDIR)
        assert refused(fd, f"{PLACE}/no-magic") == ("execve", errno.ENOEXEC)
        assert refused(fd, f"{PLACE}/no-interpreter") == ("execve", errno.ENOENT)
        assert refused(fd, f"{PLACE}/bin") == ("execve", errno.EACCES)


def test_the_program_is_searched_inside_by_the_user_in_his_path() -> None:
    with namespace(_odd_programs) as fd:
        path = {"PATH": f"/none:{PLACE}/locked:{PLACE}/data:{PLACE}/bin:{PLACE}/later"}
        assert run_now(fd, "greet", env=path, identity=NOBODY) == "greetings\n"
        assert refused(fd, "greet") == ("execve", errno.ENOENT)
        # That something was not to be looked at says more than that it was nowhere else.
        assert refused(fd, "anything", env=path, identity=NOBODY) == ("execve", errno.EACCES)
        assert refused(fd, "nothing", env=path) == ("execve", errno.ENOENT)


def test_a_descriptor_that_is_no_mount_namespace(inside: int) -> None:
    with Path("/proc/self/ns/net").open("rb") as other:
        assert refused(inside, "true", namespace_fd=other.fileno()) == ("setns", errno.EINVAL)


def test_without_descriptors_nothing_is_started(inside: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def told(free: int) -> EnterFailed | None:
        limit = max(leaks.fds_of(os.getpid())) + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        filling = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    filling.append(os.dup(0))
            for fd in filling[-free:]:
                os.close(fd)
            del filling[-free:]
            process = await Launcher().launch(request(inside, "true", fds={1: 1, 2: 2}))
        except EnterFailed as error:
            return error
        else:
            await process.exited
            process.close()
            return None
        finally:
            for fd in filling:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    errors = [story(told(free)) for free in range(1, 12)]
    assert {error.errno for error in errors if error is not None} == {errno.EMFILE}
    assert {"open", "dup2"} == {error.step for error in errors if error is not None}
    assert errors[-1] is None


def test_a_process_that_cannot_be_held_is_not_started(inside: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = {*leaks.children(os.getpid())}
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", fail)
        assert refused(inside, "true") == ("pidfd_open", errno.EMFILE)
    while {*leaks.children(os.getpid())} - before:
        time.sleep(0.005)


def test_as_much_as_is_let_through_does_run(inside: int) -> None:
    argv = ["true", *("x" * 99 for _ in range(1200)), "y" * 1000]
    program.check(argv, {}, 0, {}, None)
    run_now(inside, *argv)
    longest = ["true", "x" * (program.MAX_ARGUMENTS - 23)]
    program.check(longest, {}, 0, {}, None)
    run_now(inside, *longest)


# Where it stands --------------------------------------------------------------------------------------------


def _directories() -> None:
    Path(PLACE, "private").mkdir(mode=0o700)
    Path(PLACE, "home").mkdir()


def test_the_directory_is_entered_as_the_user() -> None:
    with namespace(_directories) as fd:
        assert run_now(fd, "pwd", cwd=f"{PLACE}/private") == f"{PLACE}/private\n"
        assert refused(fd, "pwd", cwd=f"{PLACE}/private", identity=NOBODY) == ("chdir", errno.EACCES)
        assert refused(fd, "pwd", cwd=f"{PLACE}/none") == ("chdir", errno.ENOENT)
        assert refused(fd, "pwd", cwd=f"{PLACE}/hi-there") == ("chdir", errno.ENOTDIR)
        assert run_now(fd, "pwd", identity=NOBODY) == "/\n"


@pytest.mark.parametrize(("home", "stands_in"), [(f"{PLACE}/home", f"{PLACE}/home"), ("/nonexistent", "/")])
def test_a_login_shell_begins_at_home(home: str, stands_in: str) -> None:
    user = Identity(65534, 65534, (65534,), "nobody", home, "/bin/sh")
    with namespace(_directories) as fd, memory("input") as typed:
        typed.write(b"echo $0; pwd\n")
        typed.seek(0)
        assert run_now(fd, identity=user, fds={0: typed.fileno()}) == f"-sh\n{stands_in}\n"


# Who it is --------------------------------------------------------------------------------------------------


def test_another_user_has_his_ids_and_nothing_of_root(inside: int) -> None:
    status = fields(run_now(inside, "cat", "/proc/self/status", identity=NOBODY))
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert status["Groups"].split() == ["100", "65534"]
    assert status["NoNewPrivs"] == "1"
    assert {int(status[name], 16) for name in CAPABILITY_SETS} == {0}


def test_new_privileges_leave_only_what_setuid_programs_give(inside: int) -> None:
    status = fields(run_now(inside, "cat", "/proc/self/status", identity=NOBODY, new_privileges=True))
    assert status["NoNewPrivs"] == "0"
    assert {int(status[name], 16) for name in CAPABILITY_SETS} == {0}


def test_root_has_all_that_there_is(inside: int) -> None:
    status = fields(run_now(inside, "cat", "/proc/self/status"))
    assert status["Uid"].split() == ["0"] * 4
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"]
    assert status["CapBnd"] == fields(Path("/proc/self/status").read_text())["CapBnd"]
    assert status["NoNewPrivs"] == "0"


def test_the_daemons_secure_bits_change_nothing(inside: int) -> None:
    no_setuid_fixup, noroot = 1 << 2, 1 << 0

    def work() -> list[str]:
        syscalls.set_securebits(no_setuid_fixup | noroot)
        return [run_now(inside, "cat", "/proc/self/status", identity=who) for who in (NOBODY, ROOT)]

    nobody, root = (fields(text) for text in in_a_child(work))
    assert {int(nobody[name], 16) for name in CAPABILITY_SETS} == {0}
    assert root["CapEff"] == root["CapPrm"] == root["CapBnd"]


def test_the_environment_is_his_and_nothing_else(inside: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the daemon")
    text = run_now(inside, "env", identity=NOBODY, env={"LANG": "C.UTF-8", "USER": "somebody", "Ü": "=é"})
    assert dict(line.split("=", 1) for line in text.splitlines()) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "USER": "somebody",
        "LOGNAME": "nobody",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "Ü": "=é",
    }
    assert "PATH=/usr/local/sbin:" in run_now(inside, "env")


_KEYRING = """
import ctypes
libc = ctypes.CDLL(None)
print(libc.syscall({number}, 0, -3, 0))  # KEYCTL_GET_KEYRING_ID of the session
"""


def test_it_does_not_possess_the_daemons_keyring(inside: int) -> None:
    code = _KEYRING.format(number=becoming._SYS_KEYCTL[os.uname().machine])
    serials = [run_now(inside, "/usr/bin/python3", "-I", "-c", code) for _ in range(2)]
    own = in_a_child(lambda: syscalls._libc.syscall(becoming._SYS_KEYCTL[os.uname().machine], 0, -3))
    if "-1\n" not in serials:  # -1: a container keeps everybody from keyrings
        assert len({*serials, f"{own}\n"}) == 3


# Its descriptors --------------------------------------------------------------------------------------------


def test_no_descriptor_of_the_daemon_is_left(inside: int) -> None:
    leaky = [os.dup(0) for _ in range(20)]
    try:
        for fd in leaky:
            os.set_inheritable(fd, True)
        assert run_now(inside, "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is that directory
        assert run_now(inside, "readlink", "/proc/self/fd/0") == "/dev/null\n"
    finally:
        for fd in leaky:
            os.close(fd)


@contextlib.contextmanager
def named(*labels: str) -> Iterator[list[int]]:
    """Descriptors that can be told apart by a name."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(memory(label)) for label in labels]
        yield [file.fileno() for file in files]


def targets(inside: int, fds: Mapping[int, int]) -> dict[int, str]:
    """What the descriptors lead to in a program that has these."""
    lines = run_now(inside, "find", "/proc/self/fd", "-type", "l", "-printf", "%f %l\n", fds=fds).splitlines()
    found = dict(line.split(" ", 1) for line in lines)
    return {
        int(fd): target.removeprefix("/memfd:").removesuffix(" (deleted)") for fd, target in found.items()
    }


def test_swapped_descriptors(inside: int) -> None:
    with named("a", "b") as (a, b):
        found = targets(inside, {a: b, b: a, 0: b})
    assert (found[a], found[b], found[0]) == ("b", "a", "b")


def test_numbers_that_the_launcher_itself_would_use(inside: int) -> None:
    labels = [f"f{number}" for number in range(12)]
    with named(*labels) as fds:
        wanted = {number: fds[number % 12] for number in (0, *range(3, 60), 1023)}
        found = targets(inside, wanted)
    assert {number: found[number] for number in wanted} == {n: labels[n % 12] for n in wanted}
    assert not [target for target in found.values() if ":" in target]  # no socket, namespace or pipe


def test_one_descriptor_can_be_many(inside: int) -> None:
    with named("one") as (one,):
        found = targets(inside, {0: one, 5: one, one: one})
    assert found[0] == found[5] == found[one] == "one"


def test_every_descriptor_of_ours_is_close_on_exec(inside: int) -> None:
    async def told() -> None:
        loops = leaks.fds_of(os.getpid()).keys()
        process = await Launcher().launch(request(inside, "sleep", "1000"))
        for fd in leaks.fds_of(os.getpid()).keys() - before:
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, fd
        await process.end()
        while (
            leaks.fds_of(os.getpid()).keys() - before - loops
        ):  # the end of its output is seen a moment later
            await asyncio.sleep(0.005)

    before = leaks.fds_of(os.getpid()).keys()
    story(told())


# Its session, terminal, signals and limits ------------------------------------------------------------------


def stat_fields(line: str) -> list[str]:
    """The fields of /proc/PID/stat from the third: state, ppid, pgrp, session, tty_nr, tpgid."""
    return line.rpartition(") ")[2].split()


def test_it_leads_a_session_without_a_terminal(inside: int) -> None:
    line = run_now(inside, "cat", "/proc/self/stat")
    _, _, group, session, terminal, _ = stat_fields(line)[:6]
    assert group == session == line.split()[0]
    assert terminal == "0"


@pytest.mark.parametrize("who", [ROOT, NOBODY])
def test_a_terminal_becomes_its_own(inside: int, who: Identity) -> None:
    ours, theirs = os.openpty()
    try:
        line = run_now(inside, "cat", "/proc/self/stat", identity=who, tty=True, fds={0: theirs})
    finally:
        os.close(ours)
        os.close(theirs)
    _, _, group, session, terminal, foreground = stat_fields(line)[:6]
    assert group == session == foreground == line.split()[0]
    assert terminal != "0"


def test_what_cannot_be_its_terminal(inside: int) -> None:
    async def told() -> None:
        ours, theirs = os.openpty()
        first = await Launcher().launch(request(inside, "sleep", "1000", tty=True, fds={0: theirs}))
        try:
            with pytest.raises(EnterFailed) as caught:
                await run(inside, "true", tty=True, fds={0: theirs})
            assert (caught.value.step, caught.value.errno) == ("TIOCSCTTY", errno.EPERM)
        finally:
            await first.end()
            os.close(ours)
            os.close(theirs)

    story(told())
    with named("no-terminal") as (fd,):
        assert refused(inside, "true", tty=True, fds={0: fd}) == ("TIOCSCTTY", errno.ENOTTY)


def test_a_terminal_that_only_root_could_take_is_not_taken(inside: int) -> None:
    ours, theirs = os.openpty()
    write_only = os.open(os.ttyname(theirs), os.O_WRONLY | os.O_NOCTTY)
    try:
        step = refused(inside, "true", identity=NOBODY, tty=True, fds={0: write_only})
        assert step == ("TIOCSCTTY", errno.EPERM)
    finally:
        for fd in (ours, theirs, write_only):
            os.close(fd)


def test_signals_are_as_in_a_new_session(inside: int) -> None:
    async def told() -> dict[str, str]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2,))
        try:
            return fields((await run(inside, "cat", "/proc/self/status")).text)
        finally:
            assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR2,))
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            loop.remove_signal_handler(signal.SIGTERM)

    status = story(told())
    assert {leaks.signals(status[name]) for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")} == {0}


def test_what_the_daemon_favours_itself_with_is_gone(inside: int) -> None:
    def work() -> str:
        Path("/proc/self/oom_score_adj").write_text("300")
        os.nice(7)
        os.umask(0o077)
        text = "umask; nice; ulimit -Sn; cat /proc/self/oom_score_adj"
        return run_now(inside, "/bin/sh", "-c", text, identity=NOBODY)

    assert in_a_child(work).split() == ["0022", "0", "1024", "0"]
