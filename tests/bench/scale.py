# SPDX-License-Identifier: LGPL-2.1-or-later
"""The story of one kind of holder: an idle daemon, a few namespaces, many calls at once, and ten thousand namespaces.

Out of scope: what comes of the figures (goals.py).
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

from support.daemon import Daemon

from . import ground as grounds
from . import lists, memory, operations, startup, throughput
from .ground import Ground
from .installed import HIDDEN, Installed
from .lists import Lsns
from .memory import Memory, Rest
from .operations import Key, World
from .peers import PREFIX, Bare, Mountnsd, Netns, Unshare, delete_netns, kept_netns
from .sample import Samples
from .throughput import Rate
from .wire import Wire

_MINUTE = 60.0  # seconds
_FEWEST = 9  # rounds, however long they take
WARM = 4 * throughput.AT_ONCE  # calls of many at once, before memory is looked at
LSNS, LSNS_NEW = "lsns -t mnt", "lsns -t mnt of util-linux 2.41"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes: few, middle, many: numbers of namespaces; rounds, rounds_many: of all operations, fewer where these
        take more than a minute; calls: so many in one measurement of throughput; starts: of the daemon; idle: seconds
        of rest; say: told what is done.
    """

    few: int
    middle: int
    many: int
    rounds: int
    rounds_many: int
    calls: int
    starts: int
    idle: float
    say: Callable[[str], None]


@dataclass
class Outcome:
    """What was measured with one kind of holder.

    Attributes: holder; few, many: ms, by operation and who; few_alone, many_alone: of rounds without the peers;
        rates; idle: Memory of a daemon that has just started; warm: of one that keeps nothing either but has done
        one of each; created: by number of namespaces, of a daemon that made them, and `restarted`, of one that found
        them, both after one of each; recovery: ms by number; cold: ms; rests: by number; shown: how many of the pins
        each lsns showed of `many`; refused: how often unshare(1) failed.
    """

    holder: str
    few: Samples[Key] = field(default_factory=Samples)
    many: Samples[Key] = field(default_factory=Samples)
    few_alone: Samples[Key] = field(default_factory=Samples)
    many_alone: Samples[Key] = field(default_factory=Samples)
    rates: list[Rate] = field(default_factory=list)
    idle: Memory = memory.NONE
    warm: Memory = memory.NONE
    created: dict[int, Memory] = field(default_factory=dict)
    restarted: dict[int, Memory] = field(default_factory=dict)
    recovery: dict[int, list[float]] = field(default_factory=dict)
    cold: list[float] = field(default_factory=list)
    rests: dict[int, Rest] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)
    refused: int = 0


