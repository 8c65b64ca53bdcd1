# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl pids`, `which` and `busy`: processes, their units, and what keeps a namespace."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakectl import EVIL, PATH, Fake

from mountnsd.ctl import busy, proc
from mountnsd.ctl.connection import CallProblem
from mountnsd.ctl.holders import Search
from mountnsd.ctl.problem import Problem

SHOWN = r"evil\x1b[2J\x0aname"


# pids


def test_pids(ctl: Any) -> None:
    assert ctl("pids", "demo")[1] == (
        f"PID USER UNIT COMMAND\n  4 root -    sleep\n 31 root -    {SHOWN}\n\n2 processes listed.\n"
    )
    assert json.loads(ctl("pids", "demo", "-j")[1]) == [
        {"pid": 4, "uid": 0, "comm": "sleep", "unit": ""},
        {"pid": 31, "uid": 0, "comm": EVIL, "unit": ""},
    ]


def test_units_are_those_of_this_host(ctl: Any, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "unit_of", lambda pid: f"{pid}.service")
    assert ctl("pids", "demo", "--no-legend")[1].split()[2] == "-"
    fake.local = True
    assert ctl("pids", "demo", "--no-legend")[1].split()[2] == "4.service"


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/cron.service\n", "cron.service"),
        (
            "0::/mountns.slice/mountns-a\\x2db.slice/mountns-a\\x2db-0f.service\n",
            "mountns-a\\x2db-0f.service",
        ),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", "user@1000.service"),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", "session-2.scope"),
        ("0::/system.slice/cron.service/below/it\n", "cron.service"),
        ("0::/init.scope\n", "init.scope"),
        ("0::/system.slice/_cpu.service\n", "cpu.service"),
        ("0::/a.slice/a-b.slice\n", "a-b.slice"),
        ("12:cpu:/x\n1:name=systemd:/system.slice/cron.service\n0::/\n", "cron.service"),
        ("3:cpu:/system.slice/other.service\n0::/system.slice/cron.service\n", "cron.service"),
        ("1:name=systemd:/\n0::/system.slice/cron.service\n", "cron.service"),
        ("1:name=systemd:/outer.scope\n0::/system.slice/cron.service\n", "cron.service"),
        ("0::/docker/0123\n", ""),
        ("0::/../../up.service\n", ""),
        ("0::/\n", ""),
        ("", ""),
        ("nonsense\n", ""),
    ],
)
def test_unit_of_a_control_group(cgroups: str, unit: str) -> None:
    assert proc.unit_in(cgroups) == unit


@given(st.text())
def test_any_control_group_can_be_read(cgroups: str) -> None:
    assert isinstance(proc.unit_in(cgroups), str)


def test_unit_of_nobody() -> None:
    assert proc.unit_of(1 << 30) == ""


# which


def test_which(ctl: Any) -> None:
    assert ctl("which") == (0, "demo\n", "")
    assert ctl("which", "31") == (0, "demo\n", "")
    assert json.loads(ctl("which", "31", "-j")[1]) == {"name": "demo", "path": PATH}


def test_which_is_in_none(ctl: Any, fake: Fake) -> None:
    fake.refused = CallProblem("org.mountnsd1.Error.NoNamespaceForPID", "It is in none.")
    assert ctl("which") == (1, "", "It is in none.\n")
    assert ctl("which", "-q") == (1, "", "")
    assert ctl("which", "-qj") == (1, "null\n", "")
    fake.refused = CallProblem("org.freedesktop.DBus.Error.AccessDenied", "You may not.")
    with pytest.raises(Problem, match="You may not"):
        ctl("which")


@pytest.mark.parametrize("word", ["0", "-1", "x", "", "1.5", "+1", "2147483648", "9" * 30, "٣"])
def test_what_is_no_pid(ctl: Any, word: str) -> None:
    with pytest.raises(Problem, match="is no process id"):
        ctl("which", "--", word)


# busy


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    """A search that finds one holder of each kind."""
    fake.local = True

    def run(self: Search) -> None:
        self.add("descriptor", 40, 4_000_000_000, EVIL, "x.service", fd=7)
        self.add("thread", 5, 0, "python3", "", thread=6)
        self.add("mount", 1, 0, "systemd", "init.scope", path=f"/{EVIL}")
        self.complete = os.geteuid() == 0

    monkeypatch.setattr(Search, "run", run)
    monkeypatch.setattr(proc, "unit_of", lambda _: "")


@pytest.mark.usefixtures("found")
def test_busy(ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    status, out, err = ctl("busy", "demo", "--no-legend")
    assert (status, err) == (0, "")
    lines = [line.split(maxsplit=3) for line in out.splitlines()]
    assert [line[0] for line in lines] == ["1", "4", "5", "31", "40"]
    assert [line[1] for line in lines] == ["root"] * 4 + ["4000000000"]
    assert [" ".join(line[3].split()) for line in lines] == [
        f"systemd a mount that it sees on /{SHOWN}",
        "sleep being inside",
        "python3 its thread 6 inside",
        f"{SHOWN} being inside",
        f"{SHOWN} descriptor 7",
    ]


@pytest.mark.usefixtures("found")
def test_busy_json(ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, out, err = ctl("busy", "demo", "-j")
    assert (status, err) == (0, busy._USER + "\n")
    said = json.loads(out)
    assert {key: said[key] for key in said if key != "holders"} == {
        "name": "demo", "inode": 4026532177, "complete": False,
    }  # fmt: skip
    first, second, third, _, last = said["holders"]
    none = {"thread": None, "fd": None, "path": None}
    assert first == {
        **none, "kind": "mount", "pid": 1, "uid": 0, "comm": "systemd", "unit": "init.scope", "path": f"/{EVIL}",
    }  # fmt: skip
    assert second == {**none, "kind": "process", "pid": 4, "uid": 0, "comm": "sleep", "unit": ""}
    assert (third["kind"], third["thread"]) == ("thread", 6)
    assert (last["kind"], last["fd"]) == ("descriptor", 7)


def test_busy_elsewhere_is_what_the_daemon_says(ctl: Any) -> None:
    status, out, err = ctl("busy", "demo")
    assert (status, err) == (0, busy._REMOTE + "\n")
    assert out.endswith("\n\n2 holders listed.\n")
    assert ctl("busy", "demo", "-q")[2] == ""


def test_a_search_that_may_not_look_everywhere_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(proc, "pids", lambda: iter([os.getpid()]))
    search = Search(1, "/nowhere")
    search.run()
    assert search.complete
    assert search.found == []

    def refuse(self: Search, pid: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Search, "_look", refuse)
    search.run()
    assert not search.complete
