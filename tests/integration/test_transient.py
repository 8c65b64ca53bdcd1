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
from support.oldkernel import UntoldDaemon
from support.polkit import Polkit

NAME = "build"
ENTER = "sasa{uh}a{sv}"


@pytest.fixture
def manager(bus: PrivateBus) -> Iterator[Manager]:
    with Manager(bus.address) as running:
        yield running


@pytest.fixture
def daemon(
    bus: PrivateBus, manager: Manager, directory: Path, request: pytest.FixtureRequest
) -> Iterator[Daemon]:
    """Arguments: request: its parameter is the kind of daemon, where it is another one."""
    place = directory / "daemon"
    place.mkdir()
    kind = getattr(request, "param", Daemon)
    with kind(bus, place, arguments=("--launcher=systemd",)) as running:
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
    return list((daemon.runtime / "entered").glob("*.json"))


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
    eventually(lambda: not kept(daemon))


def test_a_program_that_cannot_run_leaves_nothing(root: Client, daemon: Daemon, manager: Manager) -> None:
    with pytest.raises(DBusError, match=r"execve: No such file or directory \(ENOENT\)"):
        enter(root, "/nonexistent")
    eventually(lambda: not manager.units)
    eventually(lambda: not kept(daemon))


def test_systemd_need_not_be_asked(root: Client, manager: Manager) -> None:
    manager.faults.refuse = {"Get"}
    assert exit_of(root, "sh", "-c", "exit 3") == (os.CLD_EXITED, 3)


@pytest.mark.parametrize("daemon", [UntoldDaemon], indirect=True)
@pytest.mark.parametrize("late", [0, 3])
def test_where_the_kernel_does_not_tell_systemd_does(
    root: Client, daemon: Daemon, manager: Manager, late: int
) -> None:
    """And may be late to know."""
    manager.faults.late = late
    assert exit_of(root, "sh", "-c", "exit 3") == (os.CLD_EXITED, 3)
    assert exit_of(root, "sh", "-c", "kill -SEGV $$") == (os.CLD_KILLED, signal.SIGSEGV)
    eventually(lambda: not manager.units)
    eventually(lambda: not kept(daemon))


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
    eventually(lambda: kept(daemon) == [record])
    assert len(manager.units) == 1


def test_what_a_process_left_behind_is_nobodys_news(
    root: Client, user: Client, daemon: Daemon, manager: Manager
) -> None:
    """Its caller has been told: by this daemon, and not again by each that comes after it."""
    with root.signals(MANAGER, "Exited") as exits:
        _, pidfd = enter(root, "sh", "-c", "sleep 0.2; exit 3")
        os.close(pidfd)
        (unit,) = manager.units.values()
        unit.kept = True
        assert exits.wait().body[2:] == (os.CLD_EXITED, 3)
        (record,) = kept(daemon)
        eventually(lambda: '"told": true' in record.read_text())
        daemon.kill(signal.SIGKILL)
        daemon.start()
        assert not exits.drain(0.5)
    assert kept(daemon)
    unit.kept = False
    unit.state = "exited"
    eventually(lambda: not kept(daemon))


def test_a_slow_systemd_makes_nobody_wait_for_the_daemon(
    root: Client, daemon: Daemon, manager: Manager
) -> None:
    """What was entered before is taken over once systemd answers."""
    pid, pidfd = enter(root, "sleep", "1000")
    os.close(pidfd)
    daemon.kill(signal.SIGKILL)
    manager.faults.refuse = {"Get", "RefUnit"}
    daemon.start()
    assert [row[0] for row in root.manager("List")[0]] == [NAME]
    manager.faults.refuse = set()
    assert root.manager("Destroy", "sa{sv}", NAME, {"kill": ("b", True)})[0] == [pid]
    eventually(lambda: not kept(daemon))


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


def test_another_namespace_of_that_name_is_another(root: Client) -> None:
    old, pidfd = enter(root, "sleep", "1000")
    os.close(pidfd)
    root.manager("Destroy", "sa{sv}", NAME, {"lazy": ("b", True)})
    root.manager("Create", "sa{sv}", NAME, {})
    new, pidfd = enter(root, "sleep", "1000")
    os.close(pidfd)
    assert root.manager("Destroy", "sa{sv}", NAME, {"kill": ("b", True)})[0] == [new]
    assert leaks.alive(old)
    assert not leaks.alive(new)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
