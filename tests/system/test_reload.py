# SPDX-License-Identifier: LGPL-2.1-or-later
"""`systemctl reload mountnsd`: the configuration is read again."""

from collections.abc import Iterator

import pytest
from support.host import BUS, MANAGER, UNIT, Host

_FILE = "/etc/mountnsd/mountnsd.toml.d/50-test.toml"


def _most(host: Host) -> int:
    """How many namespaces there may be, by the daemon's word."""
    return int(host.out("busctl", "--system", "get-property", *BUS, MANAGER, "MaxNamespaces").split()[1])


@pytest.fixture(autouse=True)
def configured(host: Host) -> Iterator[None]:
    """The configuration is at the end what it was."""
    host.run("systemctl", "start", UNIT)
    before = _most(host)
    yield
    host.run("rm", "--force", _FILE)
    host.run("systemctl", "reload", UNIT)
    assert _most(host) == before


def test_a_setting_takes_effect(host: Host) -> None:
    daemon = host.daemon()
    host.machine.write(_FILE, "max_namespaces = 1\n")
    assert _most(host) != 1
    host.run("systemctl", "reload", UNIT)
    host.wait_for("the limit is in force", lambda: _most(host) == 1)
    assert host.daemon() == daemon
    host.create("first")
    refused = host.run("mountnsctl", "create", "second", check=False)
    assert refused.returncode == 1
    assert host.names() == ["first"]
    host.run("mountnsctl", "destroy", "first")


def test_what_makes_no_sense_changes_nothing(host: Host) -> None:
    daemon, before = host.daemon(), _most(host)
    host.machine.write(_FILE, "max_namespaces = 7\nnonsense = 1\n")
    host.run("systemctl", "reload", UNIT, check=False)
    host.wait_for("it is logged", lambda: "nonsense" in host.since_mark(f"--unit={UNIT}"))
    assert _FILE in host.since_mark(f"--unit={UNIT}")
    assert (host.daemon(), _most(host)) == (daemon, before)
    assert host.active(UNIT)
