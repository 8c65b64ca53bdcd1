# SPDX-License-Identifier: LGPL-2.1-or-later
"""What mountnsctl shows of what takes long: after a second, on a terminal, and gone when it is done."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from support.ctl import TIMEOUT, Ctl, Terminal
from support.daemon import Daemon
from support.identity import NOBODY
from support.polkit import Polkit

ERASE = "\r\x1b[K"
STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")


@pytest.fixture
def halted(daemon: Daemon, ctl: Ctl) -> Iterator[Callable[[], None]]:
    """The daemon does nothing, until this is called."""
    assert ctl
    os.kill(daemon.pid, signal.SIGSTOP)
    yield lambda: os.kill(daemon.pid, signal.SIGCONT)
    os.kill(daemon.pid, signal.SIGCONT)


def shown(seen: str) -> list[str]:
    """The lines that were shown and erased; raises AssertionError if one was left."""
    assert seen.endswith(ERASE)
    return [line for line in seen.split(ERASE) if line]


def test_destroy_waits_for_processes(ctl: Ctl, daemon: Daemon) -> None:
    with ctl.start("exec", "demo", *STUBBORN) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with Terminal(ctl, "destroy", "--kill", "demo") as terminal:
            assert terminal.end() == 0
        lines = shown(terminal.seen)
        assert lines
        assert all(re.fullmatch(r"Ending the processes in 'demo' \(\d+s\)", line) for line in lines)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGKILL


def test_a_counter_for_many(ctl: Ctl, daemon: Daemon) -> None:
    """All of it takes long, because the daemon does nothing for a while."""
    names = [f"n{number}" for number in range(5)]
    for name in names:
        ctl.ok("create", name)
    os.kill(daemon.pid, signal.SIGSTOP)
    with Terminal(ctl, "destroy", *names, "nope") as terminal:
        terminal.expect(r"Destroying 'n0', destroyed 0 of 6 \([12]s\)")
        os.kill(daemon.pid, signal.SIGCONT)
        terminal.expect(r"Destroying 'n4', destroyed 4 of 6 \(\d+s\)")
        assert terminal.end() == 1
        assert "\x1b[K\x1b[1;31mmountnsctl: There is no namespace 'nope'" in terminal.seen


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("create", "x"), "Creating 'x'"),
        (("list",), "Waiting for mountnsd"),
        (("enter", "demo", "true"), "Entering 'demo'"),
    ],
)
def test_what_is_waited_for(ctl: Ctl, halted: Callable[[], None], words: tuple[str, ...], text: str) -> None:
    with Terminal(ctl, "--no-pager", *words) as terminal:
        terminal.expect(re.escape(f"{ERASE}{text} (1s)"))
        halted()
        terminal.expect(re.escape(ERASE))
        assert terminal.end() == 0
        assert text not in terminal.seen.partition("\n")[2]


def test_not_where_nobody_sees_it(ctl: Ctl, halted: Callable[[], None]) -> None:
    elsewhere = ctl.start("create", "a")
    dumb_terminal = {"TERM": "dumb"}
    with Terminal(ctl, "create", "-q", "b") as quiet, Terminal(ctl, "create", "c", env=dumb_terminal) as dumb:
        time.sleep(2)  # twice as long as it takes for something to be shown
        halted()
        assert quiet.end() == dumb.end() == 0
        assert quiet.seen == dumb.seen == ""
    assert elsewhere.communicate(timeout=TIMEOUT) == ("", "")


def test_not_over_a_question(ctl: Ctl, daemon: Daemon, polkit: Polkit) -> None:
    """While polkit may ask for a password, the terminal is its agent's."""
    polkit.hold()
    with Terminal(ctl, "create", "x", uid=NOBODY) as terminal:
        polkit.wait_for_questions()
        time.sleep(1.5)
        polkit.allow("org.mountnsd1.create", NOBODY)
        polkit.release()
        assert terminal.end() == 0
        assert "Creating" not in terminal.seen


def test_a_line_is_never_wrapped(ctl: Ctl, halted: Callable[[], None]) -> None:
    name = "n" * 64
    with Terminal(ctl, "create", name) as terminal:
        terminal.expect(re.escape(f"Creating '{name}' (1s)"))
        terminal.resize(10, 40)
        line = terminal.expect(r"\x1b\[K(Creating 'n+… \(\d+s\))")[1]
        assert len(line) == 39
        halted()
        assert terminal.end() == 0
