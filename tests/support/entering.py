# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs in namespaces that the tests make themselves, without the daemon."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mountnsd import syscalls
from mountnsd.errors import EnterFailed
from mountnsd.identity import Identity
from mountnsd.launcher import Launcher, Process
from mountnsd.program import Request

from . import leaks

ROOT = Identity(0, 0, (0,), "root", "/root", "/bin/sh")
NOBODY = Identity(65534, 65534, (65534, 100), "nobody", "/nonexistent", "/bin/sh")
PLACE = "/mnt"  # where the namespaces of these tests have a tmpfs of their own
MOST_SECONDS = 60


@contextlib.contextmanager
def bounded_and_tidy() -> Iterator[None]:
    """No test hangs, or leaves a child or a descriptor."""

    def ring(_number: int, _frame: object) -> None:
        raise TimeoutError(f"the test took more than {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(MOST_SECONDS)
    fds, children = leaks.fds_of(os.getpid()), {*leaks.children(os.getpid())}
    try:
        yield
        left = {*leaks.children(os.getpid())} - children
        assert not left, [leaks.describe(pid) for pid in left]
        assert leaks.fds_of(os.getpid()).keys() <= fds.keys()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a process of its own, whose mounts are its own too."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(MOST_SECONDS // 2)
            os.close(read_fd)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            os.write(write_fd, json.dumps(work()).encode())
            status = 0
        except BaseException:  # noqa: BLE001 - told to the parent
            os.write(write_fd, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as file:
        told = file.read().decode()
    assert os.waitpid(pid, 0)[1] == 0, told
    return json.loads(told)


@contextlib.contextmanager
def namespace(prepare: Callable[[], None] = lambda: None) -> Iterator[int]:
    """A descriptor of a mount namespace with a tmpfs on PLACE and what `prepare`, run inside, adds."""
    ours, theirs = socket.socketpair()

    def build() -> None:
        ours.close()
        syscalls.mount("tmpfs", PLACE, "tmpfs", 0, "mode=0755")
        Path(PLACE, "hi-there").write_text("hello from inside\n")
        prepare()
        fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        socket.send_fds(theirs, [b"."], [fd])

    with ours, theirs:
        in_a_child(build)
        (fd,) = socket.recv_fds(ours, 1, 1, socket.MSG_DONTWAIT)[1]
    os.set_inheritable(fd, False)
    try:
        yield fd
    finally:
        os.close(fd)


def script(path: str, text: str, mode: int = 0o755) -> None:
    """A file of that mode."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def story(told: Coroutine[Any, Any, Any]) -> Any:
    """Run a story to its end."""
    return asyncio.run(asyncio.wait_for(told, MOST_SECONDS / 2))


def request(fd: int, *argv: str, **changes: Any) -> Request:
    """A request of root for `argv`, with changes."""
    values: dict[str, Any] = {
        "namespace": "demo",
        "namespace_fd": fd,
        "argv": argv,
        "identity": ROOT,
        "env": {},
        "cwd": None,
        "fds": {},
        "tty": False,
        "new_privileges": False,
    }
    return Request(**(values | changes))


def memory(label: str) -> BinaryIO:
    """A file in memory whose descriptors lead to /memfd:LABEL."""
    return os.fdopen(os.memfd_create(label), "r+b", buffering=0)


def waited_for(pid: int) -> bool:
    """Whether nothing is left of a process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status as a mapping."""
    return fields(Path(f"/proc/{pid}/status").read_text())


@dataclass(frozen=True)
class Result:
    """How a program ended, and what it wrote to its descriptors 1 and 2."""

    code: int
    status: int
    text: str


async def run(fd: int, *argv: str, **changes: Any) -> Result:
    """Launch, and see it through to its end."""
    with memory("output") as file:
        fds = {1: file.fileno(), 2: file.fileno()} | changes.pop("fds", {})
        process = await Launcher().launch(request(fd, *argv, fds=fds, **changes))
        try:
            code, status = await process.exited
        finally:
            process.close()
        file.seek(0)
        return Result(code, status, file.read().decode())


def run_now(fd: int, *argv: str, **changes: Any) -> str:
    """What a program writes that ends well."""
    result: Result = story(run(fd, *argv, **changes))
    assert (result.code, result.status) == (os.CLD_EXITED, 0), result.text
    return result.text


def refused(fd: int, *argv: str, **changes: Any) -> tuple[str, int]:
    """The step and the errno of a launch that fails."""
    with pytest.raises(EnterFailed) as caught:
        story(run(fd, *argv, **changes))
    assert caught.value.message.isprintable()
    return caught.value.step, caught.value.errno


def fields(status: str) -> dict[str, str]:
    """/proc/PID/status as a mapping."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in status.splitlines())}


CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")


@contextlib.contextmanager
def hanging() -> Iterator[int]:
    """A namespace where everything below PLACE/hung is on a filesystem whose server never answers."""
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse here: a container without it")
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)

    def prepare() -> None:
        Path(PLACE, "hung").mkdir()
        options = f"fd={server},rootmode=40755,user_id=0,group_id=0,allow_other"
        syscalls.mount("hung", f"{PLACE}/hung", "fuse", 0, options)

    try:
        with namespace(prepare) as fd:
            yield fd
    finally:
        os.close(server)


def waits_for_fuse(pid: int) -> bool:
    """Whether a process is in the kernel because of the filesystem that never answers."""
    return "fuse" in Path(f"/proc/{pid}/stack").read_text()


async def the_new_child(before: set[int]) -> int:
    """The pid of a child that waits for the filesystem that never answers."""
    while True:
        for pid in {*leaks.children(os.getpid())} - before:
            if waits_for_fuse(pid):
                return pid
        await asyncio.sleep(0.005)


async def hung(fd: int, *argv: str, **changes: Any) -> tuple[asyncio.Task[Process], int]:
    """A launch that waits for that filesystem, and the pid of its process."""
    before = {*leaks.children(os.getpid())}
    launching = asyncio.create_task(Launcher().launch(request(fd, *argv, **changes)))
    return launching, await the_new_child(before)


async def given_up(launching: asyncio.Task[Process]) -> None:
    """Cancel a launch, which ends by that."""
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
