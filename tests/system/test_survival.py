# SPDX-License-Identifier: LGPL-2.1-or-later
"""Namespaces, and what runs in them, outlive the daemon: killed, restarted, hung."""

from collections.abc import Iterator

import pytest
from support.host import BUS, MANAGER, UNIT, Host

_MANY = 200
_DROP_IN = "/run/systemd/system/mountnsd.service.d/50-test.conf"


@pytest.fixture
def many(host: Host) -> Iterator[None]:
    """Many namespaces, the first of which has a file."""
    host.create("n0")
    script = (
        "i=1; while [ $i -lt $0 ]; do "
        "busctl --system --quiet call $1 Create 'sa{sv}' n$i 0 || exit; "
        "i=$((i + 1)); done"
    )
    host.run("sh", "-c", script, str(_MANY), " ".join((*BUS, MANAGER)), timeout=60)
    yield
    names = host.names()
    for at in range(0, len(names), 50):
        host.run("mountnsctl", "destroy", *names[at : at + 50], timeout=60)


def test_a_crash_loses_none_of_many(host: Host, many: None) -> None:
    before, pins = host.call("List"), host.pins()
    assert before.startswith(f"a(sotut) {_MANY} ")
    assert len(pins) == _MANY
    restarts = int(host.show(UNIT, "NRestarts"))
    host.kill_daemon()
    assert host.call("List") == before
    assert host.pins() == pins
    assert host.has_file("n0")
    assert int(host.show(UNIT, "NRestarts")) == restarts + 1

    host.run("systemctl", "restart", UNIT)
    assert host.call("List") == before

    host.run("systemctl", "stop", UNIT)
    assert host.pins() == pins
    assert host.has_file("n0")
    assert host.call("List") == before  # and this starts it


@pytest.fixture
def build(host: Host) -> Iterator[int]:
    """A namespace with a process inside: its pid."""
    host.create("build")
    with host.entered("build", "sleep", "600") as pid:
        yield pid
    host.run("mountnsctl", "destroy", "--kill", "build")


def test_what_was_entered_goes_on(host: Host, build: int) -> None:
    unit, before = host.unit_of(build), host.listed()
    for end in (host.kill_daemon, lambda: host.run("systemctl", "restart", UNIT)):
        end()
        assert host.show(unit, "MainPID") == str(build)
        assert host.active(unit)
        assert host.listed() == before
        assert build in host.inside("build")


def test_systemd_reads_its_units_again(host: Host, build: int) -> None:
    unit = host.unit_of(build)
    with host.machine.start(
        "mountnsctl", "enter", "build", "sh", "-c", "echo began; sleep 1; exit 7"
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "began\n"
        host.run("systemctl", "daemon-reload")
        assert client.wait(8) == 7
    host.run("systemctl", "restart", UNIT)
    host.run("sleep", "0.5")
    assert host.show(unit, "MainPID") == str(build)
    assert host.active(unit)
    assert build in host.inside("build")


def test_a_daemon_that_hangs_is_started_again(host: Host, build: int) -> None:
    assert int(host.show(UNIT, "WatchdogTimestampMonotonic")) > 0
    assert host.show(UNIT, "WatchdogUSec") not in ("0", "infinity")
    host.machine.write(_DROP_IN, "[Service]\nWatchdogSec=1s\n")
    try:
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", UNIT)
        hung = host.daemon()
        host.run("sleep", "2")
        assert host.daemon() == hung  # it tells systemd often enough
        host.run("kill", "-STOP", str(hung))
        host.wait_for("systemd starts another", lambda: host.daemon() not in (0, hung))
        host.wait_active(UNIT)
    finally:
        host.run("rm", _DROP_IN)
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", UNIT)
    assert "Watchdog timeout" in host.since_mark(f"--unit={UNIT}")
    assert host.has_file("build")
    assert build in host.inside("build")
