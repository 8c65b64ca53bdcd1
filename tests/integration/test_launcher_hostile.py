# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter where somebody means ill: filesystems that never answer, planted files, and many at once."""

import asyncio
import errno
import logging
import os
import select
import signal
import time
from pathlib import Path

import pytest
from support import leaks
from support.entering import (
    CAPABILITY_SETS,
    NOBODY,
    PLACE,
    ROOT,
    given_up,
    hanging,
    hung,
    namespace,
    refused,
    request,
    run,
    run_now,
    script,
    status_of,
    story,
    the_new_child,
    waited_for,
)

from mountnsd import launcher, output, syscalls
from mountnsd.errors import EnterFailed
from mountnsd.identity import Identity
from mountnsd.launcher import Launcher

pytestmark = pytest.mark.usefixtures("tidy")


# A program that hangs on its way ----------------------------------------------------------------------------


@pytest.mark.parametrize("where", [{"cwd": f"{PLACE}/hung/x"}, {}])
def test_hung_on_its_way_it_holds_up_nobody_and_is_killed_when_cancelled(where: dict[str, str]) -> None:
    async def told(fd: int) -> None:
        launching, pid = await hung(fd, f"{PLACE}/hung/program", identity=NOBODY, **where)
        # Meanwhile others are served.
        assert (await run(fd, "cat", f"{PLACE}/hi-there")).text == "hello from inside\n"
        assert not launching.done()
        await given_up(launching)
        assert waited_for(pid)

    with hanging() as fd:
        story(told(fd))


def test_on_its_way_it_has_given_up_all_and_is_closed_to_others_of_its_user() -> None:
    async def told(fd: int) -> None:
        launching, pid = await hung(fd, "true", identity=NOBODY, cwd=f"{PLACE}/hung/x", fds={1: 1, 2: 2})
        status = status_of(pid)
        assert status["Uid"].split() == ["65534"] * 4
        assert {int(status[name], 16) for name in CAPABILITY_SETS} == {0}
        assert status["NoNewPrivs"] == "1"
        others = [target for number, target in leaks.fds_of(pid).items() if number > 2]
        assert len(others) == 1  # where it reports to
        assert others[0].startswith("socket:")
        for file in ("mem", "environ", "maps"):
            peek = await run(fd, "/bin/sh", "-c", f"cat /proc/{pid}/{file}", identity=NOBODY)
            assert peek.status != 0
            assert "ermission denied" in peek.text
        await given_up(launching)

    with hanging() as fd:
        story(told(fd))


def test_killed_on_its_way_it_was_not_started() -> None:
    async def told(fd: int) -> None:
        launching, pid = await hung(fd, "true", cwd=f"{PLACE}/hung/x")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EnterFailed) as caught:
            await launching
        assert (caught.value.step, caught.value.errno) == ("start", errno.ECANCELED)

    with hanging() as fd:
        story(told(fd))


def test_a_kill_that_the_kernel_delays_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has taken the request and does not answer keeps even a killed process."""
    monkeypatch.setattr(launcher, "_REAP_PATIENCE", 0.1)

    def serve(server: int) -> None:
        """Answer FUSE_INIT, take the next request and leave it at that."""
        data = os.read(server, 1 << 17)
        unique = data[8:16]
        answer = (7).to_bytes(4, "little") + (31).to_bytes(4, "little") + bytes(56)
        os.write(server, (16 + len(answer)).to_bytes(4, "little") + bytes(4) + unique + answer)
        assert select.select([server], [], [], 10)[0]
        os.read(server, 1 << 17)

    async def told(fd: int, server: int) -> None:
        before = {*leaks.children(os.getpid())}
        launching = asyncio.create_task(Launcher().launch(request(fd, "true", cwd=f"{PLACE}/hung/x")))
        await asyncio.to_thread(serve, server)
        pid = await the_new_child(before)
        start = time.monotonic()
        await given_up(launching)
        assert time.monotonic() - start < 2
        assert leaks.alive(pid)
        # The server goes: the process ends, and is waited for although nobody asks any more.
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, server)
        os.close(null)
        while not waited_for(pid):
            await asyncio.sleep(0.01)

    with hanging() as fd:
        server = next(number for number, target in leaks.fds_of(os.getpid()).items() if target == "/dev/fuse")
        story(told(fd, server))


# What somebody planted in the namespace ---------------------------------------------------------------------


def _traps() -> None:
    library = Path(os.__file__).parent
    package = Path(launcher.__file__).parent
    sprung = f"open({PLACE + '/sprung'!r}, 'a').write(__name__ + '\\n')\n"
    Path(PLACE, "sprung").touch(0o666)
    Path(PLACE, "sprung").chmod(0o666)
    for directory in (library, package):
        syscalls.mount("tmpfs", str(directory), "tmpfs", 0)
        for name in ("codecs", "encodings/__init__", "encodings/utf_8", "linecache", "traceback", "child"):
            script(f"{directory}/{name}.py", sprung, 0o644)
    syscalls.mount("tmpfs", "/etc", "tmpfs", 0)
    script("/etc/ld.so.preload", f"{PLACE}/planted.so\n", 0o644)


@pytest.mark.parametrize("who", [NOBODY, ROOT], ids=lambda who: who.name)
def test_nothing_planted_runs_before_the_program_does(who: Identity) -> None:
    with namespace(_traps) as fd:
        # The program itself, as the user, is told to load the library; once, by its own loader.
        assert run_now(fd, "cat", f"{PLACE}/hi-there", identity=who).count("planted.so") == 1
        assert refused(fd, "no-such-program", identity=who) == ("execve", errno.ENOENT)
        assert refused(fd, "true", cwd="/none", identity=who) == ("chdir", errno.ENOENT)
        assert "utf_8" not in run_now(fd, "cat", f"{PLACE}/sprung")


# Many -------------------------------------------------------------------------------------------------------


def test_two_hundred_leave_nothing(
    inside: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "JOURNAL_SOCKET", Path("/nonexistent/journal"))
    caplog.set_level(logging.INFO, "mountnsd.output")

    async def one(number: int) -> None:
        if number % 4 == 0:
            with pytest.raises(EnterFailed):
                await run(inside, "no-such-program")
        elif number % 4 == 1:
            process = await Launcher().launch(request(inside, "echo", str(number), identity=NOBODY))
            await process.exited
            process.close()
        else:
            assert (await run(inside, "echo", str(number))).text == f"{number}\n"

    async def told() -> None:
        await one(1)
        await asyncio.sleep(0.1)
        fds, children = leaks.fds_of(os.getpid()), leaks.children(os.getpid())
        for start in range(0, 200, 20):
            await asyncio.gather(*(one(number) for number in range(start, start + 20)))
        await asyncio.sleep(0.2)
        assert leaks.fds_of(os.getpid()).keys() == fds.keys()
        assert leaks.children(os.getpid()) == children

    story(told())
    relayed = [record for record in caplog.records if record.name == "mountnsd.output"]
    assert len(relayed) == 51
