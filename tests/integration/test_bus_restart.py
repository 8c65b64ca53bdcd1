# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bus is restarted: the daemon ends and says so, the next one finds everything, and what was entered goes on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import MANAGER, Client
from support.contract import CLD_EXITED, create, destroy, entered, listed, on, run, wait_until
from support.daemon import Daemon
from support.manager import Manager

ENTER = "sasa{uh}a{sv}"


@pytest.fixture(params=["fork", "systemd"])
def daemon(request: pytest.FixtureRequest, bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    place = directory / "daemon"
    place.mkdir()
    with Daemon(bus, place, arguments=(f"--launcher={request.param}",)) as running:
        yield running


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_everything_goes_on(bus: PrivateBus, daemon: Daemon, how: str) -> None:
    systemd = "--launcher=systemd" in daemon.command()
    manager = Manager(bus.address)
    processes = []
    try:
        with Client(bus.address) as root:
            create(root, "a", description=("s", "build"))
            create(root, "b")
            before = [row[:4] for row in listed(root)]
            for ends in (False, True):
                options = {"kill_on_disconnect": ("b", ends)}
                pid, pidfd = root.manager("Enter", ENTER, "a", ["/bin/sleep", "300"], {}, options)
                pidfd.close()
                processes.append(int(pid))
            waiting = root.send("/org/mountnsd1", MANAGER, "Destroy", "sa{sv}", "b", {"kill": ("b", True)})
            root.reply(waiting)
            if how == "killed":
                os.kill(bus.pid, signal.SIGKILL)
            bus.stop()
            assert daemon.wait() == 1  # systemd starts it again
        assert "The connection to the bus has ended" in daemon.log()
        assert "Traceback" not in daemon.log()
        assert leaks.alive(processes[0])
        bus.start()
        if systemd:
            manager.reconnect(bus.address)
        daemon.start()
        with Client(bus.address) as root:
            assert [row[:4] for row in listed(root)] == before[:1]
            if systemd:  # the caller of the other is gone, and a unit can be found again
                wait_until(lambda: not leaks.alive(processes[1]))
                processes.pop()
            inside = {row[0] for row in on(root, "a", "GetProcesses")[0]}
            assert inside == {pid for pid in processes if leaks.alive(pid)}
            assert processes[0] in inside
            with entered(root, "a", ["/bin/sh", "-c", "exit 3"]) as process:
                assert process.wait() == (CLD_EXITED, 3)
            assert run(root, "a", "/bin/echo", "inside") == "inside\n"
            assert processes[0] in destroy(root, "a", kill=("b", True))
            assert not leaks.alive(processes[0])
    finally:
        for pid in processes:
            leaks.end(pid)
        manager.__exit__(None, None, None)


def test_while_it_works(bus: PrivateBus, daemon: Daemon) -> None:
    """A creation that was not answered is there whole, or not at all."""
    with Manager(bus.address) as manager:
        with Client(bus.address) as root:
            create(root, "first")
            for number in range(50):
                root.send("/org/mountnsd1", MANAGER, "Create", "sa{sv}", f"n{number:02}", {})
            bus.stop()
        assert daemon.wait() == 1
        bus.start()
        manager.reconnect(bus.address)
        daemon.start()
        with Client(bus.address) as root:
            names = {row[0] for row in listed(root)}
            assert "first" in names
            assert {entry.name for entry in daemon.pins.iterdir()} == names
            meta = {entry.name for entry in (daemon.runtime / "meta").iterdir()}
            assert meta == {f"{name}.json" for name in names}
