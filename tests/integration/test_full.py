# SPDX-License-Identifier: LGPL-2.1-or-later
"""No room: in the holder, in /run, for another mount.  A creation fails whole, and all that there is goes on."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import NAMESPACE, Client
from support.contract import (
    ENTER_FAILED,
    MOUNT_FAILED,
    create,
    destroy,
    listed,
    names,
    path_of,
    refused,
    run,
)
from support.daemon import Daemon
from support.ground import contained
from support.ground import run as command
from support.launchers import LAUNCHERS
from support.manager import Manager

from mountnsd import syscalls

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

ENTER = "sasa{uh}a{sv}"


def fill(directory: Path) -> Path:
    """Write a file until nothing more goes into its filesystem."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return filler


class TestTheHolder:
    """The tmpfs that the pins lie in has as many files as it may have."""

    def test_no_room_for_another_pin(self, daemon: Daemon, root: Client) -> None:
        create(root, "a")
        used = os.statvfs(daemon.pins)
        inodes = used.f_files - used.f_ffree
        command("mount", "-o", f"remount,nr_inodes={inodes}", daemon.pins)
        error = refused(create, root, "b")
        assert error.name == MOUNT_FAILED
        assert "ENOSPC" in error.message
        assert "The holder is full" in error.message
        assert names(root) == ["a"]
        assert {entry.name for entry in (daemon.runtime / "meta").iterdir()} == {"a.json"}
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"
        destroy(root, "a")
        create(root, "b")
        daemon.kill()
        daemon.start()
        assert names(root) == ["b"]

    def test_what_is_written_into_it_takes_no_room_from_pins(self, daemon: Daemon, root: Client) -> None:
        """Its size is limited, so that nothing big can be left there; a pin needs none of that."""
        filler = fill(daemon.pins)
        assert filler.stat().st_size <= 1 << 20
        create(root, "a")
        daemon.restart()
        assert names(root) == ["a"]
        filler.unlink()


class TestRun:
    """The filesystem of the runtime directory is full, by whoever's doing."""

    @pytest.fixture(params=LAUNCHERS)
    def daemon(self, request: pytest.FixtureRequest, bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
        small = directory / "small"
        small.mkdir()
        command("mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=64,mode=0755", "small", small)
        try:
            (small / "daemon").mkdir()
            arguments = (f"--launcher={request.param}",)
            with Manager(bus.address), Daemon(bus, small / "daemon", arguments=arguments) as running:
                yield running
        finally:
            command("umount", small)

    def test_no_room_for_metadata(self, daemon: Daemon, root: Client) -> None:
        create(root, "a", description=("s", "build"))
        before = listed(root)
        filler = fill(daemon.directory)
        for _ in range(2):
            error = refused(create, root, "b")
            assert error.name == MOUNT_FAILED
            assert "write its metadata" in error.message
            assert "ENOSPC" in error.message
        assert listed(root) == before
        assert [entry.name for entry in daemon.pins.iterdir()] == ["a"]
        assert [entry.name for entry in (daemon.runtime / "meta").iterdir()] == ["a.json"]
        daemon.kill()
        daemon.start()  # which needs no room
        assert listed(root) == before
        assert root.get(path_of("a"), NAMESPACE, "Description") == "build"
        destroy(root, "a")
        assert listed(root) == []
        filler.unlink()
        create(root, "b")

    def test_no_room_for_a_file(self, daemon: Daemon, root: Client) -> None:
        create(root, "a")
        fillers: list[Path] = []
        while True:
            try:
                filler = daemon.directory / f"filler-{len(fillers)}"
                filler.touch()
                fillers.append(filler)
            except OSError:
                break
        error = refused(create, root, "b")
        assert error.name == MOUNT_FAILED
        assert "ENOSPC" in error.message
        destroy(root, "a")
        for filler in fillers:
            filler.unlink()
        create(root, "b")
        assert names(root) == ["b"]

    def test_entering(self, daemon: Daemon, root: Client) -> None:
        """A unit needs a record of who had it started: without one nobody is let in; a child needs none."""
        create(root, "a")
        filler = fill(daemon.directory)
        if "--launcher=fork" in daemon.command():
            assert run(root, "a", "/bin/echo", "inside") == "inside\n"
        else:
            error = refused(root.manager, "Enter", ENTER, "a", ["/bin/true"], {}, {})
            assert error.name == ENTER_FAILED
            assert "ENOSPC" in error.message
        assert listed(root)[0][4] == 0
        filler.unlink()
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"


class TestMounts:
    """A mount namespace has as many mounts as fs.mount-max allows; that of a hidden holder has room of its own."""

    @pytest.mark.visible_holder
    def test_no_room_for_another_mount(self, bus: PrivateBus, directory: Path) -> None:
        """In a container of its own, which is filled: the limit is each mount namespace's own."""
        (directory / "daemon").mkdir()
        full = directory / "full"

        def story() -> None:
            with Daemon(bus, directory / "daemon"), Client(bus.address) as root:
                create(root, "a")
                before = listed(root)
                full.mkdir()
                syscalls.mount("full", str(full), "tmpfs", 0)
                try:
                    _fill_with_mounts(full)
                    error = refused(root.manager, "Create", "sa{sv}", "b", {}, timeout=60)
                    assert error.name == MOUNT_FAILED
                    assert "ENOSPC" in error.message
                    assert "fs.mount-max" in error.message
                    assert listed(root) == before
                    assert run(root, "a", "/bin/echo", "inside") == "inside\n"
                finally:
                    syscalls.umount2(str(full), syscalls.MNT_DETACH)
                create(root, "b")
                assert names(root) == ["a", "b"]

        contained(story, shared=False, timeout=110)
        full.rmdir()


def _fill_with_mounts(place: Path) -> None:
    """Bind a directory with all that is mounted below it into itself, which doubles it, until there is no room.

    And then what was half as much, a quarter, and so on, until there is no room for one.
    """
    step = place / "step"
    step.mkdir()
    syscalls.mount("step", str(step), "tmpfs", 0)
    doubled = 0
    while _bound(step, step / str(doubled)):
        doubled += 1
    for smaller in reversed(range(doubled)):
        number = 0
        while _bound(step / str(smaller), place / f"{smaller}-{number}"):
            number += 1


def _bound(what: Path, where: Path) -> bool:
    """Bind it, with what is mounted below, where there is room."""
    where.mkdir()
    try:
        syscalls.mount(str(what), str(where), None, syscalls.MS_BIND | syscalls.MS_REC)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True
