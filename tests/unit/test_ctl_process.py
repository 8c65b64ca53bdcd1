# SPDX-License-Identifier: LGPL-2.1-or-later
"""Learning how a process ended: from the daemon, from the kernel, and from nobody else."""

import os
import signal
from collections import deque
from collections.abc import Iterator

import pytest

from mountnsd.ctl import process
from mountnsd.ctl.problem import Problem
from mountnsd.ctl.process import Process, exit_status

DAEMON, NEXT, STRANGER = ":1.1", ":1.2", ":1.666"


class Fake:
    """A connection on which signals have arrived; `:1.2` owns the daemon's name now."""

    def __init__(self, *signals: tuple[int, int, int, str]) -> None:
        self.sender = DAEMON
        self.exited = deque(signals)
        self.readable, self.writable = os.pipe()

    def fileno(self) -> int:
        return self.readable

    def receive(self) -> bool:
        return False

    def next_exited(self) -> tuple[int, int, int, str]:
        return self.exited.popleft()

    def owner(self) -> str:
        return NEXT

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


def _wait(child: int, *signals: tuple[int, int, int, str]) -> int:
    connection = Fake(*signals)
    pidfd = os.pidfd_open(child)
    try:
        return Process(connection, child, pidfd).wait()  # type: ignore[arg-type]
    finally:
        for fd in (pidfd, connection.readable, connection.writable):
            os.close(fd)


@pytest.mark.parametrize("sender", [DAEMON, NEXT])
def test_the_daemons_word(child: int, sender: str) -> None:
    assert _wait(child, (child, os.CLD_EXITED, 3, sender)) == 3
    assert _wait(child, (child, os.CLD_KILLED, 9, sender)) == 137
    assert _wait(child, (child, os.CLD_DUMPED, 11, sender)) == 139
    assert _wait(child, (child + 1, os.CLD_EXITED, 1, sender), (child, os.CLD_EXITED, 3, sender)) == 3


def test_nobody_elses_word(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _wait(child, (child, os.CLD_EXITED, 0, STRANGER), (child, os.CLD_EXITED, 3, DAEMON)) == 3
    monkeypatch.setattr(process, "_SIGNAL_SECONDS", 0.05)
    with pytest.raises(Problem, match="exit status is unknown"):
        _wait(child, (child, os.CLD_EXITED, 0, STRANGER))


def test_a_daemon_that_is_woken_for_it(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had stopped, or was killed; the next one learns of systemd how the process ended."""
    monkeypatch.setattr(process, "_SIGNAL_SECONDS", 0.05)
    connection = Fake()
    monkeypatch.setattr(connection, "receive", lambda: True)
    monkeypatch.setattr(
        connection, "wake", lambda: connection.exited.append((child, os.CLD_EXITED, 6, NEXT)), raising=True
    )
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
