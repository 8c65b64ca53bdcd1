# SPDX-License-Identifier: LGPL-2.1-or-later
"""A user whom polkit lets mount: what he gets done as root, and whether polkit was shown it."""

from pathlib import Path

import pytest
from support.client import Client
from support.contract import INVALID, action, create, mounted_at_mnt, on, refused
from support.daemon import Daemon
from support.polkit import Polkit


@pytest.fixture
def allowed(daemon: Daemon, polkit: Polkit, root: Client, user: Client) -> Client:
    """The user, with the namespace x."""
    create(root, "x")
    polkit.allow(action("mount"), user.uid)
    return user


@pytest.mark.parametrize("mode", ["0777", "1777", "0775"])
def test_no_directory_is_made_for_others_to_write_to(
    allowed: Client, root: Client, directory: Path, polkit: Polkit, mode: str
) -> None:
    place = directory / "hosts"
    place.mkdir()
    options = f"X-mount.mkdir={mode}"
    error = refused(on, allowed, "x", "Mount", "ssss", "t", str(place / "his"), "tmpfs", options)
    assert (error.name, mode in error.message) == (INVALID, True)
    on(root, "x", "Mount", "ssss", "t", str(place / "roots"), "tmpfs", options)
    assert [entry.name for entry in place.iterdir()] == ["roots"]
    assert polkit.questions() == []
    on(allowed, "x", "Mount", "ssss", "t", str(place / "his"), "tmpfs", "X-mount.mkdir,mode=1777")
    assert (place / "his").stat().st_mode & 0o7777 == 0o755


LONG = "x" * 1025


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((LONG, "/mnt", "tmpfs", ""), "what"),
        (("t", "/mnt/" + LONG, "tmpfs", "X-mount.mkdir"), "where"),
        (("t", "/mnt", "tmpfs", "defaults," * 114 + "ro"), "options"),
    ],
)
def test_nothing_is_done_that_polkit_is_not_shown(
    allowed: Client, polkit: Polkit, arguments: tuple[str, ...], named: str
) -> None:
    error = refused(on, allowed, "x", "Mount", "ssss", *arguments)
    assert (error.name, f"'{named}' takes at most 1024" in error.message) == (INVALID, True)
    assert polkit.questions() == []


def test_nor_unmounted(allowed: Client, polkit: Polkit) -> None:
    error = refused(on, allowed, "x", "Unmount", "sa{sv}", "/mnt/" + LONG, {})
    assert (error.name, "'where' takes at most 1024" in error.message) == (INVALID, True)
    assert polkit.questions() == []


@pytest.mark.usefixtures("allowed")
def test_root_may_say_more(root: Client) -> None:
    on(root, "x", "Mount", "ssss", LONG, "/mnt", "tmpfs", "defaults," * 114)
    assert mounted_at_mnt(root, "x") == 1


def test_the_source_is_said_once(allowed: Client, root: Client) -> None:
    for client in (allowed, root):
        error = refused(on, client, "x", "Mount", "ssss", "", "/mnt", "tmpfs", "ro,source=smuggled")
        assert (error.name, "'what'" in error.message) == (INVALID, True)


def test_a_place_has_one_spelling(allowed: Client, polkit: Polkit) -> None:
    on(allowed, "x", "Mount", "ssss", "t", "//./mnt/.", "tmpfs", "")
    on(allowed, "x", "Unmount", "sa{sv}", "/.//mnt//", {})
    assert [question.details["where"] for question in polkit.questions()] == ["/mnt", "/mnt"]


def test_a_program_that_is_cut_says_so(allowed: Client, polkit: Polkit) -> None:
    for program in ("/" + "p" * 255, "/" + "p" * 256, "/" + "p" * 254 + "…"):
        refused(allowed.manager, "Enter", "sasa{uh}a{sv}", "x", [program], {}, {})
    shown = [question.details["program"] for question in polkit.questions()]
    assert shown == ["/" + "p" * 255, "/" + "p" * 255 + "…", "/" + "p" * 254 + "\\u2026"]
