# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pid is given again between two looks: who has it now is neither taken for the other nor signalled.

In a pid namespace of the tests' own, where a pid can be had at will.  Source: ns_last_pid in proc_sys_kernel(5).
"""

import asyncio
import ctypes
import errno
import os
import resource
import signal
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from support import ground, leaks

from mountnsd import processes

T = TypeVar("T")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWPID = 0x20000, 0x20000000


def alone(work: Callable[[], T]) -> T:
    """Do the work as process 2 of a pid namespace, with its /proc."""

    def first() -> T:
        ground.call(_LIBC.unshare(_CLONE_NEWPID | _CLONE_NEWNS))
        return ground.forked(init)

    def init() -> T:
        ground.propagate(1 << 18)
        ground.call(_LIBC.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(0), None))
        return ground.forked(work)

    return ground.forked(first)


def process_in(namespace: int, name: str, pid: int = 0) -> int:
    """A process in a mount namespace, of that pid where one is given.  It ends with its pid namespace."""
    if pid:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ground.call(_LIBC.setns(namespace, _CLONE_NEWNS))
            ground.call(_LIBC.prctl(15, name.encode(), 0, 0, 0))
            os.write(told, b".")
            os.closerange(3, 1 << 10)  # what is read from us ends when we do
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    assert os.read(ready, 1) == b"."
    os.close(ready)
    assert pid in (0, child), f"the pid {pid} was not to be had"
    return child


def new_namespace() -> int:
    """A descriptor of a mount namespace."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        ground.call(_LIBC.unshare(_CLONE_NEWNS))
        os.write(told, b".")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    fd = os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY)
    leaks.end(child)
    os.close(ready)
    os.close(told)
    return fd


class Reused:
    """A pid that a process `inside` has; `again` gives it to a process `outside`, once."""

    def __init__(self) -> None:
        self.inside, self.outside = new_namespace(), os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.inode = os.fstat(self.inside).st_ino
        self.pid = process_in(self.inside, "inside")
        self.done = False

    def again(self, pid: int = 0) -> None:
        """Once; where a pid is given, only if it is this one."""
        if not self.done and pid in (0, self.pid):
            self.done = True
            leaks.end(self.pid)
            assert process_in(self.outside, "outside", self.pid) == self.pid

    def alive(self) -> bool:
        """Whether who has it now was left alone."""
        return Path(f"/proc/{self.pid}/comm").read_text() == "outside\n"


def after(function: Callable[..., T], then: Callable[[int], None]) -> Callable[..., T]:
    """`function`, and then something happens before its caller goes on."""

    def both(argument: int, *more: Any, **options: Any) -> T:
        result = function(argument, *more, **options)
        then(argument)
        return result

    return both


class TestKilling:
    """Destroy with `kill`: from the look to the signal."""

    def test_given_again_after_the_look(self) -> None:
        def work() -> tuple[bool, bool]:
            reused = Reused()
            inside = after(processes.inside, lambda _: reused.again())
            with patch.object(processes, "inside", inside):
                asyncio.run(processes.end(reused.inode, grace=0.2, last=0.2))
            return reused.done, reused.alive()

        assert alone(work) == (True, True)

    def test_given_again_between_the_pidfd_and_the_signal(self) -> None:
        """The pidfd stays the first one's."""

        def work() -> tuple[bool, bool]:
            reused = Reused()
            send = signal.pidfd_send_signal

            def late(pidfd: int, number: int) -> None:
                reused.again()
                send(pidfd, number)

            with patch.object(signal, "pidfd_send_signal", late):
                asyncio.run(processes.end(reused.inode, grace=0.2, last=0.2))
            return reused.done, reused.alive()

        assert alone(work) == (True, True)

    def test_given_again_to_one_inside(self) -> None:
        """Who came in meanwhile is to be ended as well, and is: as himself."""

        def work() -> bool:
            reused = Reused()
            reused.outside = reused.inside
            inside = after(processes.inside, lambda _: reused.again())
            with patch.object(processes, "inside", inside):
                asyncio.run(processes.end(reused.inode, grace=0.2, last=2.0))
            return leaks.alive(reused.pid)

        assert alone(work) is False


class TestLooking:
    """What is said of a pid is said of one process."""

    def test_who_is_inside(self) -> None:
        """Not the namespace of the one with the name of the other."""

        def work() -> tuple[bool, list[str]]:
            reused = Reused()
            with patch.object(processes, "_is_inside", after(processes._is_inside, reused.again)):
                found = processes.inside(reused.inode)
            return reused.done, [process.command for process in found]

        assert alone(work) == (True, [])

    def test_for_want_of_descriptors_nobody_is_overlooked(self) -> None:
        """Destroy would take a namespace for empty that is not."""

        def work() -> int:
            reused = Reused()
            with ExitStack() as stack, os.scandir("/proc") as entries:
                number = os.open("/proc", os.O_PATH)
                stack.callback(os.close, number)
                limits = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1, limits[1]))
                stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
                with patch.object(os, "scandir", lambda _: nullcontext(entries)):
                    return ground.attempt(lambda: processes.inside(reused.inode))

        assert alone(work) == errno.EMFILE

    def test_the_namespace_of_a_pid(self) -> None:
        def work() -> tuple[bool, int | None]:
            reused = Reused()
            with patch.object(processes, "namespace_of", after(processes.namespace_of, reused.again)):
                found = processes.namespace_of_living(reused.pid)
            return reused.done, found

        assert alone(work) == (True, None)
