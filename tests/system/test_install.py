# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package on a system that had nothing of it: what apt brings, and what is there then."""

from support.host import UNIT, Host

_BUS = {"dbus-daemon": "dbus-daemon", "dbus-broker": "dbus-broker-lau"}


def test_apt_brings_what_it_needs(host: Host) -> None:
    listed = host.out("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n").splitlines()
    needed = {"mountnsd", "python3", "python3-dbus-next", "python3-jeepney", "python3-systemd", "polkitd"}
    assert {f"{package} installed" for package in needed} <= set(listed)
    assert "warning" not in host.installed.lower()


def test_the_bus_is_the_one_that_the_release_has(host: Host) -> None:
    bus = host.show("dbus.service", "MainPID")
    assert host.out("cat", f"/proc/{bus}/comm") == _BUS[host.machine.release.bus]


def test_the_daemon_runs_and_comes_with_the_next_boot(host: Host) -> None:
    assert host.active(UNIT)
    assert host.show(UNIT, "UnitFileState") == "enabled"
    assert host.show(UNIT, "NRestarts") == "0"


def test_the_manual_is_there(host: Host) -> None:
    files = host.out("dpkg", "--listfiles", "mountnsd").splitlines()
    for page in ("man1/mountnsctl.1", "man5/org.mountnsd1.5", "man7/mountnsd.7", "man8/mountnsd.8"):
        assert f"/usr/share/man/{page}.gz" in files


def test_nothing_of_it_fails_or_warns(host: Host) -> None:
    assert host.out("systemctl", "is-system-running") == "running"
    assert host.machine.journal(f"--unit={UNIT}", "--priority=warning") == ""
    assert host.out("dpkg", "--verify", "mountnsd") == ""


def test_the_smoke_test_of_the_package(host: Host, package_tests: str) -> None:
    host.machine.write("/root/smoke", package_tests, 0o755)
    said = host.out("/root/smoke")
    assert "failed" not in said
    assert said.count("ok: ") >= 6
