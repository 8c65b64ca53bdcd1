# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hidden holder on a booted system: systemd has two units for it, and everything else is as it was."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.host import OUTSIDER, UNIT, Host

_SETTING = "/etc/mountnsd/mountnsd.toml.d/50-hidden.toml"
_OTHER = "other.service"
_TEXT = f"""\
[Service]
User={OUTSIDER}
ExecStart=/usr/bin/sleep infinity
"""


@pytest.fixture(autouse=True)
def hidden(host: Host) -> Iterator[None]:
    """It is hidden, and has a namespace `build`; at the end it is as before."""
    host.machine.write(_SETTING, 'holder = "hidden"\n')
    host.run("systemctl", "restart", UNIT)
    host.create("build")
    yield
    host.run("systemctl", "stop", _OTHER, "mountns@build.service", check=False)
    host.run(
        "rm", "--force", "--recursive", f"/etc/systemd/system/{_OTHER}", f"/etc/systemd/system/{_OTHER}.d"
    )
    host.run("systemctl", "daemon-reload")
    for name in host.names():
        host.run("mountnsctl", "destroy", "--kill", name)
    host.run("rm", _SETTING)
    host.run("systemctl", "restart", UNIT)
    assert host.pins() == set()


def _inode(host: Host) -> int:
    return int(next(one["inode"] for one in host.listed() if one["name"] == "build"))


def _kept(host: Host) -> list[dict[str, Any]]:
    """The list but for the paths of the pins, which lead through the daemon that runs just then."""
    return [{key: value for key, value in one.items() if key != "pin"} for one in host.listed()]


def _is_inside(host: Host) -> bool:
    pid = host.show(_OTHER, "MainPID")
    return pid != "0" and host.out("readlink", f"/proc/{pid}/ns/mnt") == f"mnt:[{_inode(host)}]"


def test_what_the_host_sees(host: Host) -> None:
    for number in range(20):
        host.call("Create", "sa{sv}", f"n{number}", "0")
    assert host.pins() == {".anchor"}
    units = [unit for unit in host.units("run-mountnsd*.mount") if unit.endswith(".mount")]
    assert len(units) == 2, units


def test_it_survives_the_daemon(host: Host) -> None:
    before = _kept(host)
    host.kill_daemon()
    assert _kept(host) == before
    host.run("systemctl", "restart", UNIT)
    assert _kept(host) == before
    assert host.out("mountnsctl", "exec", "build", "ls", "/mnt") == "hi-there"


def test_without_the_daemon(host: Host) -> None:
    status = host.out("mountnsctl", "status", "build")
    [way] = [line.split() for line in status.splitlines() if ".anchor nsenter --mount=" in line]
    host.run("systemctl", "stop", UNIT)
    assert host.out(*way, "ls", "/mnt") == "hi-there"
    assert host.out("mountnsctl", "exec", "build", "ls", "/mnt") == "hi-there"
    assert not host.active(UNIT)


def test_who_is_entered_has_a_unit(host: Host) -> None:
    with host.entered("build", "sleep", "7357") as pid:
        assert host.inside("build") == {pid}
        assert host.unit_of(pid).startswith("mountns-")
        host.run("mountnsctl", "destroy", "--kill", "build")
    assert host.names() == []


def test_a_service_of_a_user(host: Host) -> None:
    host.machine.write(f"/etc/systemd/system/{_OTHER}", _TEXT)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", _OTHER)
    host.run("mountnsctl", "attach", "--now", _OTHER, "build")
    host.wait_active(_OTHER)
    host.wait_for("the service is inside", lambda: _is_inside(host))
    status = host.out("cat", f"/proc/{host.show(_OTHER, 'MainPID')}/status")
    capabilities = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")]
    assert [int(mask, 16) for mask in capabilities] == [0]
