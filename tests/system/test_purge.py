# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package goes: what stays when it is removed, and that nothing does when it is purged."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.declared import DECLARATION, FILE
from support.host import UNIT, Host

_STUBBORN = "trap '' TERM HUP INT; while :; do sleep 1; done"


@pytest.fixture(autouse=True)
def installed(host: Host, package: Path) -> Iterator[None]:
    """The package is there at the end, for the tests that follow."""
    yield
    if host.run("dpkg", "--verify", "mountnsd", check=False).returncode != 0:
        host.install(package)


def test_a_removal_says_what_stays_and_an_installation_finds_it(host: Host, package: Path) -> None:
    host.machine.write(FILE, DECLARATION)
    host.create("left")
    with host.entered("left", "sleep", "600") as pid:
        removed = host.apt("remove", "mountnsd")
        assert "left" in (removed.stdout + removed.stderr).split()
        assert host.pins() == {"left"}
        assert host.has_file("left")
        assert host.machine.path(f"/proc/{pid}").exists()
        assert host.machine.path(FILE).exists()
        assert host.show(UNIT, "LoadState") != "loaded"
        assert host.run("busctl", "--system", "status", "org.mountnsd1", check=False).returncode != 0

        host.install(package)
        assert host.names() == ["left"]
        assert pid in host.inside("left")
        assert host.has_file("left")
    host.run("mountnsctl", "destroy", "--kill", "left")


def test_a_purge_leaves_nothing(host: Host, package: Path) -> None:
    people = host.out("getent", "passwd") + host.out("getent", "group")
    host.run("systemctl", "enable", "--now", "mountns@build.service")
    host.create("left")
    with host.entered("left", "sh", "-c", _STUBBORN) as pid, host.entered("build", "sleep", "600") as other:
        host.apt("purge", "mountnsd")
        for gone in (pid, other):
            assert not host.machine.path(f"/proc/{gone}").exists()
    points = [line.split()[4] for line in host.out("cat", "/proc/self/mountinfo").splitlines()]
    assert not [point for point in points if "mountns" in point]
    where = ("/etc", "/run", "/usr", "/var/lib", "/tmp", "/var/tmp")
    found = host.out(
        "find", *where, "-xdev", "-name", "*mountns*", "-not", "-path", "/run/log/*"
    ).splitlines()
    assert found == []
    assert host.units("*mountns*") == []
    assert host.run("pgrep", "--full", "mountns", check=False).stdout == ""
    assert host.out("getent", "passwd") + host.out("getent", "group") == people
    assert host.run("dpkg-query", "--show", "mountnsd", check=False).returncode == 1
    assert host.out("systemctl", "is-system-running") == "running"

    host.install(package)
    assert host.active(UNIT)
    assert host.names() == []
