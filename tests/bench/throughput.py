# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many calls in flight: how many a second are answered, and whose processors that takes."""

import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.client import MANAGER, PATH

from .wire import PATIENCE, Wire, call, checked

AT_ONCE = 16
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Rate:
    """What came out.

    Attributes: member: the method; connections: over how many; per_second; client, daemon, bus: the share of one
        processor that each had.
    """

    member: str
    connections: int
    per_second: float
    client: float
    daemon: float
    bus: float

    def said(self) -> str:
        """In words."""
        shares = f"client {self.client:.0%}, daemon {self.daemon:.0%}, bus {self.bus:.0%} of a processor"
        return f"{shares}; {self.connections} connection{'s' * (self.connections > 1)}"


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def calls(member: str, names: Sequence[str]) -> list[bytearray]:
    """A call for each name, marshalled."""
    return [call(PATH, MANAGER, member, "sa{sv}", name, {}) for name in names]


def rate(wires: Sequence[Wire], member: str, names: Sequence[str], daemon: int, bus: int) -> Rate:
    """Call a method with each name, `AT_ONCE` in flight, spread over the connections; all must be answered well.

    Arguments: daemon, bus: pids.  Raises: Refused; TimeoutError; ConnectionError.
    """
    frames = calls(member, names)
    before = time.process_time(), cpu_seconds(daemon), cpu_seconds(bus)
    begun = time.perf_counter()
    _drive(wires, frames)
    elapsed = time.perf_counter() - begun
    after = time.process_time(), cpu_seconds(daemon), cpu_seconds(bus)
    client, served, carried = ((late - early) / elapsed for early, late in zip(before, after, strict=True))
    return Rate(member, len(wires), len(names) / elapsed, client, served, carried)


def _drive(wires: Sequence[Wire], frames: list[bytearray]) -> None:
    waiting = iter(frames)
    owed = len(frames)
    poll = select.poll()
    by_fd = {wire.socket.fileno(): wire for wire in wires}
    for descriptor, wire in by_fd.items():
        poll.register(descriptor, select.POLLIN)
        for _ in range(max(AT_ONCE // len(wires), 1)):
            if (frame := next(waiting, None)) is not None:
                wire.send(frame)
    while owed:
        ready = poll.poll(PATIENCE * 1000)
        if not ready:
            raise TimeoutError(f"{owed} calls are not answered")
        for descriptor, _ in ready:
            wire = by_fd[descriptor]
            wire.read()
            while (answer := wire.ready()) is not None:
                if not answer.reply_to:
                    continue
                checked(answer)
                owed -= 1
                if (frame := next(waiting, None)) is not None:
                    wire.send(frame)
