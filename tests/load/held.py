# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ten thousand namespaces: made over the bus, looked at, and what all of it costs."""

import signal
import time
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from support import contract, leaks
from support.buses import PrivateBus
from support.client import MANAGER, NAMESPACE, PATH, PROPERTIES, Client
from support.daemon import Daemon
from support.raw import Frame, RawConnection

T = TypeVar("T")

MANY = 10_000
FEW = 10
_AT_ONCE = 16  # calls that are sent ahead
_PATIENCE = 120.0  # seconds for one answer
_TIMES = 3


@dataclass
class Figures:
    """What was measured.

    Attributes: few, many: ms by operation, with so many namespaces; rss: KiB by number of namespaces.
    """

    few: dict[str, float] = field(default_factory=dict)
    many: dict[str, float] = field(default_factory=dict)
    rss: dict[int, int] = field(default_factory=dict)
    per_second: float = 0.0  # creations
    destroyed_per_second: float = 0.0
    recovery: float = 0.0  # seconds from the start of a daemon until it is ready
    objects_bytes: int = 0  # of the answer to GetManagedObjects

    def summary(self) -> list[str]:
        """What is no operation's, in words."""
        grown = self.rss[MANY] - self.rss[0]
        return [
            f"created {self.per_second:.0f} a second, destroyed {self.destroyed_per_second:.0f} a second",
            f"recovered by a new daemon in {self.recovery:.2f} s",
            f"RSS {self.rss[0]} KiB at none, {self.rss[MANY]} KiB at {MANY}: {1024 * grown / MANY:.0f} bytes each",
            f"GetManagedObjects has {self.objects_bytes / 1e6:.1f} MB",
        ]


