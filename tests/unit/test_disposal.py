# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a caller sent is closed in a thread, unless its closing certainly waits for nobody."""

import os
import pty
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from mountnsd import disposal, passing, syscalls
from mountnsd.descriptors import Descriptors


def a_pipe() -> int:
    """One end of a pipe; nobody has the other."""
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def a_terminal() -> int:
    """The slave of a pseudo-terminal."""
    master, slave = pty.openpty()
    os.close(master)
    return slave


def a_socket() -> int:
    """One end of a pair; nobody has the other."""
    kept, other = socket.socketpair()
    other.close()
    return kept.detach()


def a_file() -> int:
    """A file on a disk, as one on a network may look, too."""
    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd


HARMLESS: list[Callable[[], int]] = [
    a_pipe,
    a_terminal,
    a_socket,
    lambda: os.open("/dev/null", os.O_RDWR),
    lambda: os.open("/dev/zero", os.O_RDONLY),
]
DOUBTFUL: list[Callable[[], int]] = [
    a_file,
    lambda: os.open("/", os.O_RDONLY),
    lambda: os.open("/proc/self/stat", os.O_RDONLY),
    lambda: os.eventfd(0),
]


@pytest.fixture
def handed_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What threads were given to close; it stays open."""
    given: list[int] = []
    monkeypatch.setattr(disposal, "dispose", given.extend)
    return given


def is_open(fd: int) -> bool:
    """Whether a number is that of a descriptor."""
    with suppress(OSError):
        os.fstat(fd)
        return True
    return False


@pytest.mark.parametrize("make", HARMLESS)
def test_what_waits_for_nobody_is_closed_at_once(make: Callable[[], int], handed_on: list[int]) -> None:
    fd = make()
    disposal.dispose_shared([fd])
    assert handed_on == []
    assert not is_open(fd)


@pytest.mark.parametrize("make", DOUBTFUL)
def test_what_may_wait_is_for_a_thread(make: Callable[[], int], handed_on: list[int]) -> None:
    fd = make()
    disposal.dispose_shared([fd])
    assert handed_on == [fd]
    os.close(fd)


def test_what_cannot_be_told_is_for_a_thread(handed_on: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> tuple[int, int, int]:
        raise OSError(13, "a filesystem that root may not look at")

    monkeypatch.setattr(syscalls, "known_status", refuse)
    fd = a_pipe()
    disposal.dispose_shared([fd])
    assert handed_on == [fd]
    os.close(fd)


def test_the_last_descriptor_of_a_file_is_for_a_thread(
    handed_on: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parcel that could not be made has none of them, and a socket that lingers may wait."""

    def refuse(*_: object) -> int:
        raise OSError(109, "too many references")

    monkeypatch.setattr(socket, "send_fds", refuse)
    fd = a_socket()
    parcel = Descriptors([fd])
    assert parcel.truncated
    assert handed_on == [fd]
    os.close(fd)


def test_a_parcel_that_was_not_taken_is_for_a_thread(handed_on: list[int]) -> None:
    """To close it closes what is in it."""
    parcel = Descriptors([a_pipe()])
    assert parcel.parcel is not None
    fd = parcel.parcel.fileno()
    parcel.close()
    assert handed_on == [fd]
    os.close(fd)


def test_one_that_was_taken_is_closed_at_once(handed_on: list[int]) -> None:
    parcel = Descriptors([a_pipe(), os.open("/dev/null", os.O_RDWR)])
    assert parcel.parcel is not None
    fd = parcel.parcel.fileno()
    for taken in passing.unpack(parcel.parcel, len(parcel)):
        os.close(taken)
    parcel.close()
    assert handed_on == []
    assert not is_open(fd)


def test_three_descriptors_of_a_shell_take_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise AssertionError("a thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    terminal = a_terminal()
    parcel = Descriptors([terminal, os.dup(2) if os.isatty(2) else a_pipe(), os.open("/dev/null", os.O_RDWR)])
    assert parcel.parcel is not None
    for taken in passing.unpack(parcel.parcel, len(parcel)):
        os.close(taken)
    parcel.close()
    assert not disposal.waiting()
