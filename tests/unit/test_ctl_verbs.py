# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl create` and `destroy`: what they ask of the daemon, and what they print."""

import json
from typing import Any

import pytest
from support.fakectl import PATH, Fake

from mountnsd.ctl import connection


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
