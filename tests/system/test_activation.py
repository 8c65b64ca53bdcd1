# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program calls mountnsd, which does not run: the bus has systemd start it."""

from support.host import BUS, MANAGER, UNIT, Host


def test_the_first_call_starts_the_daemon(host: Host) -> None:
    host.run("systemctl", "stop", UNIT)
    assert host.daemon() == 0
    assert host.call("List") == "a(sotut) 0"
    assert host.active(UNIT)
    owner = host.out("busctl", "--system", "status", BUS[0])
    assert f"PID={host.daemon()}\n" in owner
    assert f"Unit={UNIT}\n" in owner


def test_somebody_who_is_not_root_may_call_first(host: Host) -> None:
    host.run("systemctl", "stop", UNIT)
    assert host.call("List", user="bob") == "a(sotut) 0"
    assert host.active(UNIT)


def test_what_it_says_of_itself(host: Host) -> None:
    tree = host.out("busctl", "--system", "introspect", *BUS, MANAGER)
    for member in (".Create", ".Enter", ".Open", ".Destroy", ".List", ".Version", ".NamespaceNew"):
        assert member in tree
    version = host.out("busctl", "--system", "get-property", *BUS, MANAGER, "Version")
    assert version == f's "{host.out("mountnsd", "--version").split()[-1]}"'


def test_what_systemd_says_of_it(host: Host) -> None:
    host.call("List")
    status = host.out("systemctl", "status", "--no-pager", UNIT)
    assert "Active: active (running)" in status
    assert f'Status: "{host.show(UNIT, "StatusText")}"' in status
    assert "/run/mountnsd/ns" in host.show(UNIT, "StatusText")


def test_what_busctl_shows_is_what_is_there(host: Host) -> None:
    host.create("demo")
    assert host.pins() == {"demo"}
    listed = host.call("List")
    inode = host.out("stat", "--format=%i", "/run/mountnsd/ns/demo")
    assert listed == f'a(sotut) 1 "demo" "/org/mountnsd1/namespace/demo" {inode} 0 0'
    assert host.has_file("demo")
    assert host.call("Destroy", "sa{sv}", "demo", "0") == "au 0"
    assert host.pins() == set()
