# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world of one matrix: mounts and processes of its own, a bus, a daemon, root as the caller; and what must hold.

Everything here is looked at by the kernel's word, and then held against what the daemon says.
"""

import ctypes
import os
import pwd
import random
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import hidden, leaks
from support.buses import PrivateBus
from support.client import MANAGER, Client, DBusError, Signals
from support.client import PATH as MANAGER_PATH
from support.ground import enter
from support.manager import Manager

from .daemon import Daemon
from .started import Started

PLACE = Path("/run")
BEFORE = "before"  # a namespace that is there all the time
_PATIENCE = 10.0
_IMPATIENCE = 0.5
_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_DAEMON = ("org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.ServiceUnknown")


def furnish() -> None:
    """Give this process, which is alone in its mount and pid namespace, a /run and a user database of its own.

    So nothing of the machine decides which calls are made: no journal, no name service.
    """
    if os.getpid() != 1:
        raise RuntimeError("not in a pid namespace of its own")
    os.sched_setaffinity(
        0, {random.choice([*os.sched_getaffinity(0)])}
    )  # those of one CPU have rising numbers
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(PLACE)], check=True)
    switch = PLACE / "nsswitch.conf"
    switch.write_text("passwd: files\ngroup: files\n")
    subprocess.run(["mount", "--bind", str(switch), "/etc/nsswitch.conf"], check=True)
    root = pwd.getpwuid(0)
    os.getgrouplist(root.pw_name, root.pw_gid)


@dataclass(frozen=True)
class Snapshot:
    """What there is. Attributes: mounts: but for pins; fds: of the daemon, by what they lead to."""

    mounts: Counter[tuple[str, str, str]]
    fds: Counter[str]


class World:
    """A context manager. Arguments: launcher: fork or systemd, which is a stand-in."""

    def __init__(self, launcher: str = "fork") -> None:
        (PLACE / "bus").mkdir(exist_ok=True)
        self.bus = PrivateBus("dbus-daemon", PLACE / "bus")
        self.daemon = Daemon(PLACE, self.bus.address, f"--launcher={launcher}")
        self.declared = self.daemon.configuration / "namespaces"
        self.declared.mkdir(parents=True, exist_ok=True)
        self.metadata = self.daemon.runtime / "meta"
        self.records = self.daemon.runtime / "entered"
        self._launcher = launcher
        self.manager: Manager | None = None
        self.client: Client
        self.residents: list[subprocess.Popen[bytes]] = []
        self._exits: Signals | None = None
        self.keeps = True  # a namespace from before
        self.refused = False  # whether a daemon that runs has said no
        self.impatient = False  # whether a call that is not answered at once is helped on

    @property
    def pins(self) -> Path:
        """Where the pins can be looked at."""
        return hidden.shown(self.daemon.runtime / "ns")

    def unpin(self, name: str) -> None:
        """Unmount a pin by hand."""
        command = hidden.command("umount", "--lazy", self.pins / name)
        subprocess.run(command, check=True, timeout=30)

    def __enter__(self) -> "World":
        self.bus.start()
        if self._launcher == "systemd":
            self.manager = Manager(self.bus.address, start=Started).__enter__()
        self.client = Client(self.bus.address)
        self.daemon.start()
        self.create(
            BEFORE, if_not_exists=("b", True), description=("s", "build"), labels=("a{ss}", {"k": "v"})
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()
        self.client.close()
        if self.manager is not None:
            self.manager.__exit__(None, None, None)
        self.bus.stop()

    # Calls

    def call(self, member: str, signature: str = "", *arguments: Any) -> tuple[Any, ...]:
        """Call a method of the manager; where nothing comes, see whether another call wakes the daemon up."""
        client = self.client
        serial = client.send(MANAGER_PATH, MANAGER, member, signature, *arguments)
        try:
            return client.reply(serial, _IMPATIENCE if self.impatient else _PATIENCE)
        except TimeoutError:
            client.call(MANAGER_PATH, "org.freedesktop.DBus.Peer", "Ping")
            return client.reply(serial, _PATIENCE)

    def create(self, name: str, **options: tuple[str, Any]) -> None:
        self.call("Create", "sa{sv}", name, options)

    def destroy(self, name: str, **options: tuple[str, Any]) -> list[int]:
        return list(self.call("Destroy", "sa{sv}", name, options)[0])

    def settled(self) -> bool:
        """Have one more call answered, so that what the one before has left to do is done.

        Returns: whether there is somebody to answer; where there is not, the daemon has ended.
        """
        try:
            self.client.call(MANAGER_PATH, "org.freedesktop.DBus.Peer", "Ping")
        except DBusError as error:
            if error.name not in _NO_DAEMON:
                raise
            assert self.daemon.ended(_PATIENCE), "it neither answers nor ends"
        return not self.daemon.ended()

    # Looking

    def kernel(self) -> dict[str, int]:
        """The namespaces that are pinned, by the mount table: names and inodes."""
        found = {}
        for mount in leaks.mounts_below(self.pins):
            match = re.fullmatch(r"mnt:\[(\d+)\]", mount.root)
            if match and mount.fstype == "nsfs":
                found[mount.point.rpartition("/")[2]] = int(match[1])
        return found

    def inside(self, name: str) -> list[int]:
        """The processes in a namespace."""
        inode = self.kernel().get(name)
        return [] if inode is None else leaks.processes_in({inode})

    def snapshot(self) -> Snapshot:
        others = f"{tempfile.gettempdir()}/"  # what was there when we came, and may go with its directory
        mounts = Counter(
            (mount.point, mount.fstype, mount.root)
            for mount in leaks.mounts()
            if mount.fstype != "nsfs" and not mount.point.startswith(others)
        )
        return Snapshot(mounts, self.fds())

    def fds(self) -> Counter[str]:
        """What the daemon's descriptors lead to; what was made to fail in closing is closed."""
        if not self.daemon.pid:
            return Counter()
        targets = (re.sub(r"\d+", "N", target) for target in leaks.fds_of(self.daemon.pid).values())
        # The interpreter opens /dev/urandom where getrandom(2) fails, and keeps it.
        return Counter(
            target for target in targets if "memfd:closed" not in target and target != "/dev/urandom"
        )

    def check_truth(self) -> None:
        """List says what the kernel says, and nothing is half there.  Raises AssertionError."""
        # One who is just ending may be there for one of us and not for the other.
        eventually(lambda: self.listed() == self.there(), lambda: (self.listed(), self.there()))
        kernel = self.kernel()
        assert set(os.listdir(self.pins)) == set(kernel), "files without a pin"
        assert set(os.listdir(self.metadata)) == {f"{name}.json" for name in kernel}, os.listdir(
            self.metadata
        )
        if self.keeps:
            path = f"/org/mountnsd1/namespace/{BEFORE}"
            assert self.client.get(path, "org.mountnsd1.Namespace", "Description") == "build"
            assert self.client.get(path, "org.mountnsd1.Namespace", "Labels") == {"k": "v"}

    def listed(self) -> dict[str, tuple[int, int]]:
        """The inodes and numbers of processes that List has, by name."""
        return {row[0]: (row[2], row[4]) for row in self.call("List")[0]}

    def there(self) -> dict[str, tuple[int, int]]:
        """The same by the kernel's word."""
        return {name: (inode, len(self.inside(name))) for name, inode in self.kernel().items()}

    def check_nothing_left(self, before: Snapshot, *, restarted: bool) -> None:
        """There is nothing that was not there before.  Raises AssertionError."""
        now = self.snapshot()
        assert now.mounts == before.mounts, (now.mounts - before.mounts, before.mounts - now.mounts)
        if not restarted:
            eventually(lambda: not self.fds() - before.fds, lambda: f"descriptors: {self.fds() - before.fds}")
        eventually(lambda: not self.strangers(), lambda: [leaks.describe(pid) for pid in self.strangers()])
        if self.records.exists():
            eventually(lambda: not os.listdir(self.records), lambda: os.listdir(self.records))
        if self.manager is not None:
            units = self.manager.units
            eventually(lambda: not units, lambda: units)

    def programs(self) -> list[int]:
        """The strangers that run a program of their own, and not what becomes one."""
        found = []
        for pid in self.strangers():
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/exe") != os.readlink("/proc/self/exe"):
                    found.append(pid)
        return found

    def strangers(self) -> list[int]:
        """Processes that are none of ours."""
        known = {self.daemon.pid, self.bus.pid, self.client._peer.pid, *(p.pid for p in self.residents)}
        return [pid for pid in leaks.descendants() if pid not in known and not leaks.is_zombie(pid)]

    # Signals

    def listen(self) -> None:
        """Hear how processes end that were entered."""
        if self._exits is None:
            self._exits = self.client.signals(MANAGER, "Exited")

    def wait_for_exit(self) -> None:
        """Raises DBusError where the daemon ends first."""
        assert self._exits is not None
        end = time.monotonic() + _PATIENCE
        while not self.daemon.ended():
            with suppress(TimeoutError):
                self._exits.wait(0.1)
                return
            assert time.monotonic() < end, "nobody is told"
        raise DBusError("org.freedesktop.DBus.Error.NoReply", "")

    def unlisten(self) -> None:
        if self._exits is not None:
            self._exits.close()
            self._exits = None

    # Making

    def resident(self, name: str) -> None:
        """Put a process into a namespace, by hand."""
        process = subprocess.Popen(
            ["sleep", "infinity"],
            preexec_fn=lambda: enter(self.pins / name),  # noqa: PLW1509
            stdin=subprocess.DEVNULL,
        )
        self.residents.append(process)

    def end(self, pids: list[int]) -> None:
        """Kill processes, which who started them waits for."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end_residents(self) -> None:
        for process in self.residents:
            process.kill()
            process.wait()
        self.residents.clear()


def eventually(true: Callable[[], Any], what: Callable[[], Any], seconds: float = _PATIENCE) -> None:
    """Wait until something is so.  Raises AssertionError that says what."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it never came to be: {what()}"
        time.sleep(0.002)
