# SPDX-License-Identifier: LGPL-2.1-or-later
"""A reboot: what is declared and enabled is there again, and nothing else."""

from support.declared import DECLARATION, FILE, UNIT, check
from support.host import UNIT as DAEMON
from support.host import Host


def test_what_is_declared_is_back(host: Host) -> None:
    host.machine.write(FILE, DECLARATION)
    host.run("systemctl", "enable", "--now", UNIT)
    host.create("passing")
    host.run("mountnsctl", "enter", "build", "touch", "/mnt/old")
    check(host)

    host.machine.reboot()

    assert host.active(DAEMON)
    assert host.active(UNIT)
    assert host.pins() == {"build"}
    assert host.names() == ["build"]
    check(host)
    assert host.out("mountnsctl", "enter", "build", "ls", "/mnt") == ""
    assert host.machine.journal("--boot", f"--unit={DAEMON}", "--priority=warning") == ""
    host.run("systemctl", "disable", "--now", UNIT)
    host.run("rm", FILE)
    assert host.pins() == set()


def test_a_reboot_with_something_inside_does_not_wait(host: Host) -> None:
    host.create("build")
    with host.entered("build", "sh", "-c", "trap '' TERM HUP INT; while :; do sleep 1; done"):
        assert host.machine.reboot() < 20
    assert host.pins() == set()
    assert host.names() == []
