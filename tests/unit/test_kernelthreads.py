# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernel threads are told from whatever else bears their numbers, or is a child of kthreadd as they are."""

import os

import pytest

from mountnsd import processes, syscalls
from mountnsd.kernelthreads import KernelThreads

HOME, OTHER = "mnt:[1]", "mnt:[2]"


class Kernel:
    """A /proc.  Attributes: threads, programs: of kthreadd, and where each of them is; read: files that were read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.threads = {"2": HOME, "10": HOME, "11": HOME, "12": OTHER}
        self.programs = {"13": HOME}
        self.read: list[str] = []
        patch.setattr(syscalls, "beginning", self._read)
        patch.setattr(os, "readlink", self._readlink)

    def _read(self, path: str, _size: int) -> bytes:
        self.read.append(path)
        _, _, pid, *rest = path.split("/")
        if rest[-1] == "children":
            return " ".join([*self.threads, *self.programs][1:]).encode()
        if pid in self.threads:
            return b"Name:\tx\nKthread:\t1\nThreads:\t1\n"
        if pid in self.programs:
            return b"Name:\tKthread:\t1\nKthread:\t0\n"
        raise FileNotFoundError

    def _readlink(self, path: str) -> str:
        pid = path.split("/")[2]
        return {**self.threads, **self.programs}[pid]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def there(**others: int) -> dict[str, int]:
    """Inodes by pid: one more each, but for some."""
    return {str(pid): 100 + pid for pid in (1, 2, 10, 11, 12, 13, 14)} | {
        key.removeprefix("pid"): value for key, value in others.items()
    }


def test_threads_and_no_programs(kernel: Kernel) -> None:
    """Neither a program that the kernel runs, nor the thread that has a mount namespace of its own."""
    assert set(KernelThreads().among(there(), OTHER)) == {"10", "11"}
    assert kernel.read


def test_who_is_known_is_not_looked_at_again(kernel: Kernel) -> None:
    known = KernelThreads()
    known.among(there(), OTHER)
    kernel.read.clear()
    assert set(known.among(there(), OTHER)) == {"10", "11"}
    assert not {"/proc/10/status", "/proc/11/status"} & {*kernel.read}


def test_another_process_of_the_same_pid(kernel: Kernel) -> None:
    """Whoever's child it is."""
    known = KernelThreads()
    known.among(there(), OTHER)
    del kernel.threads["10"], kernel.threads["11"]
    kernel.programs["11"] = OTHER
    assert not known.among(there(pid10=7, pid11=7), OTHER)


def test_one_that_came_during_the_look(kernel: Kernel) -> None:
    known = KernelThreads()
    kernel.threads["15"] = HOME
    assert "15" not in known.among(there(), OTHER)


def test_where_they_are_themselves_they_count(kernel: Kernel) -> None:
    assert kernel.threads
    assert not KernelThreads().among(there(), HOME)


def test_where_the_kernel_does_not_say_none_is_known(kernel: Kernel) -> None:
    """Nor where the second process is none of the kernel's."""
    kernel.programs["2"] = kernel.threads.pop("2")
    assert not KernelThreads().among(there(), OTHER)
    assert kernel.read == ["/proc/2/status"]


def test_nothing_is_known_without_descriptors(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: str, _size: int) -> bytes:
        raise OSError(24, "Too many open files")

    assert kernel.threads
    monkeypatch.setattr(syscalls, "beginning", fail)
    assert not KernelThreads().among(there(), OTHER)


def test_those_of_this_host() -> None:
    """Each has no program.  Where there are any: this may be a pid namespace, or an older kernel."""
    pids = processes._there()
    for pid in KernelThreads().among(pids, OTHER):
        with pytest.raises(FileNotFoundError):
            os.readlink(f"/proc/{pid}/exe")
    assert str(os.getpid()) in pids
