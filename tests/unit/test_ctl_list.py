# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl list`: columns, filters, order, and the JSON shape."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakectl import OTHER, PATH, Fake

from mountnsd.ctl import values
from mountnsd.ctl.connection import MANAGER
from mountnsd.ctl.listing import ordered
from mountnsd.ctl.options import SORT_KEYS
from mountnsd.ctl.problem import Problem

REPOSITORY = Path(__file__).parents[2]
# What `list` can do without, besides what comes with these.
HEAVY = (
    "argparse",
    "asyncio",
    "ctypes",
    "dataclasses",
    "jeepney.io.asyncio",
    "jeepney.io.threading",
    "json",
    "locale",
    "logging",
    "mountnsd.ctl.bridge",
    "pathlib",
    "signal",
    "subprocess",
    "sysconfig",
    "tempfile",
    "threading",
    "tomllib",
    "unicodedata",
)
KEYS = st.sampled_from([*SORT_KEYS, *(f"-{key}" for key in SORT_KEYS)])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text("abc", min_size=1, max_size=3),
            "owner": st.integers(0, 3),
            "processes": st.integers(0, 3),
            "created_usec": st.integers(0, 3),
        }
    ),
    unique_by=lambda row: row["name"],
)


def _names(out: str) -> list[str]:
    return [item["name"] for item in json.loads(out)]


def test_table(ctl: Any) -> None:
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


def test_all_columns(ctl: Any, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000 + 3 * 3600)
    fake.objects[PATH]["Labels"] = {"b": "2", "a": "1"}
    fake.objects[PATH]["Description"] = "A try"
    assert ctl("list", "--full", "--no-legend")[1] == (
        "demo mnt:[4026532177] root       0 active 3h a=1,b=2 A try\n"
        "zz   mnt:[5]          4000000000 2 active -  -       -\n"
    )
    assert ctl("list", "-l")[1].split("\n")[0].split() == [
        "NAME", "INODE", "OWNER", "PROCESSES", "STATE", "AGE", "LABELS", "DESCRIPTION",
    ]  # fmt: skip


def test_nothing(ctl: Any, fake: Fake) -> None:
    fake.answers[MANAGER, "List"] = []
    fake.objects.clear()
    assert ctl("list")[1] == "No namespaces.\n"
    assert ctl("list", "--no-legend")[1] == ""
    assert ctl("list", "-j")[1] == "[]\n"


def test_json(ctl: Any) -> None:
    status, out, _ = ctl("list", "--json=short")
    assert status == 0
    assert out.count("\n") == 1
    first, second = json.loads(out)
    assert list(first)[:5] == ["name", "path", "inode", "owner", "processes"]
    assert list(first.values())[:5] == ["demo", PATH, 4026532177, 0, 0]
    assert list(second.values())[:5] == ["zz", OTHER, 5, 4_000_000_000, 2]
    assert first == json.loads(ctl("show", "demo", "-j")[1])[0] | {"processes": 0}
    assert out == ctl("list", "-j")[1]  # this is no terminal
    pretty = ctl("list", "--json=pretty")[1]
    assert pretty.count("\n") > 10
    assert json.loads(pretty) == json.loads(out)


def test_what_came_and_went_between_the_two_questions(ctl: Any, fake: Fake) -> None:
    del fake.objects[OTHER]  # it has gone
    fake.objects[PATH]["Inode"] = 6  # another one of its name
    fake.answers[MANAGER, "List"] = [("demo", PATH, 4026532177, 0, 3), ("zz", OTHER, 5, 0, 2)]
    (row,) = json.loads(ctl("list", "-j")[1])
    assert (row["name"], row["inode"], row["processes"]) == ("demo", 6, 0)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--label=a"], ["demo"]),
        (["--label=b=2", "--label=a"], ["demo"]),
        (["--label=b=3"], []),
        (["--label=b=2", "--label=b=3"], []),
        (["--label=b="], []),
        (["--label=c"], []),
        (["--owner=root"], ["demo"]),
        (["--owner=0"], ["demo"]),
        (["--owner=4000000000"], ["zz"]),
        (["--owner=0", "--label=c"], []),
    ],
)
def test_filters(ctl: Any, words: list[str], names: list[str]) -> None:
    assert _names(ctl("list", "-j", *words)[1]) == names
    assert [line.split()[0] for line in ctl("list", "--no-legend", *words)[1].splitlines()] == names


def test_a_user_who_does_not_exist(ctl: Any) -> None:
    with pytest.raises(Problem, match="no user 'no-such-user'"):
        ctl("list", "--owner=no-such-user")


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("name", ["demo", "zz"]),
        ("-name", ["zz", "demo"]),
        ("owner", ["zz", "demo"]),  # as it is shown: a number comes before a name
        ("processes", ["demo", "zz"]),
        ("-processes", ["zz", "demo"]),
        ("created", ["zz", "demo"]),
        ("-created", ["demo", "zz"]),
    ],
)
def test_order(ctl: Any, sort: str, names: list[str]) -> None:
    assert _names(ctl("list", "-j", f"--sort={sort}")[1]) == names
    assert [line.split()[0] for line in ctl("list", "--no-legend", "--sort", sort)[1].splitlines()] == names


@given(ROWS, st.lists(KEYS, min_size=1, max_size=4))
def test_an_order_is_that_of_all_its_keys(rows: list[dict[str, Any]], keys: list[str]) -> None:
    found = ordered(rows, ",".join(keys), str)
    assert sorted(map(str, found)) == sorted(map(str, rows))
    fields = {"created": "created_usec"}
    for before, after in itertools.pairwise(found):
        for key in (*keys, "name"):
            name = key.removeprefix("-")
            one, other = (row[fields.get(name, name)] for row in (before, after))
            if one != other:
                assert (one > other) == key.startswith("-")
                break


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1min"),
        (3599, "59min"),
        (3600, "1h"),
        (86399, "23h"),
        (86400 * 400, "400d"),
    ],
)
def test_age(monkeypatch: pytest.MonkeyPatch, seconds: int, shown: str) -> None:
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000 + seconds)
    assert values.age(2_000_000_000 * 10**6) == shown
    assert values.age(0) == ""  # not known
    assert values.age(9_000_000_000 * 10**6) == ""  # to come


def test_imports_little() -> None:
    """Half of the time that a list takes is that of its imports: without a bus they are the same."""
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); before = set(sys.modules)\n"
        "from mountnsd.ctl import main\n"
        "assert main.main(['list', '--no-pager']) == 1\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere/bus"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = result.stdout.split()
    assert "Is D-Bus running?" in result.stderr
    assert {"mountnsd.ctl.listing", "mountnsd.ctl.table", "jeepney.io.blocking"} <= set(imported)
    assert not set(HEAVY) & set(imported)
    assert len(imported) <= 80, imported
