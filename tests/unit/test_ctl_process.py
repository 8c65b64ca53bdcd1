# SPDX-License-Identifier: LGPL-2.1-or-later
"""Learning how a process ended: from the daemon, from the kernel, and from nobody else."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, Message, new_signal

from mountnsd.ctl import process
from mountnsd.ctl.connection import MANAGER, NAME, PATH
from mountnsd.ctl.exits import Exits
from mountnsd.ctl.problem import Problem
from mountnsd.ctl.process import Process, exit_status

DAEMON, NEXT, STRANGER = ":1.1", ":1.2", ":1.666"
BUS = "org.freedesktop.DBus"


def _signal(
    sender: str, signature: str, *body: Any, interface: str = MANAGER, member: str = "Exited"
) -> Message:
    message = new_signal(DBusAddress(PATH, NAME, interface), member, signature, body)
    message.header.fields[HeaderFields.sender] = sender
    return message


def _exited(pid: int, code: int, status: int, sender: str) -> Message:
    return _signal(sender, "usii", pid, "demo", code, status)


def _owner_changed(name: str, owner: str, sender: str = BUS) -> Message:
    return _signal(sender, "sss", name, DAEMON, owner, interface=BUS, member="NameOwnerChanged")


class Fake:
    """A connection on which the daemon has answered, and then signals have arrived."""

    def __init__(self, *signals: Message) -> None:
        self.exits = Exits(NAME, MANAGER)
        self.exits.believe(DAEMON)
        for message in signals:
            self.exits.append(message)
        self.readable, self.writable = os.pipe()

    def fileno(self) -> int:
        return self.readable

    def receive(self) -> bool:
        return False

    def wake(self) -> None:
        pass


@pytest.fixture
def child() -> Iterator[int]:
    """A process that has exited with 5 and has not been waited for."""
    pid = os.fork()
    if pid == 0:
        os._exit(5)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield pid
    os.waitpid(pid, 0)


def _wait(child: int, *signals: Message) -> int:
    connection = Fake(*signals)
    pidfd = os.pidfd_open(child)
    try:
        return Process(connection, child, pidfd).wait()  # type: ignore[arg-type]
    finally:
        for fd in (pidfd, connection.readable, connection.writable):
            os.close(fd)


def test_the_daemons_word(child: int) -> None:
    assert _wait(child, _exited(child, os.CLD_EXITED, 3, DAEMON)) == 3
    assert _wait(child, _exited(child, os.CLD_KILLED, 9, DAEMON)) == 137
    assert _wait(child, _exited(child, os.CLD_DUMPED, 11, DAEMON)) == 139
    other = _exited(child + 1, os.CLD_EXITED, 1, DAEMON)
    assert _wait(child, other, _exited(child, os.CLD_EXITED, 3, DAEMON)) == 3


def test_the_next_daemons_word(child: int) -> None:
    assert _wait(child, _owner_changed(NAME, NEXT), _exited(child, os.CLD_EXITED, 3, NEXT)) == 3


@pytest.mark.parametrize(
    "said",
    [
        lambda pid: [_exited(pid, os.CLD_EXITED, 0, STRANGER)],
        lambda _: [_signal(DAEMON, "s", "x"), _signal(STRANGER, "uuuu", 1, 2, 3, 4)],
        lambda _: [new_signal(DBusAddress(PATH, NAME, MANAGER), "Exited")],
        lambda pid: [
            _owner_changed("org.example", STRANGER),
            _owner_changed(NAME, STRANGER, sender=STRANGER),
            _owner_changed(NAME, ""),
            _exited(pid, os.CLD_EXITED, 0, STRANGER),
        ],
        lambda pid: [_signal(DAEMON, "usii", pid, "demo", os.CLD_EXITED, 0, interface="org.example")],
    ],
    ids=[
        "a stranger's",
        "of another form",
        "with nothing in it",
        "of who is no next daemon",
        "another signal",
    ],
)
def test_no_other_word(
    child: int, monkeypatch: pytest.MonkeyPatch, said: Callable[[int], list[Message]]
) -> None:
    assert _wait(child, *said(child), _exited(child, os.CLD_EXITED, 3, DAEMON)) == 3
    monkeypatch.setattr(process, "_SIGNAL_SECONDS", 0.05)
    with pytest.raises(Problem, match="exit status is unknown"):
        _wait(child, *said(child))


def test_a_daemon_that_is_woken_for_it(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had stopped, or was killed; the next one learns of systemd how the process ended."""
    monkeypatch.setattr(process, "_SIGNAL_SECONDS", 0.05)
    connection = Fake()
    monkeypatch.setattr(connection, "receive", lambda: True)

    def wake() -> None:
        for message in (_owner_changed(NAME, NEXT), _exited(child, os.CLD_EXITED, 6, NEXT)):
            connection.exits.append(message)

    monkeypatch.setattr(connection, "wake", wake)
    pidfd = os.pidfd_open(child)
    try:
        assert Process(connection, child, pidfd).wait() == 6  # type: ignore[arg-type]
    finally:
        for fd in (pidfd, connection.readable, connection.writable):
            os.close(fd)


def test_the_bus_hung_up(child: int) -> None:
    connection = Fake()
    os.close(connection.writable)
    pidfd = os.pidfd_open(child)
    try:
        with pytest.raises(Problem, match="exit status is unknown"):
            Process(connection, child, pidfd).wait()  # type: ignore[arg-type]
    finally:
        os.close(pidfd)
        os.close(connection.readable)


@pytest.mark.parametrize(("ending", "status"), [(0, 0), (7, 7), (-9, 137), (-15, 143)])
def test_the_kernels_word(ending: int, status: int) -> None:
    pid = os.fork()
    if pid == 0:
        if ending < 0:
            os.kill(os.getpid(), -ending)
            signal.pause()
        os._exit(ending)
    pidfd = os.pidfd_open(pid)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert exit_status(pidfd) is None
        os.waitpid(pid, 0)
        assert exit_status(pidfd) in (status, None)  # None: before Linux 6.15
    finally:
        os.close(pidfd)
