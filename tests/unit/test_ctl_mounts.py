# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl mounts`, `mount`, `umount` and `diff`: trees, differences, and what is asked of the daemon."""

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakectl import EVIL, OTHER, PATH, Fake

from mountnsd.ctl import text, tree
from mountnsd.ctl.connection import NAMESPACE
from mountnsd.ctl.diff import differences
from mountnsd.ctl.problem import Problem
from mountnsd.ctl.table import Table
from mountnsd.mountinfo import Mount
from mountnsd.mounts import all_options, changes

SHOWN = r"evil\x1b[2J\x0aname"
SMALL = st.integers(0, 6)
ROWS = st.lists(st.tuples(SMALL, SMALL, st.integers()), max_size=12)
MOUNTS = st.lists(
    st.tuples(
        SMALL, SMALL, st.sampled_from(["0:1", "0:2"]), st.just("/"), st.sampled_from(["/", "/a", "/b"]),
        st.sampled_from(["ro", "rw"]), st.just("tmpfs"), st.text(max_size=2),
    ),
    max_size=6,
)  # fmt: skip


def _drawn(rows: list[tuple[int, int, str]]) -> list[str]:
    return [front + row[2] for front, row in tree.branches(rows, tree.LINES)]


# mounts: the tree


def test_tree() -> None:
    rows = [
        (10, 1, "/"),
        (11, 10, "/proc"),
        (12, 10, "/dev"),
        (13, 12, "/dev/pts"),
        (14, 11, "/proc/sys"),
        (15, 12, "/dev/shm"),
        (16, 10, "/mnt"),
    ]
    assert _drawn(rows) == [
        "/",
        "├─/proc",
        "│ └─/proc/sys",
        "├─/dev",
        "│ ├─/dev/pts",
        "│ └─/dev/shm",
        "└─/mnt",
    ]
    assert next(iter(tree.branches(rows[1:3], tree.ASCII)))[0] == ""


def test_mounts_over_each_other() -> None:
    assert _drawn([(1, 0, "/"), (2, 1, "/mnt"), (3, 2, "/mnt"), (4, 3, "/mnt")]) == [
        "/", "└─/mnt", "  └─/mnt", "    └─/mnt",
    ]  # fmt: skip


def test_what_is_not_a_tree() -> None:
    assert _drawn([(1, 1, "own parent"), (2, 3, "a"), (3, 2, "b")]) == ["own parent", "a", "└─b"]
    assert _drawn([(1, 0, "one"), (1, 0, "twice"), (2, 1, "child")]) == ["one", "└─child", "twice"]


def test_a_deep_tree_stays_narrow() -> None:
    drawn = _drawn([(number, number - 1, "/mnt") for number in range(1, 20_001)])
    assert len(drawn) == 20_000
    assert max(map(len, drawn)) < 100


@given(ROWS)
def test_each_row_is_drawn_once(rows: list[tuple[int, int, int]]) -> None:
    drawn = list(tree.branches(rows, tree.LINES))
    assert sorted(tuple(row) for _, row in drawn) == sorted(rows)
    assert all(set(front) <= set("├└│─ ") for front, _ in drawn)


@given(ROWS)
def test_a_child_is_below_its_parent(rows: list[tuple[int, int, int]]) -> None:
    above: list[Any] = []
    for front, row in tree.branches(rows, tree.LINES):
        depth = len(front) // 2
        del above[depth:]
        assert not depth or above[-1] == row[1]
        above.append(row[0])


def test_mounts(ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "has_lines", lambda _=1: True)
    assert ctl("mounts", "demo")[1] == (
        "TARGET                 SOURCE          FSTYPE OPTIONS\n"
        "/                      /dev/sda1       ext4   rw,relatime\n"
        f"└─/{SHOWN} /dev/sda1[/sub] ext4   ro\n"
        "\n"
        "2 mounts listed.\n"
    )
    monkeypatch.setattr(text, "has_lines", lambda _=1: False)
    assert f"\n`-/{SHOWN} /dev/sda1" in ctl("mounts", "demo")[1]
    assert ctl("mounts", "demo", "--list", "--no-legend")[1] == (
        f"/                    /dev/sda1       ext4 rw,relatime\n/{SHOWN} /dev/sda1[/sub] ext4 ro\n"
    )


def test_mounts_json(ctl: Any) -> None:
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


@pytest.mark.parametrize(
    ("environment", "has"),
    [
        ({}, True),
        ({"LANG": "en_US.UTF-8"}, True),
        ({"LANG": "C"}, False),
        ({"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, False),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),  # the interpreter's own
        ({"LC_CTYPE": "C", "LANG": "en_US.UTF-8"}, False),
        ({"LC_CTYPE": "C.UTF-8"}, True),
    ],
)
def test_where_a_tree_has_lines(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], has: bool
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", type("Stream", (), {"encoding": "utf-8"}))
    assert text.has_lines() == has
    monkeypatch.setattr("sys.stdout", type("Stream", (), {"encoding": "iso8859-1"}))
    assert not text.has_lines()


# mount, umount


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["tmpfs", "/mnt", "-t", "tmpfs"], ("tmpfs", "/mnt", "tmpfs", "")),
        (
            ["x", "/mnt", "-ttmpfs", "-o", "ro,size=1m", "-onosuid"],
            ("x", "/mnt", "tmpfs", "ro,size=1m,nosuid"),
        ),
        (["/etc", "/srv", "--bind"], ("/etc", "/srv", "", "bind")),
        (["/etc", "/srv", "--rbind", "--options=ro"], ("/etc", "/srv", "", "rbind,ro")),
        (["/etc", "/srv", "-o", "ro,bind"], ("/etc", "/srv", "", "ro,bind")),
        (["sub", "/srv", "--bind"], (f"{os.getcwd()}/sub", "/srv", "", "bind")),
        (["", "/srv", "--bind"], ("", "/srv", "", "bind")),
    ],
)
def test_mount(ctl: Any, fake: Fake, words: list[str], sent: tuple[str, ...]) -> None:
    assert ctl("mount", "demo", *words) == (0, "", "")
    assert fake.calls == [("Mount", "ssss", *sent)]
    what, where, fstype, options = sent
    assert json.loads(ctl("mount", "demo", *words, "-j")[1]) == {
        "name": "demo", "what": what, "where": where, "type": fstype, "options": options,
    }  # fmt: skip


