# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is measured: mountnsd over D-Bus, util-linux, iproute2, and the bare system calls, each through one life.

Every one of them creates, enters, and destroys, one namespace at a time, and says how long each took.  Those of
util-linux are used as a person does it: FILE lies on a private mount and is touched before; every command is timed
from its start to its end, and started by a process that is small.
"""

import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from support import contract, leaks
from support.client import BUS_NAME, BUS_PATH, MANAGER, NAMESPACE, PATH

from .floor import Floor, FloorError
from .ground import Ground
from .wire import Answer, Refused, Wire, call

TRUE = "/bin/true"
NETNS = Path("/run/netns")
PREFIX = f"bench-{os.getpid()}"  # of all names
_TRIES = 20  # in a container, the kernel refuses some pins of unshare(1)


class Peer(Protocol):
    """Somebody who can do it."""

    def create(self, name: str) -> float:
        """Make a namespace of that name; returns the ms."""

    def enter(self, name: str) -> float:
        """Run true(1) inside, until it is known to have ended; returns the ms."""

    def destroy(self, name: str) -> float:
        """Let the namespace end; returns the ms."""


def timed(work: Callable[[], object]) -> float:
    """How many ms some work takes."""
    begun = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - begun) / 1e6


class Mountnsd:
    """The daemon, called by one connection of root's.  All messages are marshalled before the time is taken."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._ping = call(PATH, contract.PEER, "Ping")
        self._bus_ping = call(BUS_PATH, BUS_NAME, "GetId", to=BUS_NAME)
        self._list = call(PATH, MANAGER, "List")
        self._look = call(PATH, MANAGER, "GetNamespace", "s", "nobody-has-this-name")

    def settle(self) -> None:
        """Let it take in what was mounted meanwhile, so that this is not counted as work of the next call."""
        with suppress(Refused):
            self._wire.ask(self._look)

    def create(self, name: str) -> float:
        """Create."""
        return self._ask(call(PATH, MANAGER, "Create", "sa{sv}", name, {}))

    def destroy(self, name: str) -> float:
        """Destroy."""
        return self._ask(call(PATH, MANAGER, "Destroy", "sa{sv}", name, {}))

    def enter(self, name: str) -> float:
        """Enter, until the signal Exited has come."""
        frame = call(PATH, MANAGER, "Enter", "sasa{uh}a{sv}", name, [TRUE], {}, {})
        return timed(lambda: self._until_exited(frame))

    def _until_exited(self, frame: bytearray) -> None:
        (pid,) = struct.unpack_from("<I", self._wire.ask(frame).body)
        while not self._says_exited(self._wire.receive(), pid):
            pass

    @staticmethod
    def _says_exited(message: Answer, pid: int) -> bool:
        return len(message.body) >= 4 and struct.unpack_from("<I", message.body)[0] == pid

    def open(self, name: str) -> float:
        """Open."""
        return self._ask(call(PATH, MANAGER, "Open", "s", name))

    def mounts(self, name: str) -> float:
        """GetMounts."""
        return self._ask(call(contract.path_of(name), NAMESPACE, "GetMounts"))

    def list(self) -> float:
        """List."""
        return self._ask(self._list)

    def ping(self) -> float:
        """A round trip to the daemon."""
        return self._ask(self._ping)

    def bus_ping(self) -> float:
        """A round trip to the bus alone."""
        return self._ask(self._bus_ping)

    def _ask(self, frame: bytearray) -> float:
        return timed(lambda: self._wire.ask(frame))