@dataclass
class Held:
    """A daemon that holds namespaces.  Attributes: names: those it is to hold; client, plain: root's."""

    daemon: Daemon
    client: Client
    plain: RawConnection
    figures: Figures = field(default_factory=Figures)
    names: list[str] = field(default_factory=list)

    def fill(self, count: int) -> None:
        """Create until there are so many."""
        new = [f"ns-{number}" for number in range(len(self.names), count)]
        begun = time.monotonic()
        self._all("Create", new)
        self.names += new
        self.figures.per_second = len(new) / (time.monotonic() - begun)

    def drop(self, names: Sequence[str]) -> None:
        """Destroy these."""
        begun = time.monotonic()
        self._all("Destroy", names)
        gone = set(names)
        self.names = [name for name in self.names if name not in gone]
        self.figures.destroyed_per_second = len(names) / (time.monotonic() - begun)

    def _all(self, member: str, names: Sequence[str]) -> None:
        waiting: deque[int] = deque()
        for name in names:
            waiting.append(self.client.send(PATH, MANAGER, member, "sa{sv}", name, {}))
            if len(waiting) >= _AT_ONCE:
                self.client.reply(waiting.popleft(), _PATIENCE)
        while waiting:
            self.client.reply(waiting.popleft(), _PATIENCE)

    def kill_and_start(self) -> None:
        """End the daemon without a word, and start another."""
        self.daemon.kill(signal.SIGKILL, 60)
        begun = time.monotonic()
        self.daemon.start(60)
        self.figures.recovery = time.monotonic() - begun

    # Looking

    def call(self, path: str, interface: str, member: str, signature: str = "", *args: Any) -> Any:
        """Call a method of the daemon, with patience."""
        return self.client.call(path, interface, member, signature, *args, timeout=_PATIENCE)

    def listed(self) -> dict[str, int]:
        """Names and inodes, as List has them."""
        return {row[0]: row[2] for row in self.call(PATH, MANAGER, "List")[0]}

    def objects(self) -> bytes:
        """The body of the answer to GetManagedObjects, which is 4 MB: too much to decode it each time."""
        body = self.raw(PATH, contract.OBJECT_MANAGER, "GetManagedObjects").body
        self.figures.objects_bytes = max(self.figures.objects_bytes, len(body))
        return body

    def raw(self, path: str, interface: str, member: str) -> Frame:
        """Call a method without arguments; the answer is not decoded."""
        answer = self.plain.reply(self.plain.call(path, interface, member), _PATIENCE)
        assert not answer.error_name, answer.error_name
        return answer

    def children(self) -> set[str]:
        """Object paths, as Introspect has them."""
        (text,) = self.call(f"{PATH}/namespace", contract.INTROSPECTABLE, "Introspect")
        nodes = ET.fromstring(text).iter("node")
        return {f"{PATH}/namespace/{node.attrib['name']}" for node in nodes if node.attrib}

    def pinned(self) -> dict[str, int]:
        """Names and inodes, as the kernel has them."""
        below = leaks.mounts_below(self.daemon.pins)
        return {Path(one.point).name: int(one.root[5:-1]) for one in below if one.fstype == "nsfs"}

    # Measuring

    def measure(self, costs: dict[str, float]) -> None:
        """Measure each operation, into `costs`: ms, the median of a few."""
        object_path = contract.path_of("ns-1")
        operations: dict[str, Callable[[], object]] = {
            "Ping": lambda: self.call(PATH, contract.PEER, "Ping"),
            "GetNamespace": lambda: self.call(PATH, MANAGER, "GetNamespace", "s", "ns-1"),
            "GetAll": lambda: self.call(object_path, PROPERTIES, "GetAll", "s", NAMESPACE),
            "GetMounts": lambda: self.call(object_path, NAMESPACE, "GetMounts"),
            "Open": lambda: self.call(object_path, NAMESPACE, "Open"),
            "Enter of true": lambda: self._enter(object_path),
            "List": self._list,
            "Introspect": lambda: self.raw(f"{PATH}/namespace", contract.INTROSPECTABLE, "Introspect"),
            "GetManagedObjects": self.objects,
        }
        for what, operation in operations.items():
            costs[what] = median(_ms(operation) for _ in range(_TIMES))
        made = [f"one-{number}" for number in range(_TIMES)]
        costs["Create"] = median(_ms(partial(contract.create, self.client, name)) for name in made)
        costs["List after a change"] = _ms(self._list)
        costs["Destroy"] = median(_ms(partial(contract.destroy, self.client, name)) for name in made)
        self.figures.rss[len(self.names)] = self.daemon.rss_kib()

    def _enter(self, path: str) -> None:
        _, pidfd = self.call(path, NAMESPACE, "Enter", "asa{uh}a{sv}", ["true"], {}, {})
        pidfd.close()

    def _list(self) -> Frame:
        return self.raw(PATH, MANAGER, "List")

    def take_down(self) -> None:
        """Stop the daemon, and detach the holder with all its pins at once."""
        self.daemon.kill(signal.SIGTERM, 60)
        for mount in leaks.mounts_below(self.daemon.pins):
            if mount.point == str(self.daemon.pins) and mount.source == "mountnsd":
                leaks.detach(mount)


def _ms(operation: Callable[[], object]) -> float:
    begun = time.monotonic()
    operation()
    return 1000 * (time.monotonic() - begun)


@contextmanager
def holding(directory: Path) -> Iterator[Held]:
    """A daemon on a bus of its own that holds nothing yet; everything is taken down at the end.

    Arguments: directory: an existing one, which all users can reach.
    """
    for name in ("bus", "daemon"):
        (directory / name).mkdir()
    with (
        PrivateBus("dbus-daemon", directory / "bus") as bus,
        Daemon(bus, directory / "daemon") as daemon,
        Client(bus.address) as client,
        RawConnection(bus.address) as plain,
    ):
        held = Held(daemon, client, plain)
        held.figures.rss[0] = daemon.rss_kib()
        try:
            yield held
        finally:
            held.take_down()


def story(held: Held) -> None:
    """Everything that is measured, in order; leaves `MANY` but for what is dropped at the end."""
    held.fill(FEW)
    held.measure(held.figures.few)
    held.fill(MANY)
    held.measure(held.figures.many)
