# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the verbs ask of the daemon and what they print: tables, the stable JSON shapes, and notes."""

import json
from typing import Any

import pytest

from mountnsd.ctl import connection, verbs
from mountnsd.ctl.connection import MANAGER, NAMESPACE
from mountnsd.ctl.options import parse

EVIL = "evil\x1b[2J\nname"
PATH = "/org/mountnsd1/namespace/demo"
PROPERTIES = {
    "Name": "demo",
    "Path": "/run/mountnsd/ns/demo",
    "Inode": 4026532177,
    "NamespaceID": 77,
    "OwnerUID": 0,
    "CreatedUSec": 1_700_000_000_000_000,
    "Propagation": "slave",
    "Description": f"A {EVIL}",
    "Labels": {"b": "2", "a": EVIL},
    "State": "active",
}


class Fake:
    """A daemon that has the namespace `demo` only; remembers the calls that change something."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[tuple[str, str], Any] = {
            (MANAGER, "List"): [("zz", PATH + "z", 5, 4_000_000_000, 2), ("demo", PATH, 4026532177, 0, 0)],
            (NAMESPACE, "GetProcesses"): [(31, 0, EVIL), (4, 0, "sleep")],
            (NAMESPACE, "GetMounts"): [
                (1, 0, "8:1", "/", "/", "rw,relatime", "ext4", "/dev/sda1"),
                (2, 1, "8:1", "/sub", f"/{EVIL}", "ro", "ext4", "/dev/sda1"),
            ],
        }

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, path: str, interface: str, member: str) -> tuple[Any]:
        assert path in (PATH, connection.PATH)
        return (self.answers[interface, member],)

    def namespace(self, name: str) -> str:
        if name != "demo":
            raise connection.CallProblem(
                "org.mountnsd1.Error.NoSuchNamespace", f"There is no namespace '{name}'."
            )
        return PATH

    def properties(self, path: str) -> dict[str, Any]:
        assert path == PATH
        return dict(PROPERTIES)

    def manager(self, member: str, signature: str, body: tuple[Any, ...]) -> tuple[Any]:
        self.calls.append((member, signature, *body))
        if member == "Create":
            return (PATH,)
        self.namespace(body[0])
        return ([9, 4],)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    daemon = Fake()
    monkeypatch.setattr(verbs, "Connection", lambda *_: daemon)
    return daemon


@pytest.fixture
def ctl(fake: Fake, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command line; returns exit status, output and standard error."""
    assert fake

    def run(*words: str) -> tuple[int, str, str]:
        status = verbs.run(parse(list(words)))
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run


def test_list(ctl: Any) -> None:
    status, out, err = ctl("list")
    assert (status, err) == (0, "")
    assert out == (
        "NAME INODE            OWNER      PROCESSES\n"
        "demo mnt:[4026532177] root               0\n"
        "zz   mnt:[5]          4000000000         2\n"
        "\n"
        "2 namespaces listed.\n"
    )
    assert ctl("list", "--no-legend")[1] == (
        "demo mnt:[4026532177] root       0\nzz   mnt:[5]          4000000000 2\n"
    )


def test_list_of_nothing(ctl: Any, fake: Fake) -> None:
    fake.answers[MANAGER, "List"] = []
    assert ctl("list")[1] == "No namespaces.\n"
    assert ctl("list", "--no-legend")[1] == ""
    assert ctl("list", "-j")[1] == "[]\n"


def test_list_json(ctl: Any) -> None:
    status, out, _ = ctl("list", "--json=short")
    assert status == 0
    assert out.count("\n") == 1
    assert json.loads(out) == [
        {"name": "demo", "path": PATH, "inode": 4026532177, "owner": 0, "processes": 0},
        {"name": "zz", "path": PATH + "z", "inode": 5, "owner": 4_000_000_000, "processes": 2},
    ]
    assert out == ctl("list", "-j")[1]  # this is no terminal
    pretty = ctl("list", "--json=pretty")[1]
    assert pretty.count("\n") > 10
    assert json.loads(pretty) == json.loads(out)


