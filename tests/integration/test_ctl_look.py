# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl list, status, show and which, on the real daemon: what there is, and how it is."""

import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import leaks
from support.buses import PrivateBus
from support.ctl import TIMEOUT, Ctl, Terminal
from support.daemon import Daemon
from support.hidden import command
from support.identity import NOBODY
from support.manager import Manager
from support.polkit import Polkit


@contextmanager
def somebody_inside(ctl: Ctl, name: str) -> Iterator[int]:
    """The pid of a process in a namespace."""
    process = ctl.start("exec", name, "sh", "-c", "echo ready; read x")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.communicate("x\n", TIMEOUT)


def _names(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines()]


@pytest.fixture
def three(ctl: Ctl, polkit: Polkit) -> Ctl:
    """Besides `demo`, `web` of root's and `mine` of somebody else, with labels."""
    polkit.allow("org.mountnsd1.create", NOBODY)
    polkit.allow("org.mountnsd1.list")
    ctl.ok("create", "web", "--label=team=web", "--label=note=two words", "--description=A server")
    ctl.ok("create", "mine", "--label=team=own", uid=NOBODY)
    return ctl


# list


def test_filters_and_order(three: Ctl) -> None:
    ctl = three
    assert _names(ctl.ok("list", "--no-legend")) == ["demo", "mine", "web"]
    assert _names(ctl.ok("list", "--no-legend", "--sort=-created")) == ["mine", "web", "demo"]
    assert _names(ctl.ok("list", "--no-legend", "--sort=owner,-name")) == ["mine", "web", "demo"]
    assert _names(ctl.ok("list", "--no-legend", "--label=team")) == ["mine", "web"]
    assert _names(ctl.ok("list", "--no-legend", "--label=team=web", "--label=note=two words")) == ["web"]
    assert _names(ctl.ok("list", "--no-legend", "--owner=nobody")) == ["mine"]
    assert _names(ctl.ok("list", "--no-legend", f"--owner={NOBODY}", "--label=team=web")) == []
    with somebody_inside(ctl, "web"):
        assert _names(ctl.ok("list", "--no-legend", "--sort=-processes")) == ["web", "demo", "mine"]
    refused = ctl("list", "--owner=no-such-user")
    assert (refused.returncode, refused.stdout) == (1, "")


def test_all_columns_as_somebody_else(three: Ctl) -> None:
    out = three.ok("list", "--full", "--no-legend", "--sort=name", uid=NOBODY)
    assert re.search(
        r"^web +mnt:\[\d+\] root +0 active \S+ note=two words,team=web A server$", out, re.MULTILINE
    )
    assert re.search(r"^mine +mnt:\[\d+\] nobody 0 active \S+ team=own +-$", out, re.MULTILINE)


def test_list_says_as_json_what_show_says(three: Ctl) -> None:
    assert three.json("list") == three.json("show", "demo", "mine", "web")


# show


def test_properties(ctl: Ctl, daemon: Daemon) -> None:
    inode = (daemon.pins / "demo").stat().st_ino
    assert ctl.ok("show", "demo", "-p", "Inode,State,Labels") == f"Inode={inode}\nState=active\nLabels=\n"
    assert ctl.ok("show", "demo", "--property=Inode", "--value") == f"{inode}\n"
    with somebody_inside(ctl, "demo"):
        assert ctl.ok("show", "demo", "-pProcesses") == "Processes=1\n"
    shown = subprocess.run(
        ["busctl", f"--address={ctl.environment['DBUS_SYSTEM_BUS_ADDRESS']}", "--json=short", "call",
         "org.mountnsd1", "/org/mountnsd1/namespace/demo", "org.freedesktop.DBus.Properties", "GetAll", "s",
         "org.mountnsd1.Namespace"],
        capture_output=True, text=True, check=True, timeout=TIMEOUT,
    )  # fmt: skip
    names = set(json.loads(shown.stdout)["data"][0])
    assert {line.partition("=")[0] for line in ctl.ok("show", "demo").splitlines()} == names | {"Processes"}


# status


def test_status(ctl: Ctl) -> None:
    ctl.ok("mount", "demo", "scratch", "/mnt", "-t", "tmpfs")
    with somebody_inside(ctl, "demo") as pid:
        out = ctl.ok("status", "demo")
        assert out.startswith("demo\n")
        assert re.search(r"^ +State: active$", out, re.MULTILINE)
        assert re.search(r"^ +Created: .*; \d+s ago$", out, re.MULTILINE)
        assert re.search(rf"^ +Processes: 1\n +{pid} root \S+ sh$", out, re.MULTILINE)
        assert re.search(r"^ +\+ /mnt +scratch +tmpfs$", out, re.MULTILINE)
        assert "Unit:" not in out  # there is no systemd on this bus
        (found,) = ctl.json("status", "demo")
        assert [process["pid"] for process in found["inside"]] == [pid]
        assert [(row["change"], row["source"]) for row in found["changes"] if row["target"] == "/mnt"] == [
            ("added", "scratch")
        ]
        assert (found["unit"], found["slice"]) == (None, None)


def test_status_of_all_as_somebody_else(three: Ctl) -> None:
    out = three.ok("status", uid=NOBODY)
    assert re.findall(r"^(\S.*)$", out, re.MULTILINE) == ["demo", "mine", "web - A server"]
    refused = three("status", "nope", "web", uid=NOBODY)
    assert (refused.returncode, refused.stdout[:14]) == (1, "web - A server")
    assert "no namespace 'nope'" in refused.stderr


