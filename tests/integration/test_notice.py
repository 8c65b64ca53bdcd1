# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens behind the daemon's back is told at once; and while nothing happens, nothing does."""

import time
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import MANAGER, NAMESPACE, PROPERTIES, Client
from support.daemon import Daemon
from support.ground import contained, run

ONE = "/org/mountnsd1/namespace/a"
SOON = 3.0


def switches(pid: int) -> dict[str, int]:
    """How often each thread of a process has slept, or been made to wait, so far."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                found[task.name] = int(line.split()[1])
    return found


@pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)
class TestTold:
    """Signals, with nobody asking."""

    def test_a_pin_that_somebody_unmounts(self, daemon: Daemon, root: Client) -> None:
        root.manager("Create", "sa{sv}", "a", {})
        with root.signals(MANAGER, "NamespaceRemoved") as signals:
            start = time.monotonic()
            run("umount", daemon.pins / "a")
            assert signals.wait(SOON).body == ("a", ONE)
            print(f"told {(time.monotonic() - start) * 1000:.0f} ms after umount was called")
        assert root.manager("List")[0] == []

    def test_a_pin_that_somebody_makes(self, daemon: Daemon, root: Client) -> None:
        with root.signals(MANAGER, "NamespaceNew") as signals:
            (daemon.pins / "a").touch()
            run("unshare", f"--mount={daemon.pins / 'a'}", "true")
            assert signals.wait(SOON).body == ("a", ONE)
        ((name, path, _, owner, inside),) = root.manager("List")[0]
        assert (name, path, owner, inside) == ("a", ONE, 0, 0)

    def test_a_pin_that_something_covers(self, daemon: Daemon, root: Client) -> None:
        root.manager("Create", "sa{sv}", "a", {})
        with root.signals(PROPERTIES, "PropertiesChanged", ONE) as signals:
            run("mount", "--bind", "/dev/null", daemon.pins / "a")
            assert signals.wait(SOON).body[:2] == (NAMESPACE, {"State": ("s", "stale")})
            run("umount", daemon.pins / "a")
            assert signals.wait(SOON).body[:2] == (NAMESPACE, {"State": ("s", "active")})

    def test_a_holder_that_somebody_unmounts(self, daemon: Daemon, root: Client) -> None:
        root.manager("Create", "sa{sv}", "a", {})
        with root.signals(MANAGER, "NamespaceRemoved") as signals:
            run("umount", "--lazy", daemon.pins)
            assert signals.wait(SOON).body == ("a", ONE)
        root.manager("Create", "sa{sv}", "a", {})
        assert len(root.manager("List")[0]) == 1

    def test_no_waiting_for_it(self, daemon: Daemon, root: Client) -> None:
        """List never lies, not even in the moment before the signal."""
        for _ in range(20):
            root.manager("Create", "sa{sv}", "a", {})
            run("umount", daemon.pins / "a")
            assert root.manager("List")[0] == []
            assert daemon.process is not None


def test_nothing_while_nothing_happens(directory: Path) -> None:
    """In a container of its own, where no other test mounts anything."""
    (directory / "bus").mkdir()
    (directory / "daemon").mkdir()

    def story() -> list[dict[str, int]]:
        with (
            PrivateBus("dbus-daemon", directory / "bus") as bus,
            Daemon(bus, directory / "daemon") as daemon,
            Client(bus.address) as root,
        ):
            root.manager("Create", "sa{sv}", "a", {})
            root.manager("List")
            # For five seconds after a call it has something to look after: garbage, and whether the bus takes more.
            deadline = time.monotonic() + 40
            before: dict[str, int] = {}
            while switches(daemon.pid) != before and time.monotonic() < deadline:
                before = switches(daemon.pid)
                time.sleep(6)
            time.sleep(6)
            return [before, switches(daemon.pid)]

    before, after = contained(story, shared=False)
    assert before == after, f"the daemon woke up while idle: {before} and then {after}"
    assert len(after) == 1
