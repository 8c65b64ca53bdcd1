# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl mounts, mount, umount and diff, on the real daemon and kernel."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.ctl import TIMEOUT, Ctl, Terminal
from support.identity import NOBODY
from support.polkit import Polkit


@pytest.fixture
def still(ctl: Ctl) -> Ctl:
    """Besides `demo`, a namespace `still` that only we change."""
    ctl.still("still")
    return ctl


def _at(ctl: Ctl, name: str, target: str) -> list[dict[str, Any]]:
    """The mounts on a mount point in a namespace, the lowest first."""
    return [mount for mount in ctl.json("mounts", name) if mount["target"] == target]


def _changes(ctl: Ctl, *words: str) -> set[tuple[str, str]]:
    """What `diff` finds at the mount points that the tests use."""
    process = ctl.start("diff", *words, "-j")
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (0, 1), err
    found = {(row["change"], row["target"]) for row in json.loads(out)}
    return {(change, target) for change, target in found if target in ("/mnt", "/srv", "/media")}


# mounts


def test_a_tree_as_that_of_findmnt(still: Ctl) -> None:
    """The same mount points, each as deep.  findmnt sorts them by their ids, which the kernel uses again."""
    still.ok("mount", "still", "one", "/mnt", "-t", "tmpfs")
    still.ok("mount", "still", "two", "/mnt/a/b", "-t", "tmpfs", "-o", "X-mount.mkdir")
    still.ok("mount", "still", "over", "/mnt", "-t", "tmpfs")
    ours = still.ok("mounts", "still", "--no-legend").splitlines()
    theirs = still.ok(
        "exec", "still", "findmnt", "--noheadings", "--output=TARGET", env={"LC_ALL": "C.UTF-8"}
    )
    assert sorted(map(_depth, ours)) == sorted(map(_depth, theirs.splitlines()))


def _depth(line: str) -> tuple[int, str]:
    """How deep a mount point is drawn, and which it is."""
    match = re.match(r"([│ ├└─]*)(\S+)", line)
    assert match is not None
    return len(match[1]), match[2]


def test_depth_is_that_of_the_parents(ctl: Ctl) -> None:
    ctl.ok("mount", "demo", "one", "/mnt", "-t", "tmpfs")
    ctl.ok("mount", "demo", "two", "/mnt/a", "-t", "tmpfs", "-o", "X-mount.mkdir")
    mounts = {mount["id"]: mount for mount in ctl.json("mounts", "demo")}
    (two,) = [mount for mount in mounts.values() if mount["source"] == "two"]
    assert mounts[two["parent"]]["source"] == "one"
    depth = 0
    while two["parent"] in mounts:
        two, depth = mounts[two["parent"]], depth + 1
    (line,) = [line for line in ctl.ok("mounts", "demo").splitlines() if " two " in line]
    assert line.index("/mnt/a") == 2 * depth
    (line,) = [line for line in ctl.ok("mounts", "demo", env={"LC_ALL": "C"}).splitlines() if " two " in line]
    assert line[: 2 * depth].isascii()
    assert ctl.ok("mounts", "demo", "--list").splitlines()[-3].startswith("/mnt/a ")


# mount and umount


def test_a_filesystem(ctl: Ctl) -> None:
    ctl.ok("mount", "demo", "scratch", "/mnt", "-t", "tmpfs", "-o", "size=1m", "--options=nosuid,noexec")
    (mount,) = _at(ctl, "demo", "/mnt")
    assert (mount["source"], mount["fstype"]) == ("scratch", "tmpfs")
    assert {"size=1024k", "nosuid", "noexec"} <= set(mount["options"].split(","))
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if line.startswith("scratch ")]
    ctl.ok("umount", "demo", "/mnt")
    assert _at(ctl, "demo", "/mnt") == []


def test_a_directory_of_the_host(ctl: Ctl, directory: Path) -> None:
    (directory / "below").mkdir()
    (directory / "below" / "file").write_text("of the host")
    ctl.ok("mount", "demo", "below", "/mnt", "--bind", "-o", "ro", cwd=directory)
    assert ctl.ok("enter", "demo", "cat", "/mnt/file") == "of the host"
    assert ctl("exec", "demo", "touch", "/mnt/other").returncode == 1
    subprocess.run(["mount", "-t", "tmpfs", "t", str(directory / "below")], check=True)
    try:
        (directory / "below" / "deep").touch()
        ctl.ok("mount", "demo", str(directory), "/srv", "--rbind")
        assert ctl.ok("enter", "demo", "ls", "/srv/below") == "deep\n"
        ctl.ok("mount", "demo", str(directory), "/media", "-o", "bind")
        assert ctl.ok("enter", "demo", "ls", "/media/below") == "file\n"
    finally:
        subprocess.run(["umount", str(directory / "below")], check=True)


def test_what_is_in_use(ctl: Ctl) -> None:
    ctl.ok("mount", "demo", "scratch", "/mnt", "-t", "tmpfs")
    process = ctl.start("enter", "demo", "--chdir=/mnt", "sh", "-c", "echo ready; read x")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    busy = ctl("umount", "demo", "/mnt")
    assert (busy.returncode, busy.stdout) == (1, "")
    assert "lazy" in busy.stderr
    ctl.ok("umount", "demo", "/mnt", "--lazy")
    assert _at(ctl, "demo", "/mnt") == []
    process.communicate("x\n", TIMEOUT)


