# SPDX-License-Identifier: LGPL-2.1-or-later
"""A user whom polkit lets mount: what he gets done as root, and whether polkit was shown it."""

from pathlib import Path

import pytest
from support.client import Client
from support.contract import INVALID, action, create, on, refused
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
