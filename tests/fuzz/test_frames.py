# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile frames: a hundred thousand from a bus that is played, and half as many through both real ones.

What a bus stops, it stops; so that the daemon sees those frames as well, the played bus hands them over.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import BUS_NAME, Client
from support.contract import create, names
from support.daemon import Daemon
from support.hostile import CHANGES_OF_FIELDS, FIELDS, Frames, Hostile
from support.playedbus import CALLER, PlayedBus
from support.quick_polkit import YES, QuickPolkit
from support.raw import METHOD_CALL, SENDER, RawConnection
from support.stormer import Orders, Stormer
from support.storms import KEPT
from support.weather import FRAMES, SEED, STORMER_UID, Report, still_open, strange_lines

from mountnsd import disposal
from mountnsd.stream import Stream

PART = 12_500  # frames of one test: each test has only so long
PARTS = range(-(-FRAMES // PART))
BUS_PART = 5_000  # a bus that hangs up costs time
EACH_BUS = FRAMES // 4  # goes through each of the two, besides those of the played one
BUS_PARTS = range(-(-EACH_BUS // BUS_PART))
FATAL = 4_000
MOST_GROWTH = 8 * 1024  # KiB
_BATCH = 200


def of(part: int) -> int:
    """How many frames a part has, so that all parts have all."""
    return min(PART, FRAMES - part * PART)


def assert_covered(seen: Counter[tuple[tuple[str, str], str]], frames: Frames) -> None:
    """Every method of the XML was sent with every header field changed in every way, every flag and every type."""
    fields = [f"field {code} {change}" for code in FIELDS for change in CHANGES_OF_FIELDS]
    wanted = [*fields, *frames.changes()]
    missed = [
        (method.name, change)
        for method in frames.methods()
        for change in wanted
        if not seen[(method.interface, method.name), change]
    ]
    assert not missed


class TestPlayedBus:
    """What reaches the daemon whatever a bus would say: every frame does."""

    @pytest.mark.parametrize("part", PARTS)
    def test_every_frame_reaches_it(self, directory: Path, report: Report, part: int) -> None:
        frames = Frames(SEED + part, CALLER)
        seen: Counter[tuple[tuple[str, str], str]] = Counter()
        with PlayedBus(directory) as bus:
            daemon = Daemon(bus, directory)  # type: ignore[arg-type]
            accepting = threading.Thread(target=bus.accept, daemon=True)
            accepting.start()
            try:
                daemon.start()
                accepting.join(10)
                rounds = frames.rounds()
                self.hand_over(
                    bus, list(islice(rounds, 2 * len(frames.methods()) * len(frames.changes()))), seen
                )
                before, before_fds = daemon.rss_kib(), len(daemon.open_fds())
                start = time.monotonic()
                self.hand_over(bus, islice(rounds, of(part)), seen)
                lasted = time.monotonic() - start
                grown, fds = daemon.rss_kib() - before, still_open(daemon, before_fds)
                assert strange_lines(daemon.log()) == []
            finally:
                if daemon.process is not None:
                    daemon.stop()
                daemon.close()
        answered = sum(bus.answers.values())
        report.frames(f"played bus, seed {SEED + part}", of(part), of(part), of(part) / lasted, grown, fds)
        assert answered > of(part) // 4
        assert grown < MOST_GROWTH
        assert fds <= 0
        assert_covered(seen, frames)

    def hand_over(
        self,
        bus: PlayedBus,
        frames: "islice[Hostile] | list[Hostile]",
        seen: Counter[tuple[tuple[str, str], str]],
    ) -> None:
        rest = iter(frames)
        while batch := list(islice(rest, _BATCH)):
            bus.send(b"".join(hostile.data for hostile in batch))
            bus.barrier()
            seen.update((hostile.method, hostile.change) for hostile in batch)

    def test_what_no_stream_survives(self, report: Report) -> None:
        """On a socket of our own: each of these ends a connection, in order and with nothing left open."""
        frames = Frames(SEED)
        rounds = frames.rounds(fatal=True)
        good = next(Frames(SEED, CALLER).rounds()).data
        before = settled()
        ends: Counter[str] = Counter()
        seen: Counter[tuple[tuple[str, str], str]] = Counter()

        async def one(hostile: Hostile) -> None:
            ours, theirs = socket.socketpair()
            ended: list[str] = []
            stream = Stream(ours, lambda frame: frame.fds.close(), ended.append)
            stream.start()
            null = os.open("/dev/null", os.O_RDONLY)
            with theirs, contextlib.suppress(BrokenPipeError):
                if hostile.fds:
                    socket.send_fds(theirs, [hostile.data], [null] * hostile.fds)
                else:
                    theirs.sendall(hostile.data)
                theirs.sendall(good * 40)
                theirs.shutdown(socket.SHUT_WR)
                for _ in range(200):
                    if ended:
                        break
                    await asyncio.sleep(0)
            os.close(null)
            assert len(ended) == 1
            ends[ended[0]] += 1

        async def story() -> None:
            for hostile in islice(rounds, FATAL):
                await one(hostile)
                seen[hostile.method, hostile.change] += 1

        asyncio.run(story())
        report.line(
            f"streams that are ended, seed {SEED}: {FATAL}: "
            + ", ".join(f"{n} × {why}" for why, n in ends.items())
        )
        assert settled() == before
        assert all(
            seen[(m.interface, m.name), change] for m in frames.methods() for change in frames.fatal_changes()
        )

    @pytest.mark.parametrize("change", Frames(SEED).fatal_changes())
    def test_the_daemon_ends_and_starts_again(self, directory: Path, change: str) -> None:
        """It says why in one line, and exits with a failure, so that systemd starts it again."""
        hostile = next(item for item in Frames(SEED, CALLER).rounds(fatal=True) if item.change == change)
        with PlayedBus(directory) as bus:
            daemon = Daemon(bus, directory)  # type: ignore[arg-type]
            try:
                for _ in range(2):
                    accepting = threading.Thread(target=bus.accept, daemon=True)
                    accepting.start()
                    daemon.start()
                    accepting.join(10)
                    with contextlib.suppress(OSError):
                        bus.send(hostile.data, hostile.fds)
                        bus.send(next(Frames(SEED, CALLER).rounds()).data * 1000)
                    bus.hang_up()
                    assert daemon.wait() == 1
            finally:
                daemon.close()
            assert strange_lines(daemon.log()) == []
            assert daemon.log().count("The connection to the bus has ended") == 2


def settled() -> int:
    """How many descriptors we have once everything that came with messages is closed, which is done in threads."""
    deadline = time.monotonic() + 5
    while (disposal._waiting or disposal._threads) and time.monotonic() < deadline:
        time.sleep(0.001)
    return len(os.listdir("/proc/self/fd"))


class _Sender:
    """Sends frames over a real bus as an unprivileged user, anew whenever the bus hangs up.

    Attributes: reached: answers from the daemon; refused: from the bus; hung_up: how often.
    """

    def __init__(self, orders: Orders) -> None:
        self._connect: Callable[[], RawConnection] = orders.connect
        self._raw = orders.connect()
        self._driver = 1 << 30
        self.reached = self.refused = self.hung_up = 0

    def send(self, hostile: Hostile) -> None:
        """Send one; returns when the bus has seen it and, where it has passed it on as a call, it is answered."""
        kind, flags, serial = hostile.data[1], hostile.data[2], int.from_bytes(hostile.data[8:12], "little")
        try:
            self._raw.send(hostile.data)
            self._driver += 1
            overrides = {"serial": self._driver}
            self._raw.call("/", BUS_NAME, "GetId", destination=BUS_NAME, overrides=overrides)
            answered = self._read_until(self._driver)
            if kind == METHOD_CALL and not flags & 1 and not answered & {serial, _swapped(serial)}:
                self._await_answer()
        except OSError:
            self.hung_up += 1
            self._raw.close()
            self._raw = self._connect()

    def _read_until(self, serial: int) -> set[int]:
        """Read to the answer to `serial`; returns what was answered before."""
        answered = set[int]()
        while True:
            message = self._raw.receive(10)
            message.close_fds()
            if message.reply_to == serial:
                return answered
            if message.reply_to:
                answered.add(message.reply_to)
                self._count(message.fields.get(SENDER) == BUS_NAME)

    def _await_answer(self) -> None:
        """Wait for one answer; who gets none within some time called nobody who answers."""
        with contextlib.suppress(TimeoutError):
            message = self._raw.receive(0.1)
            message.close_fds()
            if message.reply_to:
                self._count(message.fields.get(SENDER) == BUS_NAME)

    def _count(self, of_the_bus: bool) -> None:
        self.refused += of_the_bus
        self.reached += not of_the_bus


def _swapped(serial: int) -> int:
    return int.from_bytes(serial.to_bytes(4, "little"), "big")


class TestRealBuses:
    """What an unprivileged user can send to the daemon: the bus decides what of it arrives."""

    @pytest.mark.parametrize("part", BUS_PARTS)
    def test_through_the_bus(
        self, bus: PrivateBus, daemon: Daemon, root: Client, report: Report, part: int
    ) -> None:
        create(root, KEPT)
        frames = Frames(SEED + 1000 + part)
        count = min(BUS_PART, EACH_BUS - part * BUS_PART)

        def work(orders: Orders) -> tuple[int, int, int, Counter[tuple[tuple[str, str], str]]]:
            sender, seen = _Sender(orders), Counter[tuple[tuple[str, str], str]]()
            for hostile in islice(frames.rounds(), count):
                sender.send(hostile)
                seen[hostile.method, hostile.change] += 1
            return sender.reached, sender.refused, sender.hung_up, seen

        with QuickPolkit(bus, {"list": YES}):
            names(root)
            before, before_fds = daemon.rss_kib(), len(daemon.open_fds())
            start = time.monotonic()
            with Stormer(bus.address, work, STORMER_UID) as stormer:
                reached, refused, hung_up, seen = stormer.result()
            lasted = time.monotonic() - start
            assert names(root) == [KEPT]
        grown, fds = daemon.rss_kib() - before, still_open(daemon, before_fds)
        where = f"{bus.kind}, seed {SEED + 1000 + part}"
        report.frames(
            where,
            count,
            reached,
            count / lasted,
            grown,
            fds,
            f"{refused} answered and {hung_up} hung up on by the bus",
        )
        assert reached > count // 20
        assert fds <= 0
        assert grown < MOST_GROWTH
        assert strange_lines(daemon.log()) == []
        assert_covered(seen, frames)
