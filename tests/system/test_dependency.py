# SPDX-License-Identifier: LGPL-2.1-or-later
"""A unit that depends on a namespace: it begins after it, and ends with it."""

from collections.abc import Iterator

import pytest
from support.declared import DECLARATION, FILE, UNIT
from support.host import Host

_WORKER = "worker.service"
_TEXT = """\
[Unit]
{binding}=mountns@build.service
After=mountns@build.service

[Service]
ExecStartPre=/usr/bin/test -e /run/mountnsd/ns/build
ExecStart=/usr/bin/sleep infinity
"""


@pytest.fixture(autouse=True)
def declared(host: Host) -> Iterator[None]:
    """The declaration; and at the end nothing of what was started."""
    host.machine.write(FILE, DECLARATION)
    yield
    host.run("systemctl", "stop", _WORKER, UNIT, check=False)
    host.run("rm", "--force", FILE, f"/run/systemd/system/{_WORKER}")
    host.run("systemctl", "daemon-reload")


def _start(host: Host, binding: str) -> None:
    host.machine.write(f"/run/systemd/system/{_WORKER}", _TEXT.format(binding=binding))
    host.run("systemctl", "daemon-reload")
    assert host.pins() == set()
    host.run("systemctl", "start", _WORKER)
    assert host.pins() == {"build"}
    assert host.active(UNIT)


def test_it_pulls_the_namespace_in_and_stops_with_its_unit(host: Host) -> None:
    _start(host, "Requires")
    host.run("systemctl", "restart", "mountnsd.service")
    host.kill_daemon()
    assert host.active(_WORKER)
    host.run("systemctl", "stop", UNIT)
    host.wait_inactive(_WORKER)
    assert host.pins() == set()


def test_it_stops_when_somebody_destroys_the_namespace(host: Host) -> None:
    _start(host, "BindsTo")
    assert host.call("Destroy", "sa{sv}", "build", "0") == "au 0"
    host.wait_inactive(UNIT)
    host.wait_inactive(_WORKER)
    assert host.show(_WORKER, "Result") == "success"
    assert host.show(UNIT, "Result") == "success"


def test_it_stops_when_the_pin_is_unmounted(host: Host) -> None:
    _start(host, "BindsTo")
    host.run("umount", "/run/mountnsd/ns/build")
    host.wait_inactive(_WORKER)
    assert host.pins() == set()
