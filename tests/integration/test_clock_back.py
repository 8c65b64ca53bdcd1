# SPDX-License-Identifier: LGPL-2.1-or-later
"""The clock is set back, or far ahead: nothing waits for it, and what is kept stays as it was written."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import NAMESPACE, Client
from support.contract import CLD_EXITED, create, destroy, entered, names, path_of, run
from support.daemon import Daemon
from support.ground import run as command

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

# The program as it is installed, whose clock is that of a file: by so many seconds off.
_OTHER_CLOCK = """
import os, sys, time
def shifted(function, unit, place={place!r}):
    def now():
        with open(place + "/clock") as file:
            return function() + unit * int(file.read())
    return now
time.time, time.time_ns = shifted(time.time, 1), shifted(time.time_ns, 1000000000)
from mountnsd.daemon import main
sys.exit(main())
"""
YEAR = 365 * 24 * 3600


class OtherClock(Daemon):
    """A daemon whose clock can be set."""

    def command(self) -> list[str]:
        command = super().command()
        at = command.index("-m")
        return [*command[:at], "-c", _OTHER_CLOCK.format(place=str(self.directory)), *command[at + 2 :]]

    def set_clock(self, seconds: int) -> None:
        """Set it so many seconds ahead."""
        new = self.directory / "clock.new"
        new.write_text(str(seconds))
        new.rename(self.directory / "clock")


@pytest.fixture
def daemon(bus: PrivateBus, directory: Path) -> Iterator[OtherClock]:
    place = directory / "daemon"
    place.mkdir()
    made = OtherClock(bus, place)
    made.set_clock(0)
    with made as running:
        yield running


def created(root: Client, name: str) -> int:
    return int(root.get(path_of(name), NAMESPACE, "CreatedUSec"))


@pytest.mark.parametrize("by", [-3600, -20 * YEAR, 20 * YEAR])
def test_everything_goes_on(daemon: OtherClock, root: Client, by: int) -> None:
    create(root, "a")
    before = created(root, "a")
    daemon.set_clock(by)
    create(root, "b")
    assert abs(created(root, "b") - (time.time() + by) * 1e6) < 60e6
    assert created(root, "a") == before
    with entered(root, "b", ["/bin/sh", "-c", "exit 3"]) as process:
        assert process.wait() == (CLD_EXITED, 3)
    start = time.monotonic()
    with entered(root, "a", ["/bin/sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"]) as stubborn:
        assert stubborn.pid in destroy(root, "a", kill=("b", True))
        assert not leaks.alive(stubborn.pid)
    assert time.monotonic() - start < 30  # its patience is of another clock
    command("umount", daemon.pins / "b")
    assert names(root) == []
    create(root, "b")
    daemon.kill(signal.SIGKILL)
    daemon.set_clock(2 * by)
    daemon.start()
    assert names(root) == ["b"]
    assert abs(created(root, "b") - (time.time() + by) * 1e6) < 60e6
    assert run(root, "b", "/bin/echo", "inside") == "inside\n"


def test_before_the_epoch(daemon: OtherClock, root: Client) -> None:
    """The property that says when takes no number below 0."""
    daemon.set_clock(-int(time.time()) - 10)
    create(root, "a", description=("s", "build"))
    assert created(root, "a") == 0
    daemon.restart()
    assert root.get(path_of("a"), NAMESPACE, "Description") == "build"


def test_the_files_of_a_run_are_of_another_time(daemon: OtherClock, root: Client) -> None:
    """No file is older or newer than another to us."""
    create(root, "a", description=("s", "build"))
    for number, place in enumerate([daemon.runtime, *daemon.runtime.rglob("*.json")]):
        os.utime(place, (number * 20 * YEAR, number * 20 * YEAR))
    daemon.kill()
    daemon.start()
    assert root.get(path_of("a"), NAMESPACE, "Description") == "build"
