# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl monitor`: what it tells, over restarts of the daemon, until a signal or the bus ends it."""

import json
import re
import signal
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pytest
from support.buses import PrivateBus
from support.ctl import TIMEOUT, Ctl, Terminal
from support.daemon import Daemon
from support.ground import run
from support.identity import NOBODY


class Monitor:
    """A monitor whose lines are read one by one; a context manager that ends it."""

    def __init__(self, ctl: Ctl, *words: str, **more: Any) -> None:
        self.process = ctl.start("monitor", *words, **more)

    def line(self) -> str:
        """The next line; empty at the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def event(self) -> dict[str, Any]:
        """The next line as JSON, without its time, which must be one."""
        event: dict[str, Any] = json.loads(self.line())
        assert event.pop("time_usec") > 1_700_000_000_000_000
        return event

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send it a signal; returns the exit status and what it said on standard error."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def monitor(ctl: Ctl) -> Iterator[Monitor]:
    """One that watches."""
    with Monitor(ctl, "--json=short") as found:
        assert found.event() == {"event": "running"}
        yield found


def test_a_namespace_comes_and_goes(ctl: Ctl, monitor: Monitor, daemon: Daemon) -> None:
    ctl.ok("create", "b-1", "--description=A test", "--label=x=y")
    (shown,) = ctl.json("show", "b-1")
    del shown["processes"]
    assert monitor.event() == {"event": "new", **shown}
    ctl.ok("destroy", "b-1")
    assert monitor.event() == {"event": "removed", "name": "b-1", "path": shown["path"]}
    assert monitor.end() == (0, "")


def test_a_pin_that_somebody_hides_and_takes_away(ctl: Ctl, monitor: Monitor, daemon: Daemon) -> None:
    path = "/org/mountnsd1/namespace/demo"
    run("mount", "--bind", "/dev/null", daemon.pins / "demo")
    assert monitor.event() == {"event": "changed", "name": "demo", "path": path, "state": "stale"}
    run("umount", daemon.pins / "demo")
    assert monitor.event() == {"event": "changed", "name": "demo", "path": path, "state": "active"}
    run("umount", daemon.pins / "demo")
    assert monitor.event() == {"event": "removed", "name": "demo", "path": path}


def test_the_daemon_goes_and_comes(ctl: Ctl, monitor: Monitor, daemon: Daemon) -> None:
    daemon.kill(signal.SIGKILL)
    assert monitor.event() == {"event": "stopped"}
    daemon.start()
    assert monitor.event() == {"event": "started"}
    ctl.ok("destroy", "demo")
    assert monitor.event()["event"] == "removed"
    assert monitor.end(signal.SIGTERM) == (0, "")


def test_it_waits_for_a_daemon_that_does_not_run(ctl: Ctl, daemon: Daemon) -> None:
    daemon.stop()
    with Monitor(ctl) as monitor:
        assert re.fullmatch(r"\w{3} \d\d \d\d:\d\d:\d\d\.\d{6} stopped mountnsd\n", monitor.line())
        daemon.start()
        assert monitor.line().endswith(" started mountnsd\n")


def test_text(ctl: Ctl) -> None:
    with Monitor(ctl) as monitor:
        assert monitor.line().endswith(" running mountnsd\n")
        ctl.ok("create", "mine", "--description=A \\ test", "--label=b=2", "--label=a=1")
        inode = next(item["inode"] for item in ctl.json("list") if item["name"] == "mine")
        new = re.fullmatch(r"\w{3} \d\d [\d:]{8}\.\d{6} new     mine (.*)\n", monitor.line())
        assert new is not None
        assert new[1].startswith(f"mnt:[{inode}] ")
        assert " owner=root propagation=slave label=a=1 label=b=2 state=active " in new[1]
        assert new[1].endswith(r"description=A \\ test")
        ctl.ok("destroy", "mine")
        assert monitor.line().endswith(" removed mine\n")


def test_everybody_may_watch(ctl: Ctl) -> None:
    with Monitor(ctl, "--json=short", user=NOBODY, group=NOBODY, extra_groups=[]) as monitor:
        assert monitor.event() == {"event": "running"}
        ctl.ok("destroy", "demo")
        assert monitor.event()["event"] == "removed"


def test_the_bus_ends(monitor: Monitor, bus: PrivateBus, daemon: Daemon) -> None:
    bus.stop()
    daemon.wait()
    _, err = monitor.process.communicate(timeout=TIMEOUT)
    assert monitor.process.returncode == 1
    assert err.startswith("mountnsctl: The connection to the bus broke")


def test_on_a_terminal(ctl: Ctl) -> None:
    with Terminal(ctl, "monitor") as terminal:
        terminal.expect("\x1b\\[1mrunning\x1b\\[0m mountnsd")
        ctl.ok("destroy", "demo")
        terminal.expect("\x1b\\[1;31mremoved\x1b\\[0m demo\r\n")
        terminal.press("\x03")
        assert terminal.end() == 0
