# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which signals `mountnsctl monitor` believes, and what it makes of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jeepney import DBusAddress, HeaderFields, Message, new_signal

from mountnsd import names
from mountnsd.ctl import monitor
from mountnsd.ctl.connection import MANAGER, NAME, PATH
from mountnsd.ctl.monitor import Events

DAEMON, OTHER, BUS = ":1.5", ":1.6", "org.freedesktop.DBus"


def a_signal(
    sender: str, interface: str, member: str, signature: str, *body: Any, path: str = PATH
) -> Message:
    """A signal as it arrives."""
    message = new_signal(DBusAddress(path, interface=interface), member, signature, body)
    message.header.fields[HeaderFields.sender] = sender
    return message


def removed(sender: str) -> Message:
    """One that tells of an end."""
    return a_signal(sender, MANAGER, "NamespaceRemoved", "so", "a", f"{PATH}/namespace/a")


def owner(sender: str, old: str, new: str, name: str = NAME) -> Message:
    """One of the bus, or of somebody who would like to be it."""
    return a_signal(sender, BUS, "NameOwnerChanged", "sss", name, old, new, path="/org/freedesktop/DBus")


def test_the_daemon_alone_is_believed() -> None:
    events = Events(DAEMON)
    assert events.of(removed(OTHER)) is None
    assert events.of(removed(DAEMON)) == {"event": "removed", "name": "a", "path": f"{PATH}/namespace/a"}


def test_the_bus_alone_says_who_the_daemon_is() -> None:
    events = Events(DAEMON)
    assert events.of(owner(OTHER, DAEMON, OTHER)) is None
    assert events.of(removed(OTHER)) is None
    assert events.of(owner(BUS, OTHER, "", "org.example")) is None
    assert events.of(owner(BUS, DAEMON, "")) == {"event": "stopped"}
    assert events.of(removed(DAEMON)) is None
    assert events.of(owner(BUS, "", OTHER)) == {"event": "started"}
    assert events.of(removed(OTHER)) is not None
    assert events.of(removed(DAEMON)) is None


def test_what_is_known_already_is_not_told_again() -> None:
    assert Events(DAEMON).of(owner(BUS, "", DAEMON)) is None
    assert Events("").of(owner(BUS, DAEMON, "")) is None
    assert Events("").first() == {"event": "stopped"}
    assert Events(DAEMON).first() == {"event": "running"}


def test_other_signals_of_the_daemon_are_passed_over() -> None:
    events = Events(DAEMON)
    changed = {"Count": ("u", 3)}
    properties = "org.freedesktop.DBus.Properties"
    assert (
        events.of(a_signal(DAEMON, properties, "PropertiesChanged", "sa{sv}as", MANAGER, changed, [])) is None
    )
    assert events.of(a_signal(DAEMON, MANAGER, "Exited", "usii", 1, "a", 1, 0)) is None
    added = a_signal(DAEMON, "org.freedesktop.DBus.ObjectManager", "InterfacesAdded", "oa{sa{sv}}", PATH, {})
    assert events.of(added) is None


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", fullmatch=True))
def test_names_of_object_paths(name: str) -> None:
    assert monitor._name(names.to_path(name)) == name


@pytest.mark.parametrize("mode", ["", "short"])
def test_what_it_says_cannot_steer_a_terminal(capfd: pytest.CaptureFixture[str], mode: str) -> None:
    from mountnsd.ctl.options import parse
    from mountnsd.ctl.output import Output

    output = Output(parse(["monitor", *(["--json=short"] if mode else [])]))
    evil = "x\x1b[2J\ny"
    monitor._show(
        {"event": "new", "name": "a", "path": "/", "description": evil, "labels": {evil: evil}}, output
    )
    shown = capfd.readouterr().out
    assert shown.count("\n") == 1
    assert "\x1b" not in shown
