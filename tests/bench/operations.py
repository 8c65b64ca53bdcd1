# SPDX-License-Identifier: LGPL-2.1-or-later
"""One round of measurements: a namespace of each peer goes through its life, and every step is timed for all.

In each step the peers take turns in being first.  Before a call of the daemon is timed, it has taken in what was
mounted before; what that costs is an operation of its own, "after a change".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .floor import Floor
from .peers import PREFIX, Bare, Mountnsd, Netns, Peer, Unshare
from .sample import Samples

# Operations
CREATE, ENTER, DESTROY = "Create", "Enter until Exited", "Destroy"
OPEN, MOUNTS, LIST = "Open", "GetMounts", "List"
OPEN_CHANGED, LIST_CHANGED = "Open after a change", "List after a change"
EXEC, CTL_LIST, CTL_VERSION = "mountnsctl exec NAME true", "mountnsctl list", "mountnsctl --version"
PING = "Peer.Ping"
KEEP = "a file of metadata"
SERVED = (
    CREATE,
    ENTER,
    DESTROY,
    OPEN,
    MOUNTS,
    LIST,
    OPEN_CHANGED,
    LIST_CHANGED,
    EXEC,
    CTL_LIST,
    CTL_VERSION,
    PING,
)

# Who
OURS, UNSHARE, NETNS, BARE = "mountnsd", "unshare, nsenter, umount + rm", "ip netns", "bare system calls"
PYTHON, BUS = "python3 -c pass", "the bus alone"

# What is measured of us and the bare system calls alone, too, for what grows.  A List of thousands is not among them:
# it leaves nothing in the caches of the processor.
ALONE = (CREATE, OPEN_CHANGED, OPEN, MOUNTS, ENTER, EXEC, DESTROY)

Key = tuple[str, str]


@dataclass
class World:
    """All who take part.  Attributes: python: the interpreter that mountnsctl runs in."""

    ours: Mountnsd
    unshare: Unshare
    netns: Netns | None
    bare: Bare
    floor: Floor
    ctl: Path
    python: str

    def peers(self) -> dict[str, Peer]:
        """Who has namespaces, by name."""
        found: dict[str, Peer] = {OURS: self.ours, UNSHARE: self.unshare, BARE: self.bare}
        return found if self.netns is None else {**found, NETNS: self.netns}


def measure(world: World, number: int, samples: Samples[Key]) -> None:
    """One round, which leaves no namespace.  Raises: FloorError; as `Wire.answer`."""
    name = f"{PREFIX}-{number}"
    for operation, steps in _steps(world, name):
        turn = number % len(steps)
        for who, step in [*steps.items()][turn:] + [*steps.items()][:turn]:
            if who == OURS and operation not in (LIST_CHANGED, OPEN_CHANGED):
                world.ours.settle()
            samples.add((operation, who), step())


def measure_alone(world: World, number: int, samples: Samples[Key]) -> None:
    """One round of us and the bare system calls, as `measure`.  Raises as that."""
    name = f"{PREFIX}-alone-{number}"
    for operation, steps in _steps(world, name):
        if operation in ALONE:
            for who in sorted(steps.keys() & {OURS, BARE}, reverse=number % 2 == 0):
                if who == OURS and operation != OPEN_CHANGED:
                    world.ours.settle()
                samples.add((operation, who), steps[who]())


def _steps(world: World, name: str) -> Iterator[tuple[str, dict[str, Callable[[], float]]]]:
    """Every operation in its order, and how each who can do it does it."""
    ours, bare, floor = world.ours, world.bare, world.floor
    peers = world.peers()
    yield CREATE, {who: _on(peer.create, name) for who, peer in peers.items()}
    yield OPEN_CHANGED, {OURS: _on(ours.open, name)}
    yield OPEN, {OURS: _on(ours.open, name), BARE: _on(bare.open, name)}
    yield MOUNTS, {OURS: _on(ours.mounts, name), BARE: _on(bare.mounts, name)}
    yield PING, {OURS: ours.ping, BUS: ours.bus_ping}
    yield KEEP, {BARE: bare.keep}
    yield ENTER, {who: _on(peer.enter, name) for who, peer in peers.items()}
    ctl = str(world.ctl)
    yield EXEC, {OURS: lambda: floor.run(ctl, "exec", name, "true")}
    yield PYTHON, {PYTHON: lambda: floor.run(world.python, "-c", "pass")}
    yield CTL_LIST, {OURS: lambda: floor.run(ctl, "list")}
    yield CTL_VERSION, {OURS: lambda: floor.run(ctl, "--version")}
    lists: dict[str, Callable[[], float]] = {OURS: ours.list, BARE: bare.list}
    yield LIST, lists if world.netns is None else {**lists, NETNS: world.netns.list}
    yield DESTROY, {who: _on(peer.destroy, name) for who, peer in peers.items()}
    yield LIST_CHANGED, {OURS: ours.list}


def _on(work: Callable[[str], float], name: str) -> Callable[[], float]:
    return lambda: work(name)
