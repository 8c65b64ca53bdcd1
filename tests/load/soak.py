# SPDX-License-Identifier: LGPL-2.1-or-later
"""A run: callers at work, restarts at random, checks after each and at the end.

In the first part the daemon is ended and started again, and told to reload, at random moments.  In the second one
daemon lives through, so that its memory can be seen to stay.
"""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from support import leaks
from support.buses import Kind, PrivateBus
from support.client import MANAGER, PATH, PROPERTIES
from support.daemon import Daemon

from . import truth
from .caller import Caller, Lost, Refused
from .connection import Connection
from .mix import HANG_UP, MIX
from .model import Known
from .tally import Restart, Sample
from .world import World
from .yes import YesPolkit

UIDS = (0, 65534, 1, 2, 3)  # root, and users that every Debian has: nobody, daemon, bin, sys
RESTARTING = 0.6  # the part of a run in which the daemon is restarted
MOST_GROWTH = 8 * 1024  # KiB, of the daemon's memory in the part without restarts
_WARM_UP = 0.25  # of the part without restarts
_WAYS = (
    signal.SIGKILL,
    signal.SIGTERM,
    signal.SIGHUP,
)  # each comes, however short the run and slow the machine


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run.

    Attributes: pause: seconds between restarts, on the average; think: seconds at most between a caller's calls;
        say: gets lines on how it goes.
    """

    seconds: float
    seed: int
    bus: Kind = "dbus-daemon"
    callers: int = 100
    pause: float = 12.0
    think: float = 0.05
    say: Callable[[str], None] = lambda _line: None


async def run(plan: Plan, directory: Path) -> World:
    """Do it.

    Arguments: directory: an existing one, which all users can reach.
    Returns: the world after it: `wrong` is empty where all promises were kept.
    """
    for name in ("bus", "daemon"):
        (directory / name).mkdir()
    with PrivateBus(plan.bus, directory / "bus") as bus, Daemon(bus, directory / "daemon") as daemon:
        world = World(daemon, plan.seed)
        async with _polkit_and_observer(world) as observer:
            await _Run(plan, world, observer).run()
        for pid in truth.in_lost_namespaces(world):
            leaks.end(pid)
    return world


@asynccontextmanager
async def _polkit_and_observer(world: World) -> AsyncIterator[Connection]:
    polkit = await YesPolkit.start(world.address)
    observer = Connection(world.address)
    try:
        await observer.connect()
        yield observer
    finally:
        observer.close()
        polkit.close()


class _Run:
    def __init__(self, plan: Plan, world: World, observer: Connection) -> None:
        self._plan = plan
        self._world = world
        self._observer = observer
        self._random = random.Random(plan.seed)
        self._fds_at_start = 0

    async def run(self) -> None:
        world, plan = self._world, self._plan
        everybody: list[Known] = []
        callers = [Caller(world, n, UIDS[n % len(UIDS)], everybody) for n in range(plan.callers)]
        for caller in callers:
            await caller.connect()
        self._begin_life()
        world.tally.started = time.monotonic()
        tasks = [asyncio.ensure_future(_live(caller, plan.think)) for caller in callers]
        sampler = asyncio.ensure_future(self._sample())
        try:
            await self._restart_at_random(plan.seconds * RESTARTING)
            world.steady_from = world.tally.second
            await self._until(plan.seconds)
            await world.quiet()
            await truth.check(world, self._observer)
            self._judge_memory()
        finally:
            world.ending = True
            world.open()
            sampler.cancel()
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for caller in callers:
                caller.connection.close()
        for end in ended:
            if isinstance(end, Exception):
                world.complain(f"a caller broke: {end!r}")
        await self._clear()

    def _begin_life(self) -> None:
        world = self._world
        world.life += 1
        world.up = True
        self._fds_at_start = len(world.daemon.open_fds())
        world.open()

    async def _until(self, second: float) -> None:
        """Let it run, with a look at everything now and then."""
        tally = self._world.tally
        while (left := second - tally.second) > 0:
            await asyncio.sleep(min(left, 30.0))
            if second - tally.second > 5:
                await self._world.quiet()
                await truth.check(self._world, self._observer)
                self._world.open()

    # Restarts

    def _ways(self) -> Iterator[signal.Signals]:
        yield from _WAYS
        while True:
            yield self._random.choice(_WAYS)

    async def _restart_at_random(self, second: float) -> None:
        tally = self._world.tally
        for number, way in enumerate(self._ways()):
            pause = self._plan.pause * self._random.uniform(0.3, 1.7)
            if tally.second + pause > second and number >= len(_WAYS):
                return
            await asyncio.sleep(pause)
            if way is signal.SIGHUP:
                await self._reload()
            else:
                await self._restart(way)

    async def _restart(self, way: signal.Signals) -> None:
        """End the daemon in the midst of it all, start it into the midst of calls, and look."""
        world = self._world
        world.up = False
        await asyncio.to_thread(world.daemon.kill, way, 60.0)
        world.forget_ended()
        begun = time.monotonic()
        await asyncio.to_thread(world.daemon.start, 60.0)
        took = time.monotonic() - begun
        self._begin_life()
        await world.quiet()
        await truth.check(world, self._observer)
        kept = len(truth.pinned(world))
        world.tally.restarts.append(Restart(world.tally.second, way.name, took, kept))
        self._plan.say(
            f"{world.tally.second:6.1f} s  {way.name}, ready after {took:.2f} s with {kept} namespaces"
        )
        world.open()

    async def _reload(self) -> None:
        """Change a limit, and see that it holds."""
        world = self._world
        limit = 16000 + world.tally.reloads
        (world.daemon.configuration / "mountnsd.toml").write_text(f"max_namespaces = {limit}\n")
        assert world.daemon.process is not None
        world.daemon.process.send_signal(signal.SIGHUP)
        world.tally.reloads += 1
        deadline = time.monotonic() + 30
        while await self._limit() != limit:
            if time.monotonic() > deadline:
                world.complain("a reload had no effect")
                break
            await asyncio.sleep(0.02)
        self._plan.say(f"{world.tally.second:6.1f} s  SIGHUP, max_namespaces is {limit}")

    async def _limit(self) -> int:
        ((_, value),) = await self._observer.call(PATH, PROPERTIES, "Get", "ss", MANAGER, "MaxNamespaces")
        return int(value)

    # Memory and descriptors

    async def _sample(self) -> None:
        world, last = self._world, 0.0
        while True:
            await asyncio.sleep(0.5)
            if not world.up or world.daemon.process is None:
                continue
            try:
                rss, fds = world.daemon.rss_kib(), len(world.daemon.open_fds())
            except (OSError, AssertionError):  # it has just ended
                continue
            calls = world.tally.calls.total()
            there = len(truth.pinned(world))
            world.tally.samples.append(Sample(world.tally.second, world.life, rss, fds, there, calls))
            if world.tally.second - last >= 10:
                last = world.tally.second
                errors = world.tally.errors.total()
                self._plan.say(
                    f"{last:6.1f} s  {calls} calls, {errors} errors, {there} namespaces, RSS {rss} KiB, {fds} fds"
                )

    def _judge_memory(self) -> None:
        world = self._world
        growth = grown(world, world.steady_from)
        if growth > MOST_GROWTH:
            world.complain(f"the daemon's memory grew by {growth} KiB in the part without restarts")

    async def _clear(self) -> None:
        """Destroy everything, and see that nothing is left: no namespace, process or descriptor."""
        world = self._world
        for name in await truth.found(self._observer):
            kill = {"kill": ("b", True)}
            await self._observer.call(PATH, MANAGER, "Destroy", "sa{sv}", name, kill)
        world.model.names.clear()
        await truth.check(world, self._observer)
        for resident in world.residents:  # what was let stay in namespaces without a name
            leaks.end(resident.pid)
        for pid in truth.in_lost_namespaces(world):
            leaks.end(pid)
        deadline = time.monotonic() + 20
        while len(fds := world.daemon.open_fds()) > self._fds_at_start and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        world.forget_ended()
        if len(fds) > self._fds_at_start:
            world.complain(f"{len(fds)} descriptors are open, {self._fds_at_start} at the start: {fds}")
        if truth.pinned(world):
            world.complain("namespaces are left")


def grown(world: World, steady_from: float) -> float:
    """By how many KiB the memory grew, from the first quarter after the warm-up to the last, in the steady part."""
    samples = [one for one in world.tally.samples if one.second >= steady_from]
    samples = samples[int(len(samples) * _WARM_UP) :]
    quarter = max(len(samples) // 4, 1)
    if not samples:
        return 0.0
    return median(one.rss for one in samples[-quarter:]) - median(one.rss for one in samples[:quarter])


async def _live(caller: Caller, think: float) -> None:
    deeds = [deed for _, deed in MIX.values()]
    weights = [weight for weight, _ in MIX.values()]
    while not caller.world.ending:
        pause = caller.random.random() * think
        async with caller.world.at_work():
            try:
                if caller.random.random() < HANG_UP:
                    await caller.hang_up()
                else:
                    (deed,) = caller.random.choices(deeds, weights)
                    await deed(caller)
            except Refused:
                pass
            except Lost:
                pause += caller.random.random() * 0.3
        await asyncio.sleep(pause)
