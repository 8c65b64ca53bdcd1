# SPDX-License-Identifier: LGPL-2.1-or-later
"""The memory of a process, and how often it wakes up while nobody asks anything of it."""

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


def wakeups(pid: int, seconds: float) -> int:
    """How often a process wakes up in so many seconds."""
    before = switches(pid)
    time.sleep(seconds)
    return max(switches(pid) - before, 0)
