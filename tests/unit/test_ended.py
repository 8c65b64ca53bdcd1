# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a process has ended, as whoever holds a pidfd of it is told."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from mountnsd import ended

# The first thread ends well and before the other one, which ends the process.
_THREADS = """
import ctypes, os, threading, time
def end():
    time.sleep(0.1)
    os._exit(7)
threading.Thread(target=end).start()
ctypes.CDLL("libgcc_s.so.1")
ctypes.CDLL(None).pthread_exit(None)
"""


@contextmanager
def run(*argv: str) -> Iterator[tuple[int, int]]:
    """A process that has ended, and has not been waited for."""
    pid = os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin"})
    pidfd = os.pidfd_open(pid)
    try:
        end = select.poll()
        end.register(pidfd, select.POLLIN)
        assert end.poll(10_000)
        yield pid, pidfd
    finally:
        os.close(pidfd)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


@pytest.mark.parametrize(
    ("argv", "how"),
    [
        (shell("exit 0"), (os.CLD_EXITED, 0)),
        (shell("exit 7"), (os.CLD_EXITED, 7)),
        (shell("exit 255"), (os.CLD_EXITED, 255)),
        (shell("kill -KILL $$"), (os.CLD_KILLED, signal.SIGKILL)),
        (shell("kill -RTMAX $$"), (os.CLD_KILLED, signal.SIGRTMAX)),
        ((sys.executable, "-c", _THREADS), (os.CLD_EXITED, 7)),
    ],
)
def test_as_wait_says(argv: tuple[str, ...], how: tuple[int, int]) -> None:
    with run(*argv) as (pid, pidfd):
        assert ended.status(pid, pidfd) == how
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert result is not None
        assert (result.si_code, result.si_status) == how


def test_a_name_is_no_field() -> None:
    text = "import ctypes; ctypes.CDLL(None).prctl(15, b') Z 1 ) 2', 0, 0, 0); raise SystemExit(3)"
    with run(sys.executable, "-c", text) as (pid, pidfd):
        assert ended.status(pid, pidfd) == (os.CLD_EXITED, 3)


def test_a_core_is_told_of() -> None:
    assert ended._si(signal.SIGSEGV | 0x80) == (os.CLD_DUMPED, signal.SIGSEGV)


def test_who_was_waited_for_is_not_told_of() -> None:
    with run(*shell("exit 7")) as (pid, pidfd):
        os.waitpid(pid, 0)
        assert ended.status(pid, pidfd) is None


def test_nor_is_another_process_that_has_its_pid() -> None:
    with run(*shell("exit 7")) as (pid, pidfd), run(*shell("exit 3")) as (other, _):
        os.waitpid(pid, 0)
        assert ended.status(other, pidfd) is None


def test_nor_who_runs() -> None:
    pidfd = os.pidfd_open(os.getpid())
    assert ended.status(os.getpid(), pidfd) is None
    os.close(pidfd)


def test_what_must_not_be_seen_is_not_taken_for_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "readlink", refuse)
    with run(*shell("exit 0")) as (pid, pidfd):
        assert ended.status(pid, pidfd) is None
    with run(*shell("exit 4")) as (pid, pidfd):
        assert ended.status(pid, pidfd) == (os.CLD_EXITED, 4)


@pytest.mark.parametrize(
    ("release", "tells"),
    [
        ("5.16.20", False),
        ("5.17.0-1", True),
        ("6.1.0-9-amd64", True),
        ("6.18", True),
        ("7", False),
        ("", False),
    ],
)
def test_older_kernels_are_not_believed(release: str, tells: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"release": release}))
    assert ended._tells() is tells
