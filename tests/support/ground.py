# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ground that a holder and its registry stand on, without D-Bus: runtime directories, containers, residents.

A container here is a child process in a mount namespace of its own, as far as mounts go what one in a container
sees: everything shared or everything private.  What is mounted there ends with it.
"""

import ctypes
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from mountnsd import mountinfo
from mountnsd.holder import Holder
from mountnsd.metadata import MetadataStore
from mountnsd.mountinfo import Mount
from mountnsd.named import Limits
from mountnsd.registry import Registry

from . import hidden, leaks

T = TypeVar("T")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x20000
_MS_REC = 1 << 14
_MS_PRIVATE = 1 << 18
_MS_SHARED = 1 << 20


def call(result: int) -> None:
    """Raise OSError for a C call that failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def propagate(flag: int) -> None:
    """Give every mount here that propagation, MS_PRIVATE or MS_SHARED."""
    call(_LIBC.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | flag), None))


def enter(pin: str | Path) -> None:
    """Move this process into a pinned mount namespace."""
    fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    try:
        call(_LIBC.setns(fd, _CLONE_NEWNS))
    finally:
        os.close(fd)


def forked(work: Callable[[], T], timeout: float = 60.0) -> T:
    """Do the work in a child process; returns what it returns, raises what it raised as AssertionError."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            data = pickle.dumps((True, work()))
        except BaseException:  # noqa: BLE001 - told to the parent
            data = pickle.dumps((False, traceback.format_exc()))
        with suppress(OSError):
            while data:
                data = data[os.write(writing, data) :]
        os._exit(0)
    os.close(writing)
    data = b""
    deadline = time.monotonic() + timeout
    try:
        while select.select([reading], [], [], max(deadline - time.monotonic(), 0))[0]:
            part = os.read(reading, 1 << 16)
            if not part:
                break
            data += part
        else:
            raise AssertionError(f"not done within {timeout} s")
    finally:
        os.close(reading)
        leaks.end(pid)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    assert data, "the child ended without a word"
    fine, value = pickle.loads(data)
    assert fine, value
    result: T = value
    return result


def contained(work: Callable[[], T], *, shared: bool = True, timeout: float = 60.0) -> T:
    """Do the work in a container.

    Arguments: shared: whether its mounts propagate, as under systemd, or not.
    """

    def body() -> T:
        call(_LIBC.unshare(_CLONE_NEWNS))
        propagate(_MS_PRIVATE)
        if shared:
            propagate(_MS_SHARED)
        return work()

    return forked(body, timeout)


class Ground:
    """A runtime directory, and a registry on it.  A context manager that takes everything down at the end.

    Arguments: directory: an existing one; limits: of the registry.  Attributes: registry; runtime; pins.
    """

    def __init__(self, directory: Path, limits: Limits | None = None) -> None:
        self.runtime = directory / "run"
        self.limits = limits or Limits()
        self._registry: Registry | None = None

    @property
    def holder(self) -> Path:
        """The visible holder."""
        return self.runtime / "ns"

    @property
    def pins(self) -> Path:
        """The directory of the pins: the holder, or where one that is hidden can be looked at."""
        return hidden.shown(self.holder)

    @property
    def registry(self) -> Registry:
        """The registry, which has recovered."""
        assert self._registry is not None
        return self._registry

    def start(self) -> Registry:
        """A registry as a daemon's start makes it."""
        assert self._registry is None
        holder = Holder.ensure(str(self.runtime), hide=hidden.HIDE)
        self._registry = Registry(holder, MetadataStore(str(self.runtime)), self.limits)
        self._registry.recover()
        assert (
            self.pins.exists()
        )  # from now on what is done by hand to a path of a pin is done where the holder is
        return self._registry

    def stop(self) -> None:
        """Close the registry; its namespaces stay."""
        registry, self._registry = self._registry, None
        if registry is not None:
            registry.close()

    def restart(self) -> Registry:
        """Stop and start: a recovery."""
        self.stop()
        return self.start()

    def lying(self) -> tuple[set[str], set[str]]:
        """The names in the holder, and those in the metadata directory."""
        return set(os.listdir(self.pins)), set(os.listdir(self.runtime / "meta"))

    def close(self) -> None:
        """Take down holder and pins, whatever lies over them, and end who is inside."""
        self.stop()
        below = leaks.mounts_below(self.runtime)
        pins = leaks.mounts_below(self.pins)
        hidden.close(self.holder)
        inodes = {int(mount.root[5:-1]) for mount in pins if mount.root.startswith("mnt:[")}
        for pid in leaks.processes_in(inodes):
            if pid != os.getpid():
                leaks.end(pid)
        for mount in reversed(below):
            with suppress(OSError):
                leaks.detach(mount)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def resident(
    pin: str | Path, command: Sequence[str] = ("sleep", "infinity"), *, ready: bool = False
) -> Iterator[int]:
    """A process inside a pinned namespace; gives its pid.  It is ended at the end, if it still runs.

    Arguments: command: what it runs; ready: whether to wait until it has written a line.
    """
    with subprocess.Popen(
        command,
        preexec_fn=lambda: enter(pin),  # noqa: PLW1509 - only helper threads, which hold no lock
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            if ready:
                assert process.stdout is not None
                assert process.stdout.readline()
            yield process.pid
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def run(*command: str | Path) -> str:
    """Run a command that must succeed; gives its output.  Raises: AssertionError with what it said."""
    result = subprocess.run(hidden.command(*command), capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, f"{command}: {result.stderr}"
    return result.stdout


def host_mounts(directory: Path) -> list[Mount]:
    """The mounts here, but for those of other tests that may run beside this one, in other directories."""
    own = f"{directory}/"
    return [
        mount
        for mount in mountinfo.parse(mountinfo.read())
        if mount.target.startswith(own) or not mount.target.startswith(f"{tempfile.gettempdir()}/")
    ]


def fd_count() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def attempt(function: Callable[[], object]) -> int:
    """The errno with which something fails, 0 where it does not."""
    try:
        function()
    except OSError as error:
        return error.errno or -1
    return 0


def as_user(uid: int, work: Callable[[], T]) -> T:
    """Do the work in a child process of that user, in no group but one of his number."""

    def body() -> T:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        return work()

    return forked(body)
