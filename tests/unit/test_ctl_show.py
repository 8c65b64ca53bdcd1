# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl show` for programs and `status` for people."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakectl import CHANGES, EVIL, PATH, Fake

from mountnsd.ctl import journal, status
from mountnsd.ctl.connection import MANAGER, NAMESPACE, CallProblem
from mountnsd.ctl.problem import Problem
from mountnsd.ctl.properties import lines

SHOWN = r"evil\x1b[2J\x0aname"
OBJECT = {
    "name": "demo",
    "path": PATH,
    "pin": "/run/mountnsd/ns/demo",
    "inode": 4026532177,
    "namespace_id": 77,
    "owner": 0,
    "created_usec": 1_700_000_000_000_000,
    "propagation": "slave",
    "description": f"A {EVIL}",
    "labels": {"b": "2", "a": EVIL},
    "state": "active",
    "processes": 2,
}


# show


def test_show(ctl: Any) -> None:
    status_, out, err = ctl("show", "demo")
    assert (status_, err) == (0, "")
    assert out == (
        "Name=demo\n"
        "Path=/run/mountnsd/ns/demo\n"
        "Inode=4026532177\n"
        "NamespaceID=77\n"
        "OwnerUID=0\n"
        "CreatedUSec=1700000000000000\n"
        "Propagation=slave\n"
        f"Description=A {SHOWN}\n"
        f"Labels=a={SHOWN} b=2\n"
        "State=active\n"
        "Processes=2\n"
    )
    assert "\n\nName=zz\n" in ctl("show", "demo", "zz")[1]


def test_show_what_is_wanted(ctl: Any) -> None:
    assert ctl("show", "demo", "-p", "State,Name", "-pInode")[1] == (
        "State=active\nName=demo\nInode=4026532177\n"
    )
    assert ctl("show", "demo", "zz", "--property=Inode", "--value")[1] == "4026532177\n\n5\n"
    assert json.loads(ctl("show", "demo", "-pPath,Processes,CreatedUSec", "-j")[1]) == [
        {"pin": "/run/mountnsd/ns/demo", "processes": 2, "created_usec": 1_700_000_000_000_000}
    ]


def test_show_what_there_is_not(ctl: Any) -> None:
    for more in ([], ["-j"], ["--value"]):
        status_, out, err = ctl("show", "demo", "-p", "State,Nothing", *more)
        assert (status_, out.strip("[]\n")) == (1, "")
        assert err.startswith("mountnsctl: There is no property 'Nothing'; there are Name, Path,")


def test_show_json(ctl: Any) -> None:
    status_, out, _ = ctl("show", "demo", "--json=short")
    assert status_ == 0
    assert out.isascii()
    assert json.loads(out) == [OBJECT]


def test_show_goes_on_past_what_fails(ctl: Any) -> None:
    status_, out, err = ctl("show", "nope", "demo", "--json=short")
    assert status_ == 1
    assert [item["name"] for item in json.loads(out)] == ["demo"]
    assert err == "mountnsctl: There is no namespace 'nope'.\n"
    assert ctl("show", "nope")[1] == ""


@given(st.dictionaries(st.text(min_size=1), st.text()), st.text())
def test_what_is_shown_can_be_read_back(labels: dict[str, str], description: str) -> None:
    shown = lines({"Labels": labels, "Description": description}, [], False)
    first, second, end = shown.split("\n")
    assert end == ""
    assert (first + second).isprintable()
    words = first.removeprefix("Labels=").split(" ") if labels else []
    assert len(words) == len(labels)
    assert second.startswith("Description=")


# status


