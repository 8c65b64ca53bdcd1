# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon with each of its two ways to start a process: as its child, and in a unit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .buses import PrivateBus
from .daemon import Daemon
from .manager import Manager

LAUNCHERS = ("fork", "systemd")


@contextmanager
def daemon_with(launcher: str, bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    """A running daemon that starts processes in that way; with a stand-in for systemd where it needs one."""
    place = directory / "daemon"
    place.mkdir()
    if launcher == "fork":
        with Daemon(bus, place, arguments=("--launcher=fork",)) as running:
            yield running
    else:
        with Manager(bus.address), Daemon(bus, place, arguments=("--launcher=systemd",)) as running:
            yield running