def test_status_of_a_stale_one(ctl: Ctl, daemon: Daemon) -> None:
    """Something covers the pin: what is known is shown."""
    pin = daemon.pins / "demo"
    subprocess.run(command("mount", "--bind", "/etc/passwd", pin), check=True)
    try:
        result = ctl("status", "demo")
        assert re.search(r"^ +State: stale$", result.stdout, re.MULTILINE)
        assert result.returncode == 1
        assert result.stderr.startswith("mountnsctl: ")
    finally:
        subprocess.run(command("umount", pin), check=True)
    assert re.search(r"^ +State: active$", ctl.ok("status", "demo"), re.MULTILINE)


def test_status_on_a_terminal(ctl: Ctl) -> None:
    ctl.ok("mount", "demo", "scratch", "/mnt", "-t", "tmpfs")
    with Terminal(ctl, "status", "demo", "--no-pager") as terminal:
        assert terminal.end() == 0
        assert terminal.seen.startswith("\x1b[1mdemo\x1b[0m\r\n")
        assert "State: \x1b[1;32mactive\x1b[0m\r\n" in terminal.seen
        assert re.search(r" \x1b\[1;32m\+ /mnt +scratch +tmpfs\x1b\[0m\r\n", terminal.seen)
    with Terminal(ctl, "status", "demo", env={"SYSTEMD_PAGER": "sed s/^/paged:/"}) as terminal:
        assert terminal.end() == 0
        assert "paged:" in terminal.seen


@pytest.fixture
def journal(directory: Path) -> Path:
    """A directory with a journalctl that tells what it was asked; which nobody but root may read."""
    place = directory / "tools"
    place.mkdir()
    program = place / "journalctl"
    program.write_text('#!/bin/sh\ntest "$(id -u)" = 0 || exit 1\nprintf "asked %s \\033[2J\\n" "$6"\n')
    program.chmod(0o755)
    return place


def test_the_last_lines_of_the_log(ctl: Ctl, polkit: Polkit, journal: Path) -> None:
    polkit.allow("org.mountnsd1.list")
    path = {"PATH": f"{journal}:{ctl.environment['PATH']}"}
    out = ctl.ok("status", "demo", env=path)
    assert out.endswith("\n\nasked MOUNTNS_NAME=demo \\x1b[2J\n")
    assert "asked" not in ctl.ok("status", "demo", "--lines=0", env=path)
    assert "asked" not in ctl.ok("status", "demo", env=path, uid=NOBODY)
    assert "asked" not in ctl.ok("status", "demo", env={"PATH": "/nowhere"})


@pytest.fixture
def manager(bus: PrivateBus) -> Iterator[Manager]:
    """A stand-in for systemd, which has loaded nothing."""
    with Manager(bus.address) as running:
        yield running


def test_a_systemd_that_does_not_say(ctl: Ctl, manager: Manager) -> None:
    manager.faults.refuse.add("LoadUnit")
    assert "Unit:" not in ctl.ok("status", "demo")
    assert ("LoadUnit", "mountns@demo.service") in manager.asked
    assert ("LoadUnit", "mountns-demo.slice") in manager.asked


# which


def test_which(ctl: Ctl, polkit: Polkit) -> None:
    polkit.allow("org.mountnsd1.list")
    assert ctl.ok("exec", "demo", *_itself(ctl)) == "demo\n"
    with somebody_inside(ctl, "demo") as pid:
        assert ctl.ok("which", str(pid)) == "demo\n"
        assert ctl.json("which", str(pid)) == {"name": "demo", "path": "/org/mountnsd1/namespace/demo"}
        assert ctl.ok("which", str(pid), uid=NOBODY) == "demo\n"
    for words in ([], [str(os.getpid())]):
        result = ctl("which", *words)
        assert (result.returncode, result.stdout) == (1, "")
        assert "is in none of the namespaces kept here" in result.stderr
    assert ctl("which", "-q").stderr == ""
    gone = ctl("which", str((1 << 22) - 1))
    assert (gone.returncode, gone.stdout) == (1, "")


def _itself(ctl: Ctl) -> list[str]:
    from support.ctl import PROGRAM

    assert ctl.environment
    return [*PROGRAM, "which"]


def test_trouble_is_not_taken_for_an_answer(ctl: Ctl, daemon: Daemon) -> None:
    """Of which and diff, 1 is an answer."""
    for words in (
        ["which", "x"],
        ["which", "1", "2"],
        ["diff"],
        ["diff", "nope"],
        ["diff", "demo", "nope"],
        ["diff", "demo", "--nonsense"],
        ["diff", "demo", "--kill"],
    ):
        result = ctl(*words)
        assert (result.returncode, result.stdout) == (2, ""), words
        assert result.stderr.startswith("mountnsctl: ")
    assert ctl("--nonsense", "diff", "demo").returncode == 1  # nothing of diff has been read
    daemon.kill(signal.SIGKILL)
    assert ctl("which").returncode == 2
    assert ctl("diff", "demo").returncode == 2
    assert ctl("list").returncode == 1


def test_output_that_cannot_be_written(ctl: Ctl) -> None:
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    for words, status in ((["list"], 1), (["diff", "demo", "-j"], 2), (["status"], 1)):
        with Path("/dev/full").open("w") as full:
            process = ctl.start(*words, stdout=full)
            _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == status
        assert err == "mountnsctl: Cannot read or write: No space left on device.\n"
    assert leaks.children(process.pid) == []