def test_status(ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    status_, out, err = ctl("status", "demo")
    assert (status_, err) == (0, "")
    assert out.startswith(f"demo - A {SHOWN}\n")
    for line in (
        "State: active",
        "Inode: mnt:[4026532177]",
        "Namespace ID: 77",
        "Pin: /run/mountnsd/ns/demo",
        "Owner: root (0)",
        "Created: Tue 2023-11-14 22:13:20 UTC; ",
        "Propagation: slave",
        f"Labels: a={SHOWN}",
        " b=2\n",
        "Processes: 2\n",
        " 4 root - sleep\n",
        f" 31 root - {SHOWN}\n",
        "Mounts: 3 differ from the host's\n",
        " + /mnt ",
        f" ~ /{SHOWN} /dev/sda1[/sub] ext4\n",
        " - /srv ",
    ):
        assert f" {line}" in out
    assert len({line.index(": ") for line in out.splitlines() if ": " in line}) == 1
    assert "Unit:" not in out  # without systemd


def test_status_of_all(ctl: Any, fake: Fake) -> None:
    out = ctl("status")[1]
    assert out.startswith("demo - ")
    assert " Owner: 4000000000\n" in out  # who has no name
    assert "\n\nzz\n" in out
    fake.answers[MANAGER, "List"] = []
    assert ctl("status") == (0, "No namespaces.\n", "")
    assert ctl("status", "--no-legend") == (0, "", "")
    assert ctl("status", "-j") == (0, "[]\n", "")


def test_status_is_short_unless_full(ctl: Any, fake: Fake) -> None:
    fake.answers[NAMESPACE, "GetProcesses"] = [(pid, 0, "sleep") for pid in range(100, 150)]
    fake.answers[NAMESPACE, "GetChanges"] = [CHANGES[0]] * 11
    short = ctl("status", "demo")[1]
    assert short.count(" sleep\n") == 10
    assert "and 40 more: 'mountnsctl pids demo' shows all\n" in short
    assert short.count(" + /mnt ") == 10
    assert "and 1 more: 'mountnsctl diff demo' shows all\n" in short
    assert "size=1024k" not in short
    full = ctl("status", "demo", "--full")[1]
    assert (full.count(" sleep\n"), full.count("size=1024k"), full.count("more:")) == (50, 11, 0)


def test_status_as_on_the_host(ctl: Any, fake: Fake) -> None:
    fake.answers[NAMESPACE, "GetChanges"] = []
    fake.answers[NAMESPACE, "GetProcesses"] = []
    out = ctl("status", "demo")[1]
    assert "Mounts: as on the host\n" in out
    assert "Processes: 0\n" in out
    fake.answers[NAMESPACE, "GetChanges"] = [CHANGES[0]]
    assert "Mounts: 1 differs from the host's\n" in ctl("status", "demo")[1]


def test_status_of_a_stale_one(ctl: Any, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be known is shown, and what cannot is said."""
    fake.objects[PATH]["State"] = "stale"
    ask = fake.ask

    def refuse(path: str, interface: str, member: str, *more: Any) -> Any:
        if member == "GetChanges":
            raise CallProblem("org.mountnsd1.Error.NamespaceStale", "Its pin is covered.")
        return ask(path, interface, member, *more)

    monkeypatch.setattr(fake, "ask", refuse)
    status_, out, err = ctl("status", "demo")
    assert (status_, err) == (1, "mountnsctl: Its pin is covered.\n")
    assert "State: stale\n" in out
    assert "Mounts:" not in out
    (found,) = json.loads(ctl("status", "demo", "-j")[1])
    assert found["changes"] is None


class Manager:
    """A systemd that knows the unit of `demo`."""

    def unit(self, name: str) -> dict[str, Any]:
        if name == "mountns-demo.slice":
            raise Problem("It does not say.")
        assert name == "mountns@demo.service"
        return {"ActiveState": "active", "SubState": "exited", "UnitFileState": EVIL}

    def __exit__(self, *_: object) -> None:
        pass


def test_status_with_systemd_and_a_log(ctl: Any, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.local = True
    monkeypatch.setattr(status, "Systemd", Manager)
    asked = []

    def lines_of(name: str, number: int) -> list[str]:
        asked.append((name, number))
        return ["first", EVIL][:number]

    monkeypatch.setattr(journal, "lines", lines_of)
    out = ctl("status", "demo")[1]
    assert f"Unit: mountns@demo.service: active (exited), {SHOWN}\n" in out
    assert "Slice:" not in out
    assert out.endswith(f"\n\nfirst\n{SHOWN}\n")
    assert not ctl("status", "demo", "--lines=0")[1].endswith(f"{SHOWN}\n\n")
    ctl("status", "demo", "-n3")
    assert asked == [("demo", 10), ("demo", 0), ("demo", 3)]
    (found,) = json.loads(ctl("status", "demo", "-j")[1])
    assert found == {
        **OBJECT,
        "inside": [
            {"pid": 4, "uid": 0, "comm": "sleep", "unit": found["inside"][0]["unit"]},
            {"pid": 31, "uid": 0, "comm": EVIL, "unit": found["inside"][1]["unit"]},
        ],
        "changes": [
            dict(zip(("change", "target", "fstype", "source", "root", "options"), change, strict=True))
            for change in CHANGES
        ],
        "unit": {"name": "mountns@demo.service", "active": "active", "sub": "exited", "enabled": EVIL},
        "slice": None,
        "log": ["first", EVIL],
    }


def test_status_without_systemd(ctl: Any, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.local = True

    def none() -> None:
        raise Problem("There is no bus.")

    monkeypatch.setattr(status, "Systemd", none)
    monkeypatch.setattr(journal, "lines", lambda _name, _number: [])
    out = ctl("status", "demo")[1]
    assert "Unit:" not in out
    assert not out.endswith("\n\n")


@pytest.mark.parametrize("usec", [1, 10**6, 2**63, 2**64 - 1])
def test_any_time_can_be_shown(ctl: Any, fake: Fake, usec: int) -> None:
    fake.objects[PATH]["CreatedUSec"] = usec
    assert " Created: " in ctl("status", "demo")[1]