def test_what_cannot_be_done_is_said(ctl: Ctl) -> None:
    for words, said in (
        (["mount", "demo", "x", "/mnt"], "-t TYPE"),
        (["mount", "demo", "x", "/mnt", "-t", "nonsense"], "/proc/filesystems"),
        (["mount", "demo", "x", "/no/such/place", "-t", "tmpfs"], "X-mount.mkdir"),
        (["mount", "demo", "/no/such/place", "/mnt", "--bind"], "looked up in the host"),
        (["mount", "demo", "x", "mnt", "-t", "tmpfs"], "absolute path inside"),
        (["mount", "nope", "x", "/mnt", "-t", "tmpfs"], "no namespace 'nope'"),
        (["umount", "demo", "/mnt"], "Nothing is mounted there"),
        (["umount", "demo", "/"], "neither mounted over nor unmounted"),
    ):
        result = ctl(*words)
        assert (result.returncode, result.stdout) == (1, ""), words
        assert result.stderr.startswith("mountnsctl: ")
        assert said in result.stderr, words
    ctl.ok("mount", "demo", "scratch", "/mnt", "-t", "tmpfs")
    result = ctl("umount", "demo", "/srv", "/mnt")
    assert result.returncode == 1
    assert _at(ctl, "demo", "/mnt") == []  # it went on


def test_who_may(ctl: Ctl, polkit: Polkit) -> None:
    polkit.allow("org.mountnsd1.list")
    words = ["demo", "scratch", "/mnt", "-t", "tmpfs"]
    refused = ctl("mount", *words, uid=NOBODY)
    assert (refused.returncode, refused.stdout) == (1, "")
    polkit.challenge("org.mountnsd1.mount", NOBODY)
    refused = ctl("mount", *words, "--no-ask-password", uid=NOBODY)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--no-ask-password" in refused.stderr
    assert _at(ctl, "demo", "/mnt") == []
    ctl.ok("mount", *words, uid=NOBODY)
    assert polkit.questions()[-1].action == "org.mountnsd1.mount"
    ctl.ok("umount", "demo", "/mnt", uid=NOBODY)
    assert _at(ctl, "demo", "/mnt") == []


# diff


def test_diff_with_the_host(ctl: Ctl) -> None:
    assert _changes(ctl, "demo") == set()
    ctl.ok("mount", "demo", "scratch", "/mnt", "-t", "tmpfs")
    assert _changes(ctl, "demo") == {("added", "/mnt")}
    result = ctl("diff", "demo")
    assert result.returncode == 1
    assert result.stdout.startswith("--- host\n+++ namespace demo\n")
    assert re.search(r"^\+ /mnt +scratch +tmpfs +rw", result.stdout, re.MULTILINE)


def test_diff_with_another_one(still: Ctl, polkit: Polkit) -> None:
    polkit.allow("org.mountnsd1.list")
    still.ok("mount", "still", "same", "/srv", "-t", "tmpfs")
    still.ok("create", "other", "--from=still", "--propagation=private")
    assert still.ok("diff", "still", "other") == ""
    assert still.ok("diff", "still", "other", uid=NOBODY) == ""
    assert still.ok("diff", "still", "still") == ""
    assert still.json("diff", "still", "other") == []
    still.ok("mount", "still", "scratch", "/mnt", "-t", "tmpfs")
    still.ok("mount", "other", "scratch", "/media", "-t", "tmpfs")
    still.ok("exec", "other", "mount", "-o", "remount,ro", "/srv")
    assert _changes(still, "still", "other") == {
        ("added", "/mnt"),
        ("removed", "/media"),
        ("changed", "/srv"),
    }
    assert _changes(still, "other", "still") == {
        ("removed", "/mnt"),
        ("added", "/media"),
        ("changed", "/srv"),
    }
    result = still("diff", "other", "still", uid=NOBODY)
    assert result.returncode == 1
    assert [line[0] for line in result.stdout.splitlines()[2:]] == ["+", "-", "~"]
    assert " ro" in result.stdout.splitlines()[-1]


def test_the_same_rule_for_both(ctl: Ctl) -> None:
    """A namespace that is as the host is to another one what the other one is to the host."""
    ctl.ok("create", "other")
    ctl.ok("mount", "other", "one", "/mnt", "-t", "tmpfs")
    ctl.ok("mount", "other", "two", "/mnt", "-t", "tmpfs")
    assert _changes(ctl, "other", "demo") == _changes(ctl, "other")


def test_colours_of_differences(still: Ctl) -> None:
    still.ok("create", "other", "--from=still", "--propagation=private")
    still.ok("mount", "other", "scratch", "/mnt", "-t", "tmpfs")
    with Terminal(still, "diff", "still", "other", "--no-pager") as terminal:
        assert terminal.end() == 1
        assert terminal.seen.startswith(
            "\x1b[1m--- namespace other\x1b[0m\r\n\x1b[1m+++ namespace still\x1b[0m\r\n"
        )
        assert "\x1b[1;31m- /mnt scratch tmpfs" in terminal.seen
    with Terminal(still, "diff", "other", "still", "--no-pager", env={"NO_COLOR": "1"}) as terminal:
        assert terminal.end() == 1
        assert "\r\n+ /mnt scratch tmpfs" in terminal.seen
