# SPDX-License-Identifier: LGPL-2.1-or-later
"""The memory of a process, and how often it wakes up while nobody asks anything of it."""

import select
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """KiB: rss: resident; pss: what is shared counted in parts; uss: what is its own alone."""

    rss: int
    pss: int
    uss: int

    def said(self) -> str:
        """In words."""
        return f"PSS {self.pss / 1024:.1f}, USS {self.uss / 1024:.1f} MiB"


NONE = Memory(0, 0, 0)


def parse(text: str) -> Memory:
    """Read /proc/PID/smaps_rollup."""
    lines = (line.split() for line in text.splitlines()[1:])
    kib = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return Memory(kib["Rss"], kib["Pss"], kib["Private_Clean"] + kib["Private_Dirty"])


def of(pid: int) -> Memory:
    """What a process has."""
    return parse(Path(f"/proc/{pid}/smaps_rollup").read_text())


def switches(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    found += int(line.split()[1])
    return found


@dataclass(frozen=True)
class Rest:
    """How often a process woke up, and how often others changed the host's mounts meanwhile, which wakes it."""

    wakeups: int
    changes: int


def rest(pid: int, seconds: float, tries: int = 3) -> Rest:
    """Leave a process alone for so long; again, where somebody changed mounts meanwhile."""
    found: list[Rest] = []
    for _ in range(tries):
        with Path("/proc/self/mountinfo").open("rb") as table:
            before = switches(pid)
            changes = _changes(table.fileno(), time.monotonic() + seconds)
            found.append(Rest(max(switches(pid) - before, 0), changes))
        if not changes:
            break
    return min(found, key=lambda one: (one.changes, one.wakeups))


def _changes(table: int, end: float) -> int:
    """How often the mounts change until some time.  Arguments: table: an open mountinfo."""
    found = 0
    poll = select.poll()
    poll.register(table, select.POLLPRI)
    while (left := end - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            found += 1
            time.sleep(0.05)
    return found
