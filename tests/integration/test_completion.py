# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion in the real shells, with the namespaces of a daemon that runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ctl import Ctl, Terminal
from support.daemon import Daemon
from support.shells import COMPLETIONS, SHELLS, Place, Shell

from mountnsd.ctl.options import OPTIONS, VERBS

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)


@pytest.fixture
def place(ctl: Ctl, directory: Path) -> Place:
    """With the namespaces `demo`, `den` and `other`."""
    ctl.ok("create", "den")
    ctl.ok("create", "other")
    own = directory / "home"
    own.mkdir()
    return Place(ctl, own)


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest, place: Place) -> Iterator[Shell]:
    """Each of the shells."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed; 'make tools' installs it")
    found = SHELLS[request.param](place)
    yield found
    found.close()


def values(offered: list[str]) -> list[str]:
    """What is offered for the value of an option, or after a comma, without what stands before: shells differ."""
    return [word.rpartition("=")[2].rpartition(",")[2] for word in offered]


def test_verbs(shell: Shell) -> None:
    assert shell.offers("mountnsctl ") == sorted(verb.name for verb in VERBS)
    assert shell.offers("mountnsctl -q --json short de") == ["destroy", "detach"]
    assert shell.offers("mountnsctl nonsense ") == []


def test_options(shell: Shell) -> None:
    general = {f"--{option.long}" for option in OPTIONS if not option.verbs and len(option.long) > 1}
    for verb in VERBS:
        own = {f"--{option.long}" for option in OPTIONS if verb.name in option.verbs}
        offered = {word.rstrip("=") for word in shell.offers(f"mountnsctl {verb.name} --")}
        assert offered == general | own, verb.name
    everything = {f"--{option.long}" for option in OPTIONS if len(option.long) > 1}
    assert {word.rstrip("=") for word in shell.offers("mountnsctl --")} == everything


def test_namespaces(shell: Shell, ctl: Ctl) -> None:
    assert shell.offers("mountnsctl show d") == ["demo", "den"]
    assert shell.offers("mountnsctl destroy --kill demo o") == ["other"]
    assert shell.offers("mountnsctl --no-pager pids ") == ["demo", "den", "other"]
    assert [word for word in shell.offers("mountnsctl pids demo ") if not word.startswith("-")] == []
    assert values(shell.offers("mountnsctl create x --from=d")) == ["demo", "den"]
    ctl.ok("destroy", "den")
    assert shell.offers("mountnsctl enter d") == ["demo"]


def test_without_a_daemon(shell: Shell, daemon: Daemon) -> None:
    daemon.stop()
    assert shell.offers("mountnsctl show d") == []
    assert shell.offers("mountnsctl mon") == ["monitor"]


def test_declarations(shell: Shell) -> None:
    for verb in ("create", "edit", "cat"):
        assert shell.offers(f"mountnsctl {verb} d") == ["declared-one", "declared-two"]


def test_values(shell: Shell) -> None:
    assert values(shell.offers("mountnsctl list --json=")) == ["off", "pretty", "short"]
    assert values(shell.offers("mountnsctl list --json p")) == ["pretty"]
    assert values(shell.offers("mountnsctl create --propagation=s")) == ["shared", "slave"]
    assert values(shell.offers("mountnsctl enter --user=nob")) == ["nobody"]
    caps = "CAP_SYS_PACCT", "CAP_SYS_PTRACE"
    assert values(shell.offers("mountnsctl exec --drop-capabilities=CAP_CHOWN,CAP_SYS_P")) == [*caps]
    assert values(shell.offers("mountnsctl enter -E MOUNTNSD_R")) == ["MOUNTNSD_RUNTIME_DIRECTORY"]


def test_files(shell: Shell) -> None:
    offered = shell.offers("mountnsctl verify /etc/pass")
    assert "passwd" in [word.rpartition("/")[2] for word in offered]
    assert "default" in [
        word.rstrip("/").rpartition("/")[2] for word in shell.offers("mountnsctl enter --chdir=/etc/def")
    ]


def test_the_command_of_enter_and_exec(shell: Shell) -> None:
    for line in (
        "enter demo",
        "exec --argv0=x demo",
        "exec demo --",
        "enter -q demo --user=bob",
        "exec demo -E A=1",
    ):
        assert "truncate" in shell.offers(f"mountnsctl {line} trunc"), line
        assert shell.offers(f"mountnsctl {line} mountnsctl destroy --ki") == ["--kill"], line
    assert "--user" not in shell.offers("mountnsctl enter demo mountnsctl destroy --us")


def test_bash_at_the_prompt(place: Place, directory: Path) -> None:
    """It is loaded when it is first needed, from where it is installed."""
    there = directory / "bash-completion" / "completions"
    there.mkdir(parents=True)
    shutil.copy(COMPLETIONS / "mountnsctl.bash", there / "mountnsctl")
    environment = {"XDG_DATA_HOME": str(directory), "PS1": "ready> "}
    with Terminal(place, "bash", "--norc", "-i", env=environment) as terminal:
        terminal.press(". /usr/share/bash-completion/bash_completion; PS1='ready''> '\r")
        terminal.expect("ready> ")
        terminal.press("mountnsctl sho\t")
        terminal.expect("mountnsctl show ")
        terminal.press("dem\t")
        terminal.expect("demo ")
        terminal.press("--js\t")
        terminal.expect("--json=")
        terminal.press("pr\t")
        terminal.expect("pretty ")
        terminal.press("\x15exit 3\r")
        assert terminal.end() == 3


def test_no_name_can_be_a_command(shell: Shell, place: Place) -> None:
    """Even where what answers for mountnsctl says strange things."""
    program = place.directory / "tools" / "mountnsctl"
    trace = place.directory / "trace"
    program.write_text(f"#!/bin/sh\necho '$(touch {trace}) x'\necho '`touch {trace}` x'\n")
    shell.offers("mountnsctl show ")
    assert not trace.exists()