def test_show(ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    status, out, _ = ctl("show", "demo")
    assert status == 0
    assert out.startswith("demo - A evil\\x1b[2J\\x0aname\n")
    for line in (
        "State: active",
        "Inode: mnt:[4026532177]",
        "Namespace ID: 77",
        "Pin: /run/mountnsd/ns/demo",
        "Owner: root (0)",
        "Created: Tue 2023-11-14 22:13:20 UTC; ",
        "Propagation: slave",
        "Labels: a=evil\\x1b[2J\\x0aname",
        "b=2",
        "Processes: 2",
        "4 sleep",
        "31 evil\\x1b[2J\\x0aname",
    ):
        assert f" {line}" in out
    assert len({line.index(": ") for line in out.splitlines() if ": " in line}) == 1


def test_show_json(ctl: Any) -> None:
    status, out, _ = ctl("show", "demo", "--json=short")
    assert status == 0
    assert out.isascii()
    assert json.loads(out) == [
        {
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
    ]


def test_show_goes_on_past_what_fails(ctl: Any) -> None:
    status, out, err = ctl("show", "nope", "demo", "--json=short")
    assert status == 1
    assert [item["name"] for item in json.loads(out)] == ["demo"]
    assert err == "mountnsctl: There is no namespace 'nope'.\n"
    assert ctl("show", "nope")[1] == ""


def test_create(ctl: Any, fake: Fake) -> None:
    assert ctl("create", "demo") == (0, "", "")
    words = ["--propagation=private", "--description=", "--label=a=b", "--label=c=", "--from=x"]
    assert ctl("create", "demo", *words, "--if-not-exists") == (0, "", "")
    assert fake.calls == [
        ("Create", "sa{sv}", "demo", {}),
        (
            "Create",
            "sa{sv}",
            "demo",
            {
                "propagation": ("s", "private"),
                "description": ("s", ""),
                "from": ("s", "x"),
                "labels": ("a{ss}", {"a": "b", "c": ""}),
                "if_not_exists": ("b", True),
            },
        ),
    ]
    assert json.loads(ctl("create", "demo", "-j")[1]) == {"name": "demo", "path": PATH}


def test_destroy(ctl: Any, fake: Fake) -> None:
    status, out, err = ctl("destroy", "nope", "demo", "--kill")
    assert (status, out) == (1, "")
    assert err == "mountnsctl: There is no namespace 'nope'.\n"
    assert [call[-1] for call in fake.calls] == [{"kill": ("b", True)}] * 2
    assert json.loads(ctl("destroy", "demo", "-j")[1]) == [{"name": "demo", "pids": [4, 9]}]


def test_destroy_of_what_need_not_exist(ctl: Any, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ctl("destroy", "nope", "demo", "--if-exists") == (0, "", "")
    assert [call[1:3] for call in fake.calls] == [("sa{sv}", "nope"), ("sa{sv}", "demo")]
    assert json.loads(ctl("destroy", "nope", "--if-exists", "-j")[1]) == []
    said = connection.CallProblem("org.mountnsd1.Error.NamespaceBusy", "Somebody is inside.")
    monkeypatch.setattr(fake, "namespace", lambda _: (_ for _ in ()).throw(said))
    assert ctl("destroy", "demo", "--if-exists") == (1, "", "mountnsctl: Somebody is inside.\n")


def test_lazy_destroy_says_who_stays(ctl: Any) -> None:
    status, out, err = ctl("destroy", "demo", "--lazy")
    assert (status, out) == (0, "")
    assert err.endswith(": 4 9.\n")
    assert ctl("destroy", "demo", "--lazy", "-q") == (0, "", "")


def test_pids(ctl: Any) -> None:
    assert ctl("pids", "demo")[1] == (
        "PID USER COMMAND\n  4 root sleep\n 31 root evil\\x1b[2J\\x0aname\n\n2 processes listed.\n"
    )
    assert json.loads(ctl("pids", "demo", "-j")[1]) == [
        {"pid": 4, "uid": 0, "comm": "sleep"},
        {"pid": 31, "uid": 0, "comm": EVIL},
    ]


def test_mounts(ctl: Any) -> None:
    assert ctl("mounts", "demo")[1] == (
        "TARGET               SOURCE          FSTYPE OPTIONS\n"
        "/                    /dev/sda1       ext4   rw,relatime\n"
        "/evil\\x1b[2J\\x0aname /dev/sda1[/sub] ext4   ro\n"
        "\n"
        "2 mounts listed.\n"
    )
    assert json.loads(ctl("mounts", "demo", "-j")[1])[1] == {
        "id": 2,
        "parent": 1,
        "device": "8:1",
        "root": "/sub",
        "target": f"/{EVIL}",
        "options": "ro",
        "fstype": "ext4",
        "source": "/dev/sda1",
    }


@pytest.mark.parametrize("usec", [1, 10**6, 2**63, 2**64 - 1])
def test_any_time_can_be_shown(ctl: Any, monkeypatch: pytest.MonkeyPatch, usec: int) -> None:
    monkeypatch.setitem(PROPERTIES, "CreatedUSec", usec)
    assert " Created: " in ctl("show", "demo")[1]