def test_who_is_on_the_way_does_not_come_in_after_the_end(
    bus: PrivateBus, root: Client, daemon: Daemon, delay: float
) -> None:
    with Client(bus.address) as other:
        serial = other.send(PATH, MANAGER, "Enter", ENTER, NAME, ["sleep", "1000"], {}, {})
        time.sleep(delay)
        root.manager("Destroy", "sa{sv}", NAME, {"kill": ("b", True)})
        try:
            pid, pidfd = other.reply(serial)
        except DBusError:
            pass
        else:
            assert not leaks.alive(pid)
            pidfd.close()
    eventually(lambda: not kept(daemon))


def test_who_is_on_the_way_makes_it_busy(bus: PrivateBus, root: Client, manager: Manager) -> None:
    manager.faults.silent = {"StartTransientUnit"}
    with Client(bus.address) as other:
        other.send(PATH, MANAGER, "Enter", ENTER, NAME, ["sleep", "1000"], {}, {})
        eventually(lambda: "StartTransientUnit" in manager.members())
        with pytest.raises(DBusError, match="somebody is just entering"):
            root.manager("Destroy", "sa{sv}", NAME, {})
        root.manager("Destroy", "sa{sv}", NAME, {"kill": ("b", True)})


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


def test_a_refusal_is_not_the_end_of_it(root: Client, daemon: Daemon, manager: Manager) -> None:
    """A unit that stays, or a process, would be nobody's for ever."""
    manager.faults.refuse = {"StopUnit", "UnrefUnit"}
    assert exit_of(root, "true") == (os.CLD_EXITED, 0)
    assert kept(daemon)
    manager.faults.refuse = set()
    eventually(lambda: not kept(daemon) and not manager.units, 20)


def test_the_callers_end_is_his_processs_end_whatever_systemd_says(
    bus: PrivateBus, daemon: Daemon, manager: Manager
) -> None:
    manager.faults.refuse = {"KillUnit"}
    with Client(bus.address) as other:
        pid, pidfd = enter(other, "sleep", "1000", kill_on_disconnect=("b", True))
    eventually(lambda: not leaks.alive(pid))
    os.close(pidfd)


def test_the_caller_leaves_while_his_process_is_on_the_way(
    bus: PrivateBus, root: Client, daemon: Daemon, manager: Manager
) -> None:
    manager.faults.silent = {"StartTransientUnit"}
    with Client(bus.address) as other:
        other.send(PATH, MANAGER, "Enter", ENTER, NAME, ["true"], {}, {"kill_on_disconnect": ("b", True)})
        eventually(lambda: "StartTransientUnit" in manager.members())
    manager.faults.silent = set()
    eventually(lambda: not kept(daemon))
    root.manager("Destroy", "sa{sv}", NAME, {})


def test_two_hundred_callers_processes_end_with_him(
    bus: PrivateBus, daemon: Daemon, manager: Manager
) -> None:
    """More orders than a bus lets one connection wait for."""
    pids = []
    with Client(bus.address) as other:
        for _ in range(200):
            pid, pidfd = enter(other, "sleep", "1000", kill_on_disconnect=("b", True))
            os.close(pidfd)
            pids.append(pid)
    eventually(lambda: not any(leaks.alive(pid) for pid in pids), 30)
    eventually(lambda: not kept(daemon) and not manager.units, 60)


def test_a_quota_counts_what_was_left_behind(
    bus: PrivateBus, uid: int, daemon: Daemon, manager: Manager, polkit: Polkit
) -> None:
    polkit.allow("org.mountnsd1.enter")
    with Client(bus.address, uid) as other:
        with other.signals(MANAGER, "Exited") as exits:
            for _ in range(256):
                _, pidfd = enter(other, "sleep", "0.3")
                os.close(pidfd)
                for unit in list(manager.units.values()):
                    unit.kept = True
            exits.wait()
        with pytest.raises(DBusError, match="as many as one may have"):
            enter(other, "true")
