# SPDX-License-Identifier: LGPL-2.1-or-later
"""System calls that are interrupted, descriptors whose closing fails, and what other machines lay out otherwise."""

import ctypes
import errno
import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from mountnsd import bare, syscalls


@pytest.mark.parametrize(("machine", "size"), [("x86_64", 8), ("aarch64", 8), ("s390x", 4)])
def test_the_type_of_a_filesystem(machine: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where 32 bits are taken for 64, the block size is a part of the type, and no pin is believed."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
        there = runpy.run_path(syscalls.__file__)
    assert there["_Statfs"].f_type.size == size


class Interrupted:
    """A C function that is interrupted so often before it succeeds."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.calls = 0

    def __call__(self, *_: object) -> int:
        self.calls += 1
        if self.left:
            self.left -= 1
            ctypes.set_errno(errno.EINTR)
            return -1
        return 0


def test_an_interrupted_call_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    function = Interrupted(3)
    monkeypatch.setattr(syscalls._libc, "umount2", function)
    syscalls.umount2("/nowhere")
    assert function.calls == 4


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """EINTR can be the word of a FUSE server, too."""
    function = Interrupted(1000)
    monkeypatch.setattr(syscalls._libc, "umount2", function)
    with pytest.raises(InterruptedError):
        syscalls.umount2("/nowhere")
    assert function.calls < 100


def test_a_context_is_spent_with_the_first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    function = Interrupted(1)
    monkeypatch.setattr(syscalls._libc, "fsconfig", function)
    with pytest.raises(InterruptedError):
        syscalls.fsconfig_create(0)
    assert function.calls == 1


def test_what_close_says_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(bare.os, "close", fail)
        syscalls.close(1000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syscalls.close(1 << 20)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/ptmx", "/etc/passwd", "/", "/proc/self/stat"])
def test_what_is_known_of_a_file_is_what_it_says(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        known = (status.st_mode, os.major(status.st_rdev), os.major(status.st_dev))
        assert syscalls.known_status(fd) == known
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="statx"):
        syscalls.known_status(fd)


def test_the_id_of_a_mount_is_that_of_mountinfo() -> None:
    fd = os.open("/", os.O_PATH)
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
        assert f"mnt_id:\t{syscalls.mount_id(fd)}\n" in text
    finally:
        os.close(fd)


def test_without_an_id_of_the_mount_nothing_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls._libc, "statx", Interrupted(0))
    with pytest.raises(OSError, match="no id of the mount"):
        syscalls.mount_id(0)
