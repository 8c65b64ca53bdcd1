# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd asks of a running daemon: to read its configuration again, and to show that it is alive."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import MANAGER, PATH, PROPERTIES, Client
from support.daemon import Daemon


@pytest.fixture
def daemon(bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    place = directory / "daemon"
    place.mkdir()
    with Daemon(bus, place, "max_namespaces = 10\n", env={"WATCHDOG_USEC": "1000000"}) as running:
        yield running


@contextmanager
def systemd_hears(daemon: Daemon) -> Iterator[socket.socket]:
    """Where the daemon's notifications arrive."""
    path = daemon.directory / "notify"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(str(path))
        yield sock


def next_but_watchdog(sock: socket.socket) -> str:
    while (told := sock.recv(4096).decode()) == "WATCHDOG=1":
        pass
    return told


def reload(daemon: Daemon, text: str) -> list[str]:
    """Configure anew; returns what systemd was told."""
    (daemon.configuration / "mountnsd.toml").write_text(text)
    with systemd_hears(daemon) as sock:
        os.kill(daemon.pid, signal.SIGHUP)
        return [next_but_watchdog(sock), next_but_watchdog(sock)]


def test_the_configuration_is_read_again(root: Client, daemon: Daemon) -> None:
    with root.signals(PROPERTIES, "PropertiesChanged") as changes:
        began, ended = reload(daemon, "max_namespaces = 3\n")
        assert changes.wait().body == (MANAGER, {"MaxNamespaces": ("u", 3)}, [])
    assert began.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert ended == "READY=1"
    assert root.get(PATH, MANAGER, "MaxNamespaces") == 3


def test_one_that_cannot_be_used_changes_nothing(root: Client, daemon: Daemon) -> None:
    assert reload(daemon, "max_namespaces = 'many'\n")[1] == "READY=1"
    assert root.get(PATH, MANAGER, "MaxNamespaces") == 10
    assert "The configuration stays as it was" in daemon.log()
    assert "max_namespaces is a whole number" in daemon.log()


def test_nothing_else_is_lost(root: Client, daemon: Daemon) -> None:
    root.manager("Create", "sa{sv}", "build", {})
    pid, pidfd = root.manager("Enter", "sasa{uh}a{sv}", "build", ["sleep", "1000"], {}, {})
    reload(daemon, "max_namespaces = 1\n")
    assert [row[0] for row in root.manager("List")[0]] == ["build"]
    assert root.manager("Destroy", "sa{sv}", "build", {"kill": ("b", True)})[0] == [pid]
    pidfd.close()


def test_it_becomes_idle_when_it_is_told_to(root: Client, daemon: Daemon) -> None:
    root.call(PATH, "org.freedesktop.DBus.Peer", "Ping")
    reload(daemon, "idle_timeout_sec = 1\n")
    assert daemon.wait() == 0


def test_the_watchdog_is_fed_in_time(daemon: Daemon) -> None:
    with systemd_hears(daemon) as sock:
        sock.recv(4096)
        began = time.monotonic()
        assert [sock.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert time.monotonic() - began < 3 * 1.0
