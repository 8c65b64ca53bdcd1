# SPDX-License-Identifier: LGPL-2.1-or-later
"""How failures on the way to the daemon are worded."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, Message, new_error, new_method_call

from mountnsd.ctl import connection
from mountnsd.ctl.connection import Connection
from mountnsd.ctl.enter import _status
from mountnsd.ctl.problem import Problem

STANDARD = "org.freedesktop.DBus.Error."


def _error(name: str, *body: Any, sender: str = ":1.7") -> Message:
    call = new_method_call(DBusAddress(connection.PATH, connection.NAME, connection.MANAGER), "List")
    message = new_error(call, name, "s" if body else None, body)
    message.header.fields[HeaderFields.sender] = sender
    return message


@pytest.mark.parametrize(
    ("name", "sender", "said"),
    [
        (STANDARD + "ServiceUnknown", "org.freedesktop.DBus", "systemctl start mountnsd"),
        (STANDARD + "ServiceUnknown", "org.freedesktop.DBus", "DBUS_SYSTEM_BUS_ADDRESS"),
        (STANDARD + "NameHasNoOwner", "org.freedesktop.DBus", "systemctl start mountnsd"),
        (STANDARD + "Spawn.ChildExited", "org.freedesktop.DBus", "systemctl start mountnsd"),
        (STANDARD + "NoReply", "org.freedesktop.DBus", "systemctl status mountnsd"),
        (STANDARD + "AccessDenied", "org.freedesktop.DBus", "bus policy"),
        (STANDARD + "InteractiveAuthorizationRequired", ":1.7", "--no-ask-password"),
    ],
)
def test_errors_say_what_to_do(name: str, sender: str, said: str) -> None:
    message = connection._refusal(_error(name, "The words.", sender=sender)).message
    assert said in message
    assert STANDARD not in message


def test_the_daemons_words_are_shown_as_they_are() -> None:
    for name in ("org.mountnsd1.Error.NoSuchNamespace", STANDARD + "AccessDenied"):
        problem = connection._refusal(_error(name, "The words."))
        assert (problem.message, problem.name, problem.status) == ("The words.", name, 1)


def test_an_error_without_words() -> None:
    assert "without saying why" in connection._refusal(_error("org.mountnsd1.Error.Some")).message


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Cannot enter 'x': execve: No such file or directory (ENOENT). Hint.", 127),
        ("Cannot enter 'x': execve: Not a directory (ENOTDIR).", 127),
        ("Cannot enter 'x': execve: Permission denied (EACCES).", 126),
        ("Cannot enter 'x': execve: Exec format error (ENOEXEC).", 126),
        ("Cannot enter 'x': chdir: No such file or directory (ENOENT).", 1),
    ],
)
def test_a_command_that_cannot_be_run(message: str, status: int) -> None:
    assert _status(connection._refusal(_error("org.mountnsd1.Error.EnterFailed", message))) == status
    assert _status(connection._refusal(_error("org.mountnsd1.Error.Other", message))) == 1


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "unix:", "unix:path", "tcp:host=localhost,port=1", "unix:path=/nowhere/bus", ";"],
)
def test_no_bus(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    monkeypatch.setattr(connection, "DEFAULT_ADDRESS", "unix:path=/nowhere/default")
    with pytest.raises(Problem) as caught:
        Connection(True)
    assert "DBUS_SYSTEM_BUS_ADDRESS" in caught.value.message
    assert address in caught.value.message


@pytest.mark.parametrize("answer", [b"", b"REJECTED ANONYMOUS\r\n", b"noise\r\n"])
def test_no_bus_behind_the_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "bus"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        pid = os.fork()
        if pid == 0:
            try:
                peer, _ = listener.accept()
                peer.recv(100)
                peer.sendall(answer)
                peer.close()
            finally:
                os._exit(0)
        with pytest.raises(Problem, match="Cannot connect"):
            Connection(True)
        os.waitpid(pid, 0)
