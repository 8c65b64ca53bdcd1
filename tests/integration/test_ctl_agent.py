# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent by which polkit asks at a terminal: when there is one, and that it always ends with mountnsctl.

The agent is a stand-in: the real one asks for the passwords of a booted system in tests/system/test_password.py.
"""

import os
import signal
from pathlib import Path

import pytest
from support import leaks
from support.ctl import Ctl, Terminal, wait_until
from support.identity import NOBODY
from support.polkit import Polkit


class Agent:
    """pkttyagent, as mountnsctl finds it."""

    def __init__(self, directory: Path, ctl: Ctl) -> None:
        self._pid = directory / "pid"
        self._pid.touch()
        self._pid.chmod(0o666)
        program = directory / "pkttyagent"
        program.write_text(f'#!/bin/sh\necho $$ >{self._pid}\neval "exec $4>&-"\nexec sleep 1000\n')
        program.chmod(0o755)
        self.environment = {"PATH": f"{directory}:{ctl.environment['PATH']}"}

    def pid(self) -> int:
        """Its process, 0 if it was never started."""
        return int(self._pid.read_text() or 0)


@pytest.fixture
def agent(ctl: Ctl, polkit: Polkit, directory: Path) -> Agent:
    """One, and a polkit that wants to know who is there."""
    polkit.challenge("org.mountnsd1.create", NOBODY)
    return Agent(directory, ctl)


def test_for_as_long_as_the_question(ctl: Ctl, agent: Agent, polkit: Polkit) -> None:
    polkit.hold()
    with Terminal(ctl, "create", "x", uid=NOBODY, env=agent.environment) as terminal:
        polkit.wait_for_questions()
        assert leaks.alive(agent.pid())
        polkit.release()
        assert terminal.end() == 0
    assert not leaks.alive(agent.pid())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_when_we_are_ended(ctl: Ctl, agent: Agent, polkit: Polkit, number: int) -> None:
    polkit.hold()
    with Terminal(ctl, "create", "x", uid=NOBODY, env=agent.environment) as terminal:
        polkit.wait_for_questions()
        os.kill(terminal.pid, number)
        assert terminal.end() == -number
    wait_until(lambda: not leaks.alive(agent.pid()))
    polkit.release()


def test_only_where_there_is_somebody_to_ask(ctl: Ctl, agent: Agent) -> None:
    piped = ctl.start(
        "create", "a", user=NOBODY, group=NOBODY, extra_groups=[], env=agent.environment
    )  # no terminal
    piped.communicate()
    with Terminal(ctl, "create", "b", "--no-ask-password", uid=NOBODY, env=agent.environment) as terminal:
        assert terminal.end() == 1
    with Terminal(ctl, "create", "c", env=agent.environment) as terminal:  # root
        assert terminal.end() == 0
    with Terminal(ctl, "list", "--no-pager", uid=NOBODY, env=agent.environment) as terminal:  # no question
        terminal.end()
    assert agent.pid() == 0


def test_it_need_not_be_installed(ctl: Ctl, agent: Agent, directory: Path) -> None:
    (directory / "pkttyagent").chmod(0o644)
    nowhere = {"PATH": str(directory)}
    with Terminal(ctl, "create", "x", uid=NOBODY, env=nowhere) as terminal:
        assert terminal.end() == 0
    assert agent.pid() == 0
