# SPDX-License-Identifier: LGPL-2.1-or-later
"""Somebody has a hand in a pin, while the daemon runs: what is said on the bus is true at once, and it goes on.

Nothing here waits for the daemon to notice: the very next call of any kind tells the truth.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import hidden
from support.client import MANAGER, NAMESPACE, Client
from support.contract import (
    EXISTS,
    MOUNT_FAILED,
    NO_NAMESPACE_FOR_PID,
    NO_SUCH,
    STALE,
    UNKNOWN_OBJECT,
    create,
    destroy,
    listed,
    names,
    on,
    path_of,
    refused,
    run,
    somebody_inside,
    wait_until,
)
from support.daemon import Daemon
from support.ground import run as command
from support.hidden import beside
from support.leaks import mounts_below

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

ENTER = "sasa{uh}a{sv}"


@pytest.fixture
def pin(daemon: Daemon, root: Client) -> Iterator[Path]:
    """The pin of a namespace `a`.  What is mounted on it at the end is unmounted."""
    create(root, "a", description=("s", "build"))
    place = daemon.pins / "a"
    yield place
    for mount in mounts_below(place)[1:]:
        command(*beside(place, "umount", "--lazy", mount.point))


def _net_namespace(directory: Path, pin: Path) -> Path:
    other = directory / "net"
    other.touch()
    command(*beside(pin, "unshare", f"--net={other}", "true"))
    return other


def _fifo(directory: Path, _pin: Path) -> Path:
    made = directory / "fifo"
    os.mkfifo(made)
    return made


def _device(_directory: Path, _pin: Path) -> Path:
    return Path("/dev/zero")


def _file(directory: Path, _pin: Path) -> Path:
    made = directory / "file"
    made.write_text("x")
    return made


def _own_namespace(_directory: Path, _pin: Path) -> Path:
    return Path("/proc/self/ns/uts")


# What somebody may bind there instead.
FOREIGN: dict[str, Callable[[Path, Path], Path]] = {
    "a net namespace": _net_namespace,
    "a uts namespace": _own_namespace,
    "a fifo": _fifo,
    "a device": _device,
    "a plain file": _file,
}


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest, directory: Path, pin: Path) -> Iterator[Path]:
    """Something that is no mount namespace."""
    source = FOREIGN[request.param](directory, pin)
    yield source
    if request.param == "a net namespace":
        command(*beside(pin, "umount", "--lazy", source))


def umount(pin: Path) -> None:
    """Unmount it, as soon as the daemon, which looks at each new pin once, has not got it open."""
    command = hidden.command("umount", pin)
    wait_until(lambda: not subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode)


def bound_instead(pin: Path, source: str | Path) -> None:
    """Unmount a pin and bind something there instead.  The daemon removes its file if it comes to look in between."""
    umount(pin)

    def bind() -> bool:
        pin.touch()
        mount = hidden.command("mount", "--bind", source, pin)
        return not subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode

    wait_until(bind)


def no_such(root: Client) -> None:
    """Each way to ask for `a` says that it is not there."""
    assert refused(root.manager, "GetNamespace", "s", "a").name == NO_SUCH
    assert refused(root.manager, "Open", "s", "a").name == NO_SUCH
    assert refused(root.manager, "Enter", ENTER, "a", ["/bin/true"], {}, {}).name == NO_SUCH
    assert refused(destroy, root, "a").name == NO_SUCH
    assert refused(root.get, path_of("a"), NAMESPACE, "State").name == UNKNOWN_OBJECT
    assert refused(on, root, "a", "GetMounts").name == UNKNOWN_OBJECT
    assert "a" not in names(root)


class TestUnmounted:
    """The pin is gone, and with it the namespace."""

    ASK: tuple[tuple[str, Callable[[Client], object]], ...] = (
        ("GetNamespace", lambda root: root.manager("GetNamespace", "s", "a")),
        ("Open", lambda root: root.manager("Open", "s", "a")),
        ("Enter", lambda root: root.manager("Enter", ENTER, "a", ["/bin/true"], {}, {})),
        ("Destroy", lambda root: destroy(root, "a")),
        ("Get", lambda root: root.get(path_of("a"), NAMESPACE, "Inode")),
        ("GetProcesses", lambda root: on(root, "a", "GetProcesses")),
        ("GetMounts", lambda root: on(root, "a", "GetMounts")),
        ("Create from", lambda root: create(root, "b", from_=("s", "a"))),
    )

    def test_whatever_is_asked_first(self, pin: Path, root: Client) -> None:
        for what, ask in self.ASK:
            umount(pin)
            assert refused(ask, root).name in (NO_SUCH, UNKNOWN_OBJECT), what
            create(root, "a")
        assert names(root) == ["a"]

    def test_count_and_objects(self, pin: Path, root: Client) -> None:
        umount(pin)
        assert root.get("/org/mountnsd1", MANAGER, "Count") == 0
        create(root, "a")
        umount(pin)
        objects = root.call("/org/mountnsd1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")[0]
        assert path_of("a") not in objects

    def test_it_is_told_and_made_again(self, daemon: Daemon, pin: Path, root: Client) -> None:
        with root.signals(MANAGER, "NamespaceRemoved") as gone, root.signals(MANAGER, "NamespaceNew") as new:
            umount(pin)
            no_such(root)
            assert gone.wait().body == ("a", path_of("a"))
            create(root, "a")
            assert new.wait().body == ("a", path_of("a"))
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"
        assert root.get(path_of("a"), NAMESPACE, "Description") == ""
        destroy(root, "a")
        assert not [*daemon.pins.iterdir()]
        assert not [*(daemon.runtime / "meta").iterdir()]

    def test_who_is_inside_is_in_none_of_ours(self, pin: Path, root: Client) -> None:
        with somebody_inside(pin) as pid:
            command("umount", "--lazy", pin)
            error = refused(root.manager, "GetNamespaceByPID", "u", pid)
            assert error.name == NO_NAMESPACE_FOR_PID
            no_such(root)

    def test_and_removed(self, pin: Path, root: Client) -> None:
        umount(pin)
        pin.unlink()
        no_such(root)
        create(root, "a")

    def test_while_nobody_runs(self, daemon: Daemon, pin: Path, root: Client) -> None:
        daemon.kill()
        umount(pin)
        daemon.start()
        no_such(root)
        assert not [*(daemon.runtime / "meta").iterdir()]


class TestReplaced:
    """Something else is there instead."""

    def test_by_another_namespace(self, daemon: Daemon, pin: Path, root: Client) -> None:
        """What was known of the one is not said of the other."""
        create(root, "b", description=("s", "other"))
        inode = listed(root)[1][2]
        with root.signals(MANAGER, "NamespaceRemoved") as gone, root.signals(MANAGER, "NamespaceNew") as new:
            bound_instead(pin, daemon.pins / "b")
            assert root.get(path_of("a"), NAMESPACE, "Inode") == inode
            assert root.get(path_of("a"), NAMESPACE, "Description") == ""
            assert gone.wait().body[0] == new.wait().body[0] == "a"
        assert {row[2] for row in listed(root)} == {inode}
        destroy(root, "a")
        assert run(root, "b", "/bin/echo", "still there") == "still there\n"

    def test_by_what_is_none(self, daemon: Daemon, pin: Path, root: Client, foreign: Path) -> None:
        bound_instead(pin, foreign)
        no_such(root)
        error = refused(create, root, "a")
        assert error.name == MOUNT_FAILED
        assert str(daemon.holder / "a") in error.message  # what to look at
        create(root, "b")
        daemon.restart()
        no_such(root)
        assert names(root) == ["b"]
        umount(pin)
        create(root, "a")
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"


class TestCovered:
    """Something else lies over it: the namespace is there, and cannot be reached until that is gone."""

    def test_by_what_is_no_namespace(self, daemon: Daemon, pin: Path, root: Client, foreign: Path) -> None:
        before = listed(root)
        with root.signals("org.freedesktop.DBus.Properties", "PropertiesChanged", path_of("a")) as changes:
            command("mount", "--bind", foreign, pin)
            assert root.get(path_of("a"), NAMESPACE, "State") == "stale"
            assert changes.wait().body[1] == {"State": ("s", "stale")}
        assert listed(root) == before
        for ask in (
            lambda: root.manager("Open", "s", "a"),
            lambda: root.manager("Enter", ENTER, "a", ["/bin/true"], {}, {}),
            lambda: on(root, "a", "GetMounts"),
            lambda: destroy(root, "a"),
        ):
            error = refused(ask)
            assert error.name == STALE
            assert str(daemon.holder / "a") in error.message
        assert refused(create, root, "a").name == EXISTS
        daemon.restart()
        assert root.get(path_of("a"), NAMESPACE, "State") == "stale"
        umount(pin)
        assert root.get(path_of("a"), NAMESPACE, "State") == "active"
        assert root.get(path_of("a"), NAMESPACE, "Description") == "build"
        destroy(root, "a")
        assert names(root) == []

    def test_by_another_namespace(self, daemon: Daemon, pin: Path, root: Client) -> None:
        """Which is not entered in its place."""
        create(root, "b")
        command("mount", "--bind", daemon.pins / "b", pin)
        assert root.get(path_of("a"), NAMESPACE, "State") == "stale"
        assert refused(run, root, "a", "/bin/true").name == STALE
        umount(pin)
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"


class TestMoved:
    """The mount is moved to another name, and back."""

    def test_to_another_name(self, daemon: Daemon, pin: Path, root: Client) -> None:
        inode = listed(root)[0][2]
        other = daemon.pins / "moved"
        other.touch()
        command("mount", "--move", pin, other)
        assert [(row[0], row[2]) for row in listed(root)] == [("moved", inode)]
        no_such(root)
        assert run(root, "moved", "/bin/echo", "inside") == "inside\n"
        destroy(root, "moved")

    def test_out_of_the_holder(self, directory: Path, pin: Path, root: Client) -> None:
        elsewhere = directory / "elsewhere"
        elsewhere.touch()
        command("mount", "--move", pin, elsewhere)
        try:
            no_such(root)
        finally:
            command(*beside(pin, "umount", elsewhere))


class TestTheLastProcess:
    """A namespace lives by its pin: that nobody is inside any more changes nothing."""

    def test_it_ends(self, pin: Path, root: Client) -> None:
        on(root, "a", "Mount", "ssss", "inside", "/mnt", "tmpfs", "")
        run(root, "a", "/bin/touch", "/mnt/hi-there")
        for _ in range(3):
            with somebody_inside(pin):
                assert listed(root)[0][4] == 1
            wait_until(lambda: listed(root)[0][4] == 0)
        assert on(root, "a", "GetProcesses") == ([],)
        assert run(root, "a", "/bin/ls", "/mnt") == "hi-there\n"

    def test_it_ends_after_the_pin(self, pin: Path, root: Client) -> None:
        with somebody_inside(pin) as pid:
            command("umount", "--lazy", pin)
            no_such(root)
            create(root, "a")
            assert listed(root)[0][4] == 0
            assert refused(root.manager, "GetNamespaceByPID", "u", pid).name == NO_NAMESPACE_FOR_PID
        destroy(root, "a")


def test_all_at_once(daemon: Daemon, root: Client) -> None:
    """A hundred pins, each with another hand in it; then one List."""
    kept = set()
    with ExitStack() as stack:
        for number in range(100):
            name = f"n{number:02}"
            create(root, name)
            place = daemon.pins / name
            match number % 4:
                case 0:
                    umount(place)
                case 1:
                    bound_instead(place, "/dev/null")
                    stack.callback(umount, place)
                case 2:
                    command("mount", "--bind", "/dev/null", place)
                    stack.callback(umount, place)
                    kept.add(name)
                case _:
                    kept.add(name)
        assert {*names(root)} == kept
        daemon.kill()
        daemon.start()
        assert {*names(root)} == kept
    assert {*names(root)} == kept
