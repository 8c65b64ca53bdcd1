# SPDX-License-Identifier: LGPL-2.1-or-later
"""What changes is told: to everybody what concerns everybody, and to the caller alone what concerns him."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.buses import PrivateBus
from support.client import BUS_NAME, MANAGER, NAME, NAMESPACE, PATH, PROPERTIES, Client, Signal
from support.contract import (
    CLD_EXITED,
    NO_SUCH,
    OBJECT_MANAGER,
    STALE,
    create,
    destroy,
    entered,
    listed,
    names,
    path_of,
    refused,
    somebody_inside,
    wait_until,
)
from support.daemon import Daemon
from support.hidden import command

pytestmark = pytest.mark.usefixtures("daemon")


def mount(*arguments: str | Path) -> None:
    """mount(8)."""
    subprocess.run(command("mount", *arguments), check=True, timeout=10)


def umount(*arguments: str | Path) -> None:
    """umount(8)."""
    subprocess.run(command("umount", *arguments), check=True, timeout=10)


def pin_by_hand(daemon: Daemon, source: str, name: str) -> None:
    """Bind a namespace to a second name in the holder, as root could do at a shell.

    The daemon removes a file without a pin when it sees one, so it may take more than one attempt.
    """
    target = daemon.pins / name

    def bind() -> bool:
        target.touch()
        return not subprocess.run(
            command("mount", "--bind", daemon.pins / source, target), check=False, stderr=subprocess.DEVNULL
        ).returncode

    wait_until(bind)


@contextmanager
def changes(client: Client, path: str) -> Iterator[Any]:
    """The PropertiesChanged of one object."""
    with client.signals(PROPERTIES, "PropertiesChanged", path) as signals:
        yield signals


class TestComingAndGoing:
    """Everybody is told of every namespace, once, whoever made it."""

    def test_created_and_destroyed(self, root: Client, user: Client) -> None:
        with user.signals(MANAGER) as manager, user.signals(OBJECT_MANAGER) as objects:
            path = create(root, "a-b", description=("s", "told"), labels=("a{ss}", {"k": "v"}))
            everything = root.call(path, PROPERTIES, "GetAll", "s", NAMESPACE)[0]
            new = manager.wait()
            assert (new.member, new.path, new.body) == ("NamespaceNew", PATH, ("a-b", path))
            added = objects.wait()
            assert (added.member, added.path) == ("InterfacesAdded", PATH)
            assert added.body == (path, {NAMESPACE: everything})
            destroy(root, "a-b")
            gone = manager.wait()
            assert (gone.member, gone.path, gone.body) == ("NamespaceRemoved", PATH, ("a-b", path))
            removed = objects.wait()
            assert (removed.member, removed.path) == ("InterfacesRemoved", PATH)
            assert removed.body == (path, [NAMESPACE])
            assert manager.drain() == objects.drain() == []

    def test_they_come_from_who_owns_the_name(self, root: Client, user: Client) -> None:
        with user.signals(sender=NAME) as signals:
            create(root, "x")
            owner = root.bus_call("GetNameOwner", "s", NAME)[0]
            assert {signal.sender for signal in signals.drain()} - {BUS_NAME} == {owner}

    def test_nothing_is_told_of_what_did_not_happen(self, root: Client, user: Client) -> None:
        create(root, "x")
        with user.signals(MANAGER) as manager, user.signals(OBJECT_MANAGER) as objects:
            create(root, "x", if_not_exists=("b", True))
            refused(create, root, "x")
            refused(create, root, "y", propagation=("s", "wrong"))
            refused(destroy, root, "z")
            assert manager.drain() == objects.drain() == []

    def test_a_start_tells_nobody_of_what_was_there(self, daemon: Daemon, root: Client, user: Client) -> None:
        create(root, "x")
        with user.signals(MANAGER) as manager:
            daemon.restart()
            assert names(root) == ["x"]
            assert manager.drain() == []

    def test_count(self, root: Client, user: Client) -> None:
        with changes(user, PATH) as changed:
            create(root, "x")
            assert changed.wait().body == (MANAGER, {"Count": ("u", 1)}, [])
            for number in range(5):
                create(root, f"n{number}")
            counts = [signal.body[1]["Count"][1] for signal in changed.drain(0.5)]
            assert counts[-1] == 6
            assert len(counts) < 5
            destroy(root, "x")
            assert changed.wait().body == (MANAGER, {"Count": ("u", 5)}, [])
            assert root.get(PATH, MANAGER, "Count") == 5


class TestBehindOurBack:
    """What root does to the pins by hand is noticed without anybody asking."""

    def test_a_pin_is_unmounted(self, daemon: Daemon, root: Client, user: Client) -> None:
        path = create(root, "x")
        create(root, "kept")
        with user.signals(MANAGER) as manager, user.signals(OBJECT_MANAGER) as objects:
            umount(daemon.pins / "x")
            assert manager.wait().body == ("x", path)
            assert objects.wait().body == (path, [NAMESPACE])
            assert names(root) == ["kept"]
            assert root.get(PATH, MANAGER, "Count") == 1
            assert refused(root.manager, "Open", "s", "x").name == NO_SUCH
        wait_until(lambda: not (daemon.pins / "x").exists())
        assert not (daemon.runtime / "meta" / "x.json").exists()
        create(root, "x")

    def test_a_pin_is_bound(self, daemon: Daemon, root: Client, user: Client) -> None:
        create(root, "x", description=("s", "mine"), labels=("a{ss}", {"a": "b"}))
        with user.signals(MANAGER) as manager, user.signals(OBJECT_MANAGER) as objects:
            pin_by_hand(daemon, "x", "by-hand")
            assert manager.wait().body == ("by-hand", path_of("by-hand"))
            path, interfaces = objects.wait().body
            assert path == path_of("by-hand")
        found = {name: value[1] for name, value in interfaces[NAMESPACE].items()}
        assert (found["Name"], found["OwnerUID"], found["State"]) == ("by-hand", 0, "active")
        assert (found["Description"], found["Labels"], found["CreatedUSec"]) == ("", {}, 0)
        assert [row[2] for row in listed(root)] == [found["Inode"]] * 2
        destroy(root, "by-hand")
        assert names(root) == ["x"]

    def test_list_knows_before_the_signal_does(self, daemon: Daemon, root: Client) -> None:
        for name in ("a", "b"):
            create(root, name)
        umount(daemon.pins / "a")
        assert names(root) == ["b"]

    def test_a_flood_of_other_mounts_is_no_change(self, directory: Path, root: Client, user: Client) -> None:
        create(root, "x")
        place = directory / "place"
        place.mkdir()
        with user.signals(MANAGER) as manager, changes(user, path_of("x")) as changed:
            for _ in range(30):
                mount("-t", "tmpfs", "other", place)
                umount(place)
            assert manager.drain() == changed.drain() == []
        assert names(root) == ["x"]

    def test_the_holder_is_unmounted(self, daemon: Daemon, root: Client, user: Client) -> None:
        create(root, "x")
        with user.signals(MANAGER) as manager:
            umount("--lazy", "--recursive", daemon.pins)
            assert manager.wait().body == ("x", path_of("x"))
        wait_until(daemon.pins.is_mount)
        create(root, "y")
        assert names(root) == ["y"]
        assert len(daemon.pinned()) == 1


class TestStale:
    """A pin that something covers leads nowhere: that is said, and nothing is done with it."""

    def test_covered_and_uncovered(self, daemon: Daemon, root: Client, user: Client) -> None:
        path = create(root, "x")
        pin = daemon.pins / "x"
        with changes(user, path) as changed:
            mount("--bind", "/dev/null", pin)
            assert changed.wait().body == (NAMESPACE, {"State": ("s", "stale")}, [])
            assert root.get(path, NAMESPACE, "State") == "stale"
            enter: tuple[Any, ...] = (root.manager, "Enter", "sasa{uh}a{sv}", "x", ["/bin/true"], {}, {})
            for call in ((root.manager, "Open", "s", "x"), enter, (root.call, path, NAMESPACE, "GetMounts")):
                error = refused(*call)
                assert error.name == STALE, call
                assert "findmnt" in error.message
            assert refused(destroy, root, "x").name == STALE
            assert names(root) == ["x"]
            umount(pin)
            assert changed.wait().body == (NAMESPACE, {"State": ("s", "active")}, [])
        root.manager("Open", "s", "x")[0].close()

    def test_over_a_restart(self, daemon: Daemon, root: Client) -> None:
        path = create(root, "x", description=("s", "kept"))
        mount("--bind", "/dev/null", daemon.pins / "x")
        daemon.restart()
        assert root.get(path, NAMESPACE, "State") == "stale"
        assert root.get(path, NAMESPACE, "Description") == "kept"
        umount(daemon.pins / "x")
        wait_until(lambda: root.get(path, NAMESPACE, "State") == "active")

    def test_a_file_in_its_place(self, daemon: Daemon, directory: Path, root: Client) -> None:
        """Whatever covers a pin: what is opened is the namespace, or nothing."""
        create(root, "x")
        secret = directory / "secret"
        secret.write_text("not a namespace")
        mount("--bind", secret, daemon.pins / "x")
        assert refused(root.manager, "Open", "s", "x").name == STALE
        umount(daemon.pins / "x")


class TestExited:
    """The end of a process is told to who entered it, and to nobody else."""

    def test_only_the_caller_is_told(self, bus: PrivateBus, root: Client, user: Client) -> None:
        create(root, "x")
        with (
            Client(bus.address) as other,
            other.signals(MANAGER, "Exited") as others,
            user.signals(MANAGER, "Exited") as users,
        ):
            with entered(root, "x", ["/bin/sh", "-c", "exit 7"]) as process:
                signal: Signal = process.exits.wait()
            assert (signal.path, signal.interface) == (PATH, MANAGER)
            assert signal.body == (process.pid, "x", CLD_EXITED, 7)
            assert others.drain() == users.drain() == []

    def test_who_has_left_is_not_missed(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        with Client(bus.address) as leaving:
            leaving.manager("Enter", "sasa{uh}a{sv}", "x", ["/bin/sleep", "0.2"], {}, {})[1].close()
        wait_until(lambda: listed(root)[0][4] == 0)
        assert "Traceback" not in daemon.log()

    def test_nothing_is_told_of_processes_that_others_started(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        with root.signals(MANAGER, "Exited") as exits:
            with somebody_inside(daemon.pins / "x"):
                pass
            assert exits.drain() == []