class Story:
    """One daemon on its bus, and who it is compared with.  `tell` does it all."""

    def __init__(
        self, daemon: Installed, wires: list[Wire], world: World, plan: Plan, outcome: Outcome
    ) -> None:
        self._daemon = daemon
        self._wires = wires
        self._world = world
        self._plan = plan
        self._outcome = outcome
        self._names: list[str] = []
        self._round = 0

    def tell(self, lsns: dict[str, Lsns]) -> None:
        """Measure everything that is done with one daemon.  Arguments: lsns: by what it is called in the table."""
        plan, outcome = self._plan, self._outcome
        outcome.idle = memory.of(self._daemon.pid)
        self._rest(0)
        self._one_of_each()
        outcome.warm = self._memory()
        self._fill(plan.few)
        lsns = {who: lists.among(one, self._daemon.anchor) for who, one in lsns.items()}
        if self._world.netns is not None:
            for number in range(plan.few):
                self._world.netns.create(f"{PREFIX}-stays-{number}")
        self._rounds(outcome.few, plan.rounds, lsns)
        delete_netns()
        self._rounds_alone(outcome.few_alone)
        self._throughput()
        self._fill(plan.middle)
        outcome.created[plan.middle] = self._memory()
        self._restart(plan.middle)
        self._fill(plan.many)
        outcome.created[plan.many] = self._memory()
        self._rounds_alone(outcome.many_alone)
        self._rounds(outcome.many, plan.rounds_many, lsns)
        outcome.shown = {who: lists.rows(one, self._daemon.holder) for who, one in lsns.items()}
        self._rest(plan.many)
        self._restart(plan.many)
        outcome.refused = self._world.unshare.refused

    def _say(self, what: str) -> None:
        self._plan.say(f"{self._outcome.holder} holder: {what}")

    def _one_of_each(self) -> None:
        """Do all that this measures, once, and many at once: what the daemon keeps of a first time is there then."""
        operations.measure(self._world, 0, Samples())
        names = [f"warm-{number}" for number in range(WARM)]
        for wires in (self._wires[:1], self._wires):
            for member in ("Create", "Destroy"):
                throughput.rate(wires, member, names, self._daemon.pid, self._daemon.bus.pid)

    def _settle(self) -> None:
        """Leave the daemon alone, until what it does a while after the last call (garbage.py) is over."""
        time.sleep(self._plan.idle + 1)

    def _memory(self) -> Memory:
        self._settle()
        return memory.of(self._daemon.pid)

    def _rest(self, count: int) -> None:
        """Leave the daemon alone, once it has taken in all that was mounted."""
        self._settle()
        self._outcome.rests[count] = memory.rest(self._daemon.pid, self._plan.idle)

    def _fill(self, count: int) -> None:
        """Create until there are so many."""
        new = [f"ns-{number}" for number in range(len(self._names), count)]
        made = throughput.rate(self._wires[:1], "Create", new, self._daemon.pid, self._daemon.bus.pid)
        self._names += new
        self._say(f"{count} namespaces, made {made.per_second:.0f} a second")

    def _rounds(self, samples: Samples[Key], rounds: int, lsns: dict[str, Lsns]) -> None:
        """Measure all operations so many times, and what takes long a few times."""
        every = max(rounds // 3, 1)
        begun = time.monotonic()
        for number in range(rounds):
            if number >= _FEWEST and time.monotonic() > begun + _MINUTE:
                break
            if number % every == 0:
                self._say(f"{len(self._names)} namespaces, round {number + 1} of {rounds}")
                for who, one in lsns.items():
                    samples.add((operations.LIST, who), self._world.floor.run(*one.command))
            self._round += 1
            operations.measure(self._world, self._round, samples)

    def _rounds_alone(self, samples: Samples[Key]) -> None:
        """Measure what grows, without the peers."""
        self._say(f"{len(self._names)} namespaces, {self._plan.rounds} rounds without the peers")
        operations.measure_alone(self._world, 0, Samples())  # the first finds what was done before
        for number in range(self._plan.rounds):
            operations.measure_alone(self._world, number, samples)

    def _throughput(self) -> None:
        names = [f"fast-{number}" for number in range(self._plan.calls)]
        for wires in (self._wires[:1], self._wires):
            for member in ("Create", "Destroy"):
                rate = throughput.rate(wires, member, names, self._daemon.pid, self._daemon.bus.pid)
                self._outcome.rates.append(rate)
                self._say(
                    f"{member}, {throughput.AT_ONCE} in flight: {rate.per_second:.0f} a second; {rate.said()}"
                )

    def _restart(self, count: int) -> None:
        """Recover so many, a few times."""
        found = [startup.recovery(self._daemon) for _ in range(self._plan.starts)]
        self._outcome.recovery[count] = found
        self._one_of_each()
        self._outcome.restarted[count] = self._memory()
        self._say(f"recovered {count} namespaces in {median(found):.0f} ms")


def offers(ground: Ground, holder: str) -> bool:
    """Whether the daemon knows this kind of holder: it starts with that setting."""
    with grounds.bus(ground, f"probe-bus-{holder}") as bus:
        try:
            with _daemon(
                ground, Installed(ground.program, bus, ground.room(f"probe-{holder}"), ground.disk, holder)
            ):
                return True
        except RuntimeError:
            return False


def measure(ground: Ground, holder: str, lsns: dict[str, Lsns], plan: Plan) -> Outcome:
    """Measure one kind of holder, from an empty one to a full one; nothing of it is left."""
    outcome = Outcome(holder)
    with ExitStack() as stack:
        bus = stack.enter_context(grounds.bus(ground, f"bus-{holder}"))
        daemon = Installed(ground.program, bus, ground.room(f"daemon-{holder}"), ground.disk, holder)
        stack.enter_context(_daemon(ground, daemon))
        if (daemon.anchor is not None) != (holder == HIDDEN):
            raise RuntimeError(f"the holder is to be {holder}, and its anchor is {daemon.anchor}")
        environment = ground.environment(bus.address, daemon.runtime)
        stack.enter_context(kept_netns())
        floor = stack.enter_context(grounds.floor(ground, environment))
        netns = Netns(floor)
        wires = [stack.enter_context(Wire(bus.address)) for _ in range(throughput.AT_ONCE)]
        world = World(
            ours=Mountnsd(wires[0]),
            unshare=Unshare(floor, ground.pins),
            netns=netns if netns.works() else None,
            bare=Bare(floor, ground, daemon.anchor),
            floor=floor,
            ctl=ground.program.ctl,
            python=sys.executable,
        )
        Story(daemon, wires, world, plan, outcome).tell(lsns)
    outcome.cold = startup.cold_starts(ground, holder, plan.starts * 2 + 1)
    plan.say(f"{holder} holder: started by its first call in {median(outcome.cold):.0f} ms")
    return outcome


@contextmanager
def _daemon(ground: Ground, daemon: Daemon) -> Iterator[None]:
    """The daemon, running; then all its mounts are detached at once."""
    try:
        daemon.start(60)
        yield
    finally:
        if daemon.process is not None:
            daemon.stop()
        grounds.take_down(daemon.runtime)


def systems(say: Callable[[str], None], quick: bool) -> dict[str, Lsns]:
    """The lsns there are, by what they are called in the table."""
    found = {LSNS: lists.installed()}
    newest = lists.newest(say, quick)
    return found if newest is None else {**found, LSNS_NEW: newest}