def test_mount_of_what(ctl: Any, fake: Fake) -> None:
    with pytest.raises(Problem, match=r"-t TYPE.*--bind"):
        ctl("mount", "demo", "x", "/mnt", "-o", "binding")
    assert fake.calls == []


def test_umount(ctl: Any, fake: Fake) -> None:
    assert ctl("umount", "demo", "/mnt", "/srv") == (0, "", "")
    assert ctl("umount", "demo", "--lazy", "/mnt") == (0, "", "")
    assert fake.calls == [
        ("Unmount", "sa{sv}", "/mnt", {}),
        ("Unmount", "sa{sv}", "/srv", {}),
        ("Unmount", "sa{sv}", "/mnt", {"lazy": ("b", True)}),
    ]


def test_umount_goes_on_past_what_fails(ctl: Any, fake: Fake) -> None:
    status, out, err = ctl("umount", "demo", "/refused", "/mnt", "-j")
    assert (status, err) == (1, "mountnsctl: Cannot do it.\n")
    assert json.loads(out) == [{"name": "demo", "where": "/mnt"}]
    assert len(fake.calls) == 2


# diff


def test_diff_with_the_host(ctl: Any) -> None:
    status, out, err = ctl("diff", "demo")
    assert (status, err) == (1, "")
    assert out == (
        "--- host\n"
        "+++ namespace demo\n"
        "+ /mnt                 tmpfs           tmpfs rw,size=1024k\n"
        f"~ /{SHOWN} /dev/sda1[/sub] ext4  ro\n"
        "- /srv                 /dev/sdb        xfs   rw\n"
    )
    assert ctl("diff", "demo", "--no-legend")[1] == out.partition("demo\n")[2]
    assert json.loads(ctl("diff", "demo", "-j")[1])[0] == {
        "change": "added",
        "target": "/mnt",
        "fstype": "tmpfs",
        "source": "tmpfs",
        "root": "/",
        "options": "rw,size=1024k",
    }


def test_diff_of_the_same(ctl: Any, fake: Fake) -> None:
    fake.answers[NAMESPACE, "GetChanges"] = []
    assert ctl("diff", "demo") == (0, "", "")
    assert ctl("diff", "demo", "-j") == (0, "[]\n", "")
    assert ctl("diff", "demo", "zz") == (0, "", "")


def test_diff_with_another_one(ctl: Any, fake: Fake) -> None:
    """A plus is what the first has and the second has not, whichever that is."""
    (root, sub) = fake.answers[NAMESPACE, "GetMounts"]
    more = (5, 1, "0:9", "/", "/mnt", "rw", "tmpfs", "t")
    fake.answers[PATH, "GetMounts"] = [root, sub, more]
    fake.answers[OTHER, "GetMounts"] = [(9, 8, *root[2:5], "ro", *root[6:]), (7, 9, *sub[2:])]
    status, out, _ = ctl("diff", "demo", "zz")
    assert status == 1
    assert out == (
        "--- namespace zz\n"
        "+++ namespace demo\n"
        "~ /    /dev/sda1 ext4  rw,relatime\n"
        "+ /mnt t         tmpfs rw\n"
    )
    changed, removed = json.loads(ctl("diff", "zz", "demo", "-j")[1])
    assert (changed["change"], changed["options"]) == ("changed", "ro")
    assert (removed["change"], removed["target"]) == ("removed", "/mnt")


def test_colours_of_differences() -> None:
    table = Table(("A", "B"), "things")
    table.add("x", 1, colour=text.RED, front="- ")
    table.add("y", 2)
    assert table.render(False, True) == "\x1b[1;31m- x 1\x1b[0m\ny   2\n"
    assert table.render(False, False) == "- x 1\ny   2\n"


def _row(mount: Mount) -> tuple[Any, ...]:
    options = all_options(mount)
    return (
        mount.id, mount.parent, mount.device, mount.root, mount.target, options, mount.fstype, mount.source,
    )  # fmt: skip


def _mount(row: tuple[Any, ...]) -> Mount:
    number, parent, device, root, target, options, fstype, source = row
    return Mount(number, parent, device, root, target, options, (), fstype, source, "")


@given(MOUNTS, MOUNTS)
def test_namespaces_are_compared_as_the_daemon_compares_with_the_host(one: Any, other: Any) -> None:
    expected = changes(map(_mount, one), map(_mount, other), "/run/mountnsd/ns")
    found = differences(one, other)
    assert [(change[0], change[1:]) for change in found] == [
        (change.kind, (row[4], row[6], row[7], row[3], row[5]))
        for change in expected
        for row in (_row(change.mount),)
    ]


@given(MOUNTS)
def test_nothing_differs_from_itself(mounts: Any) -> None:
    assert differences(mounts, mounts) == []
    renumbered = [(number + 100, parent + 100, *rest) for number, parent, *rest in mounts]
    assert differences(mounts, renumbered) == []
