# SPDX-License-Identifier: LGPL-2.1-or-later
"""A namespace that is declared in a file: mountns@NAME.service makes it, and takes it away."""

from collections.abc import Iterator

import pytest
from support.declared import DECLARATION, FILE, UNIT, check
from support.host import Host


@pytest.fixture(autouse=True)
def declared(host: Host) -> Iterator[None]:
    """The declaration."""
    host.machine.write(FILE, DECLARATION)
    yield
    host.run("systemctl", "stop", UNIT)
    host.run("rm", "--force", FILE)


def test_start_makes_it_and_stop_takes_it_away(host: Host) -> None:
    host.run("mountnsctl", "verify")
    host.run("systemctl", "start", UNIT)
    check(host)
    host.run("mountnsctl", "enter", "build", "touch", "/mnt/kept")
    host.run("systemctl", "restart", "mountnsd.service")
    assert host.active(UNIT)
    host.run("systemctl", "start", UNIT)  # nothing to do
    assert host.out("mountnsctl", "enter", "build", "ls", "/mnt") == "kept"
    host.run("systemctl", "stop", UNIT)
    assert host.pins() == set()


def test_stop_ends_what_is_inside(host: Host) -> None:
    host.run("systemctl", "start", UNIT)
    with host.entered("build", "sleep", "600") as pid:
        host.run("systemctl", "stop", UNIT)
        assert not host.machine.path(f"/proc/{pid}").exists()
    assert host.pins() == set()


def test_what_is_wrong_is_said_and_not_made(host: Host) -> None:
    host.machine.write(FILE, DECLARATION.replace('where = "/mnt"', 'where = "mnt"'))
    verified = host.run("mountnsctl", "verify", check=False)
    assert verified.returncode == 1
    said = verified.stdout + verified.stderr
    assert FILE in said
    assert "where" in said
    started = host.run("systemctl", "start", UNIT, check=False)
    assert started.returncode != 0
    assert host.pins() == set()
    assert FILE in host.since_mark(f"--unit={UNIT}")
    host.run("systemctl", "reset-failed", UNIT)
