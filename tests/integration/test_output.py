# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the output of a program goes that nobody asked for."""

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.entering import (
    NOBODY,
    in_a_child,
    request,
    story,
)

from mountnsd import output, syscalls
from mountnsd.launcher import Launcher

pytestmark = pytest.mark.usefixtures("tidy")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The daemon's log, on a system without the journal."""
    monkeypatch.setattr(output, "JOURNAL_SOCKET", Path("/nonexistent/journal"))
    caplog.set_level(logging.INFO, "mountnsd.output")
    return caplog


def relayed(inside: int, log: pytest.LogCaptureFixture, *argv: str, **changes: Any) -> list[str]:
    """The lines that a program leaves in the daemon's log, without the tag."""

    def relaying() -> bool:
        fds = leaks.fds_of(os.getpid())
        return any(fds[fd].startswith("pipe:") for fd in fds.keys() - before.keys())

    async def told() -> int:
        process = await Launcher().launch(request(inside, *argv, **changes))
        await process.exited
        process.close()
        while relaying():
            await asyncio.sleep(0.005)
        for orphan in leaks.children(os.getpid()):
            leaks.wait_gone(orphan)
        return process.pid

    before = leaks.fds_of(os.getpid())
    pid = story(told())
    lines = [record.getMessage() for record in log.records if record.name == "mountnsd.output"]
    tag = f"demo[{pid}]: "
    assert all(line.startswith(tag) for line in lines)
    return [line.removeprefix(tag) for line in lines]


def test_without_a_journal_output_is_relayed_to_the_log(inside: int, log: pytest.LogCaptureFixture) -> None:
    lines = relayed(inside, log, "/bin/sh", "-c", "echo out; echo err >&2; printf 'the rest'")
    assert lines == ["out", "err", "the rest"]


def test_no_line_of_the_log_can_be_forged(inside: int, log: pytest.LogCaptureFixture) -> None:
    text = r"a\rfake[1]: b\033[2Jc\0\177\302\205d\342\200\250e\377\342\200\256f\n<0>panic\n\nÜ\n"
    lines = relayed(inside, log, "/usr/bin/printf", text)
    assert lines == [r"a\rfake[1]: b\x1b[2Jc\x00\x7f\x85d\u2028e\xff\u202ef", "<0>panic", "Ü"]
    assert all(line.isprintable() for line in lines)


def test_long_lines_are_cut(inside: int, log: pytest.LogCaptureFixture) -> None:
    lines = relayed(inside, log, "/bin/sh", "-c", "head -c 20000 /dev/zero | tr '\\0' x")
    assert "".join(lines) == "x" * 20000
    assert max(map(len, lines)) == output.MAX_LINE


def test_a_user_can_open_his_output_anew(inside: int, log: pytest.LogCaptureFixture) -> None:
    lines = relayed(inside, log, "/bin/sh", "-c", "echo hello > /dev/stderr", identity=NOBODY)
    assert lines == ["hello"]


def test_the_output_is_relayed_of_what_it_leaves_behind(inside: int, log: pytest.LogCaptureFixture) -> None:
    assert relayed(inside, log, "/bin/sh", "-c", "(sleep 0.2; echo late) & echo soon") == ["soon", "late"]


def test_with_a_journal_it_goes_there_and_cannot_choose_its_priority(inside: int) -> None:
    def work() -> list[str]:
        syscalls.mount("tmpfs", "/run", "tmpfs", 0)
        output.JOURNAL_SOCKET.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as journal:
            journal.bind(str(output.JOURNAL_SOCKET))
            journal.listen()

            async def told() -> None:
                process = await Launcher().launch(request(inside, "echo", "<0>panic"))
                await process.exited
                process.close()

            story(told())
            connection, _ = journal.accept()
            with connection, connection.makefile("rb") as stream:
                return stream.read().decode().splitlines()

    identifier, unit, priority, level_prefix, syslog, kmsg, console, *lines = in_a_child(work)
    assert (identifier, unit, priority, level_prefix) == ("mountns-demo", "", "6", "0")
    assert (syslog, kmsg, console) == ("0", "0", "0")
    assert lines == ["<0>panic"]


def test_a_journal_that_is_not_there_after_all(inside: int) -> None:
    def work() -> None:
        syscalls.mount("tmpfs", "/run", "tmpfs", 0)
        output.JOURNAL_SOCKET.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as journal:
            journal.bind(str(output.JOURNAL_SOCKET))

        async def told() -> None:
            process = await Launcher().launch(request(inside, "sh", "-c", "test -p /proc/self/fd/1"))
            assert await process.exited == (os.CLD_EXITED, 0)
            process.close()

        story(told())

    in_a_child(work)
