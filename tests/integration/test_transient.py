# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter with a service manager: in units, over the daemon's end, and with a manager that fails in every way.

The manager is a stand-in here, which can be made to fail; tests/system has systemd itself.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import MANAGER, PATH, Client, DBusError
from support.daemon import Daemon
from support.manager import Manager

NAME = "build"
ENTER = "sasa{uh}a{sv}"


@pytest.fixture
def manager(bus: PrivateBus) -> Iterator[Manager]:
    with Manager(bus.address) as running:
        yield running


@pytest.fixture
def daemon(bus: PrivateBus, manager: Manager, directory: Path) -> Iterator[Daemon]:
    place = directory / "daemon"
    place.mkdir()
    with Daemon(bus, place, arguments=("--launcher=systemd",)) as running:
        yield running


@pytest.fixture(autouse=True)
def _namespace(daemon: Daemon, root: Client) -> None:
    root.manager("Create", "sa{sv}", NAME, {})


def enter(client: Client, *argv: str, **options: tuple[str, Any]) -> tuple[int, int]:
    """Enter NAME; returns the pid and a descriptor of the process."""
    pid, pidfd = client.manager("Enter", ENTER, NAME, list(argv), {}, options)
    return pid, pidfd.to_raw_fd()


def eventually(true: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


def kept(daemon: Daemon) -> list[Path]:
    """What the daemon keeps for the next one."""
    return list((daemon.runtime / "entered").iterdir())


def exit_of(client: Client, *argv: str) -> tuple[int, int]:
    """How a program ended, as the caller is told."""
    with client.signals(MANAGER, "Exited") as exits:
        pid, pidfd = enter(client, *argv)
        os.close(pidfd)
        told = exits.wait()
    assert told.body[:2] == (pid, NAME)
    return told.body[2], told.body[3]


# In a unit --------------------------------------------------------------------------------------------------


def test_each_process_has_a_unit_in_the_slice_of_its_namespace(root: Client, manager: Manager) -> None:
    pid, pidfd = enter(root, "sleep", "1000")
    ((name, unit),) = manager.units.items()
    assert name.startswith(f"mountns-{NAME}-")
    assert unit.pid == pid
    values = {key: value for key, (_, value) in unit.properties.items()}
    assert values["Slice"] == f"mountns-{NAME}.slice"
    assert b"MOUNTNS_NAME=build" in [bytes(item) for item in values["LogExtraFields"]]
    assert values["SyslogIdentifier"] == f"mountns-{NAME}"
    inode = os.stat(f"/proc/{pid}/ns/mnt").st_ino
    assert inode == root.get(f"/org/mountnsd1/namespace/{NAME}", "org.mountnsd1.Namespace", "Inode")
    os.close(pidfd)


def test_how_it_ended_is_told_and_the_unit_is_taken_away(
    root: Client, daemon: Daemon, manager: Manager
) -> None:
    assert exit_of(root, "sh", "-c", "exit 7") == (os.CLD_EXITED, 7)
    assert exit_of(root, "sh", "-c", "kill -SEGV $$") == (os.CLD_KILLED, signal.SIGSEGV)
    eventually(lambda: not manager.units)
    assert not kept(daemon)


def test_a_program_that_cannot_run_leaves_nothing(root: Client, daemon: Daemon, manager: Manager) -> None:
    with pytest.raises(DBusError, match=r"execve: No such file or directory \(ENOENT\)"):
        enter(root, "/nonexistent")
    eventually(lambda: not manager.units)
    assert not kept(daemon)


def test_systemd_may_be_late_to_know(root: Client, manager: Manager) -> None:
    manager.faults.late = 3
    assert exit_of(root, "sh", "-c", "exit 3") == (os.CLD_EXITED, 3)


# Over the daemon's end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_daemon_goes_on(root: Client, daemon: Daemon, how: signal.Signals) -> None:
    go = daemon.directory / "go"
    with root.signals(MANAGER, "Exited") as exits:
        pid, pidfd = enter(root, "sh", "-c", f"until test -e {go}; do sleep 0.02; done; exit 9")
        daemon.kill(how)
        assert leaks.alive(pid)
        daemon.start()
        go.touch()
        assert exits.wait().body == (pid, NAME, os.CLD_EXITED, 9)
    os.close(pidfd)
    eventually(lambda: not kept(daemon))


def test_it_may_end_while_there_is_no_daemon(root: Client, daemon: Daemon, manager: Manager) -> None:
    with root.signals(MANAGER, "Exited") as exits:
        pid, pidfd = enter(root, "sh", "-c", "sleep 0.2; exit 9")
        daemon.kill(signal.SIGKILL)
        eventually(lambda: not leaks.alive(pid))
        daemon.start()
        assert exits.wait().body == (pid, NAME, os.CLD_EXITED, 9)
    os.close(pidfd)
    eventually(lambda: not manager.units)


def test_who_left_meanwhile_has_it_ended(bus: PrivateBus, daemon: Daemon) -> None:
    with Client(bus.address) as other:
        pid, pidfd = enter(other, "sleep", "1000", kill_on_disconnect=("b", True))
        daemon.kill(signal.SIGKILL)
    daemon.start()
    eventually(lambda: not leaks.alive(pid))
    os.close(pidfd)


def test_of_another_bus_nobody_is_told(root: Client, daemon: Daemon) -> None:
    """A bus that was started again gives the same unique names to others."""
    pid, pidfd = enter(root, "sleep", "1000", kill_on_disconnect=("b", True))
    daemon.kill(signal.SIGKILL)
    (record,) = kept(daemon)
    record.write_text(record.read_text().replace('"bus": "', '"bus": "0'))
    with root.signals(MANAGER, "Exited") as exits:
        daemon.start()
        eventually(lambda: not leaks.alive(pid))
        eventually(lambda: not kept(daemon))
        assert not exits.drain()
    os.close(pidfd)


def test_a_quota_holds_over_the_daemons_end(root: Client, daemon: Daemon, bus: PrivateBus) -> None:
    pids = []
    for _ in range(3):
        pid, pidfd = enter(root, "sleep", "1000")
        os.close(pidfd)
        pids.append(pid)
    daemon.kill(signal.SIGKILL)
    daemon.start()
    assert len(kept(daemon)) == 3
    assert sorted(root.manager("Destroy", "sa{sv}", NAME, {"kill": ("b", True)})[0]) == sorted(pids)
    eventually(lambda: not kept(daemon))


def test_a_record_without_a_unit_is_dropped(daemon: Daemon, root: Client, manager: Manager) -> None:
    """A daemon that was killed between the record and the unit."""
    _, pidfd = enter(root, "sleep", "1000")
    (record,) = kept(daemon)
    daemon.kill(signal.SIGKILL)
    os.close(pidfd)
    lost = record.with_name("0123456789abcdef.json")
    lost.write_bytes(record.read_bytes())
    lost.chmod(0o600)
    daemon.start()
    assert kept(daemon) == [record]
    assert len(manager.units) == 1


# The end of a namespace -------------------------------------------------------------------------------------


def test_destroy_ends_the_units_of_this_namespace_only(root: Client, manager: Manager) -> None:
    root.manager("Create", "sa{sv}", "other", {})
    pid, pidfd = enter(root, "sh", "-c", "trap '' TERM; unshare -m sleep 1000 & wait")
    other, other_pidfd = root.manager("Enter", ENTER, "other", ["sleep", "1000"], {}, {})
    assert root.manager("Destroy", "sa{sv}", NAME, {"kill": ("b", True)})[0] == [pid]
    assert not leaks.alive(pid)
    assert leaks.alive(other)
    eventually(lambda: [name.split("-")[1] for name in manager.units] == ["other"])
    os.close(pidfd)
    other_pidfd.close()


def test_the_unit_that_stands_for_it_is_stopped(root: Client, manager: Manager) -> None:
    """mountns@NAME.service, and with it what is bound to it; and the slice, which is empty now."""
    keeper, slice_ = f"mountns@{NAME}.service", f"mountns-{NAME}.slice"
    manager.others |= {keeper, slice_}
    root.manager("Destroy", "sa{sv}", NAME, {})
    eventually(lambda: keeper not in manager.others and slice_ not in manager.others)


# A manager that fails ---------------------------------------------------------------------------------------


def test_it_refuses(root: Client, daemon: Daemon, manager: Manager) -> None:
    manager.faults.refuse = {"StartTransientUnit"}
    with pytest.raises(
        DBusError, match=r"StartTransientUnit: .* systemd says: 'The system is going down\.'"
    ) as caught:
        enter(root, "true")
    assert caught.value.name == "org.mountnsd1.Error.EnterFailed"
    eventually(lambda: not kept(daemon))
    manager.faults.refuse = set()
    assert exit_of(root, "true") == (os.CLD_EXITED, 0)


def test_it_is_not_there(root: Client, daemon: Daemon, manager: Manager) -> None:
    """Never is a process forked instead: it would have the daemon's sandbox."""
    manager.__exit__(None, None, None)
    with pytest.raises(DBusError, match="StartTransientUnit"):
        enter(root, "true")
    assert not leaks.children(daemon.pid)


def test_it_starts_nothing(root: Client, daemon: Daemon, manager: Manager) -> None:
    """The daemon's patience is for a loaded system; the unit's descriptor tells earlier that nobody is there."""
    manager.faults.starts = False
    began = time.monotonic()
    with pytest.raises(DBusError, match="EnterFailed"):
        enter(root, "true")
    assert time.monotonic() - began < 5
    eventually(lambda: not kept(daemon))


def test_the_caller_leaves_while_it_does_not_answer(
    bus: PrivateBus, daemon: Daemon, manager: Manager
) -> None:
    manager.faults.silent = {"StartTransientUnit"}
    with Client(bus.address) as other:
        other.send(PATH, MANAGER, "Enter", ENTER, NAME, ["true"], {}, {})
        eventually(lambda: "StartTransientUnit" in manager.members())
    with Client(bus.address) as another:
        assert len(another.manager("List")[0]) == 1  # it goes on


def test_what_it_refuses_afterwards_costs_nobody_the_exit_status(root: Client, manager: Manager) -> None:
    manager.faults.refuse = {"StopUnit", "UnrefUnit", "ResetFailedUnit"}
    assert exit_of(root, "sh", "-c", "exit 5") == (os.CLD_EXITED, 5)
