# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a storm does to the daemon and to others, measured; and the table that is made of it."""

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .client import PATH, Client
from .contract import PEER
from .daemon import Daemon
from .stormer import Stormer
from .storms import Storm

STORMER_UID, OTHER_UID = 65534, 1
SEED = int(os.environ.get("MOUNTNSD_FUZZ_SEED") or 1)
FRAMES = int(os.environ.get("MOUNTNSD_FUZZ_FRAMES") or 100_000)
_PAUSE = 0.01  # seconds between two calls of the one who is not to be disturbed
_LINE = re.compile(r"(?:DEBUG|INFO|WARNING|ERROR|CRITICAL): [^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]*")

# What a line would begin with that a caller has made up: each of `storms.FORGERIES` has that word.
_FORGED = re.compile(r"(?:[A-Z]+: )?(?:[A-Z_]+[:=] ?)?forged")


@dataclass(frozen=True)
class Measured:
    """What a storm did.

    Attributes: sent: calls; per_second; rss_kib: by how much the daemon's memory grew; fds: by how many its
        descriptors; median: of another caller's List, in milliseconds; lists: of how many.
    """

    sent: int
    per_second: float
    rss_kib: int
    fds: int
    median: float
    lists: int


def settled(daemon: Daemon, client: Client, timeout: float = 30.0) -> int:
    """How many descriptors the daemon has open once it has dealt with everything: nothing changes any more."""
    client.call(PATH, PEER, "Ping", timeout=timeout)
    deadline = time.monotonic() + timeout
    last, since = -1, time.monotonic()
    while time.monotonic() < deadline:
        now = len(daemon.open_fds())
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 0.5:
            break
        time.sleep(0.02)
    return last


def still_open(daemon: Daemon, before: int, timeout: float = 20.0) -> int:
    """How many more descriptors the daemon has open than before, once it has had time to close them."""
    deadline = time.monotonic() + timeout
    while (more := len(daemon.open_fds()) - before) > 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    return more


def weather(
    daemon: Daemon,
    root: Client,
    other: Client,
    storms: Sequence[Storm],
    seconds: float = 4.0,
    warm_up: float = 1.5,
) -> Measured:
    """Let it storm, once to warm up and once to measure.

    Arguments: other: whose List is measured; storms: one process each.
    """
    _let_storm(daemon, other, storms, warm_up)
    before_fds, before = settled(daemon, root), daemon.rss_kib()
    start = time.monotonic()
    sent, times = _let_storm(daemon, other, storms, seconds)
    lasted = time.monotonic() - start
    settled(daemon, root)
    fds = still_open(daemon, before_fds)
    grown = daemon.rss_kib() - before
    return Measured(sent, sent / lasted, grown, fds, statistics.median(times) * 1000, len(times))


def _let_storm(
    daemon: Daemon, other: Client, storms: Sequence[Storm], seconds: float
) -> tuple[int, list[float]]:
    with ExitStack() as stack:
        running = [stack.enter_context(Stormer(daemon.bus.address, storm, STORMER_UID)) for storm in storms]
        times = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(_PAUSE)
            start = time.monotonic()
            other.manager("List", timeout=60)
            times.append(time.monotonic() - start)
        return sum(int(one.stop()) for one in running), times


def strange_lines(log: str) -> list[str]:
    """The lines of a log that are not shaped as the daemon's are, or forged, or speak of a fault of it."""
    lines = log.removesuffix("\n").split("\n") if log else []
    faults = ("A fault in", "could not be taken", "Traceback")
    return [
        line
        for line in lines
        if not _LINE.fullmatch(line) or _FORGED.match(line) or any(word in line for word in faults)
    ]


_DOCUMENT = """\
# Hostile callers

What one unprivileged user can do to the daemon, and to another user who calls List meanwhile. `make fuzz` makes this
page; [tests/fuzz](../tests/fuzz/) says what each line is.

Held by the tests: memory (RSS) grows by less than 8 MiB, no descriptor stays open, and the median of the other user's
List is below 100 ms. The last is not so "flat out": there the caller sends as fast as the bus takes it, and the other
one waits in the queue of the bus. A "played bus" hands over what no bus lets through.

| | |
| --- | --- |
| machine | {machine} |
| kernel | {kernel} |
| buses | {buses} |
| load average | {load} |
| date | {date} |
| seed | {seed} |
| outcome | {outcome} |

| storm | bus | sent | memory | descriptors | List of another |
| --- | --- | --- | --- | --- | --- |
{rows}
"""


def _version(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]


@dataclass
class Report:
    """The figures of a run.

    Attributes: lines: for people; rows: of the table.
    """

    lines: list[str] = field(default_factory=list)
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def storm(self, name: str, bus: str, what: str, measured: Measured) -> None:
        """Add what a storm did."""
        self.lines.append(
            f"{name} on {bus}: {measured.sent} calls, {measured.per_second:.0f} a second; "
            f"RSS {measured.rss_kib:+d} KiB, descriptors {measured.fds:+d}, "
            f"List of another {measured.median:.1f} ms (median of {measured.lists})"
        )
        figures = (f"{measured.rss_kib:+d} KiB", f"{measured.fds:+d}", f"{measured.median:.1f} ms")
        self.rows.append((name, bus, f"{measured.sent} {what}", *figures))

    def line(self, text: str) -> None:
        """Add a line that is for people alone."""
        self.lines.append(text)

    def frames(
        self, where: str, sent: int, reached: int, per_second: float, rss_kib: int, fds: int, more: str = ""
    ) -> None:
        """Add what became of frames."""
        self.lines.append(
            f"frames, {where}: {sent} sent, {reached} reached the daemon, {per_second:.0f} a second; "
            f"RSS {rss_kib:+d} KiB, descriptors {fds:+d}{more and '; '}{more}"
        )
        self.rows.append(
            ("frames", where, f"{sent}, of which {reached} arrived", f"{rss_kib:+d} KiB", f"{fds:+d}", "")
        )

    def document(self, seed: int, outcome: str) -> str:
        """The page with the table."""
        names = "D-Bus Message Bus Daemon", "dbus-broker"
        versions = _version("dbus-daemon", "--version"), _version("dbus-broker", "--version")
        return _DOCUMENT.format(
            machine=f"{platform.machine()}, {os.cpu_count()} processors",
            kernel=platform.release(),
            buses=", ".join(f"{name} {text.split()[-1]}" for name, text in zip(names, versions, strict=True)),
            load=f"{os.getloadavg()[2]:.1f} (15 minutes)",
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            seed=seed,
            outcome=outcome,
            rows="\n".join(f"| {' | '.join(row)} |" for row in sorted(self.rows, key=lambda row: row[:2])),
        )