class Unshare:
    """unshare(1), nsenter(1), umount(8) and rm(1).  Attributes: refused: how often unshare(1) failed."""

    def __init__(self, floor: Floor, directory: Path) -> None:
        self._floor = floor
        self._directory = directory
        self.refused = 0

    def pin(self, name: str) -> str:
        """Where the namespace is pinned."""
        return str(self._directory / name)

    def create(self, name: str) -> float:
        """By `unshare --mount=FILE true`.  Raises: FloorError."""
        file = Path(self.pin(name))
        for _ in range(_TRIES):
            file.touch()
            elapsed, status = self._floor.attempt("run", "unshare", f"--mount={file}", "true")
            if status == 0:
                return elapsed
            self.refused += 1
        raise FloorError(f"unshare --mount={file} true: status {status}")

    def enter(self, name: str) -> float:
        """By `nsenter --mount=FILE /bin/true`."""
        return self._floor.run("nsenter", f"--mount={self.pin(name)}", TRUE)

    def destroy(self, name: str) -> float:
        """By `umount FILE` and `rm FILE`."""
        return self._floor.run("umount", self.pin(name)) + self._floor.run("rm", self.pin(name))


class Netns:
    """`ip netns`: the same idea, of network namespaces, in the host's /run/netns."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def works(self) -> bool:
        """Whether one can be made and deleted here."""
        commands = (("ip", "netns", what, PREFIX) for what in ("add", "delete"))
        return all(self._floor.attempt("run", *command)[1] == 0 for command in commands)

    def create(self, name: str) -> float:
        """By `ip netns add NAME`."""
        return self._floor.run("ip", "netns", "add", name)

    def enter(self, name: str) -> float:
        """By `ip netns exec NAME true`."""
        return self._floor.run("ip", "netns", "exec", name, TRUE)

    def destroy(self, name: str) -> float:
        """By `ip netns delete NAME`."""
        elapsed = self._floor.run("ip", "netns", "delete", name)
        time.sleep(0.03)  # the kernel takes the network down afterwards
        return elapsed

    def list(self) -> float:
        """By `ip netns list`."""
        return self._floor.run("ip", "netns", "list")


def delete_netns() -> None:
    """Delete all network namespaces that this run has made.  Raises: subprocess.CalledProcessError."""
    for path in sorted(NETNS.glob(f"{PREFIX}*")):
        subprocess.run(["ip", "netns", "delete", path.name], check=True)


@contextmanager
def kept_netns() -> Iterator[None]:
    """Leave /run/netns as it was.  Whoever makes network namespaces meanwhile has ended at the end."""
    existed = NETNS.exists()
    mounted = any(mount.point == str(NETNS) for mount in leaks.mounts())
    try:
        yield
    finally:
        delete_netns()
        if not mounted:
            for mount in leaks.mounts_below(NETNS)[::-1]:
                leaks.detach(mount)
        if not existed and NETNS.exists():
            NETNS.rmdir()


class Bare:
    """The system calls alone, in C.

    Arguments: anchor: the pin of the mount namespace that the pins are in; None is the host's.
    """

    def __init__(self, floor: Floor, ground: Ground, anchor: Path | None = None) -> None:
        self._floor = floor
        self._directory = str(ground.directory)
        floor.ask("hold", str(ground.holder), *([str(anchor)] if anchor is not None else []))

    def create(self, name: str) -> float:
        """A thread, unshare(2), the propagation, the holder detached; open_tree(2), a file, move_mount(2)."""
        for _ in range(_TRIES):
            elapsed, status = self._floor.attempt("create", name)
            if status == 0:
                return elapsed
        raise FloorError(f"create {name}: {os.strerror(-status)}")

    def enter(self, name: str) -> float:
        """fork(2), setns(2), execve(2), waitpid(2)."""
        return self._floor.ask("enter", name, TRUE)

    def destroy(self, name: str) -> float:
        """umount2(2) and unlink(2)."""
        return self._floor.ask("destroy", name)

    def open(self, name: str) -> float:
        """open(2)."""
        return self._floor.ask("open", name)

    def mounts(self, name: str) -> float:
        """A thread, setns(2), and its mount table read."""
        return self._floor.ask("look", name)

    def list(self) -> float:
        """The mount table that has the pins, read and not looked at."""
        return self._floor.ask("table")

    def keep(self) -> float:
        """A file of the size of the metadata, written and renamed, as a creation does it."""
        return self._floor.ask("keep", self._directory)
