# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is counted in a run: calls, errors, times, restarts, and the daemon's memory and descriptors."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import median, quantiles

Method = tuple[str, str]  # interface, member
_KEPT = 20_000  # times of each method


@dataclass(frozen=True, slots=True)
class Sample:
    """The daemon at one moment.

    Attributes: second: since the start of the run; life: which of the daemons it is; rss: KiB.
    """

    second: float
    life: int
    rss: int
    fds: int
    namespaces: int
    calls: int


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart.  Attributes: how: the signal; seconds: from the new start until it was ready; kept: namespaces."""

    second: float
    how: str
    seconds: float
    kept: int


@dataclass(slots=True)
class Tally:
    """The figures of one run."""

    started: float = field(default_factory=time.monotonic)
    calls: Counter[Method] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    failed: Counter[Method] = field(default_factory=Counter)
    times: defaultdict[Method, list[float]] = field(default_factory=lambda: defaultdict(list))
    samples: list[Sample] = field(default_factory=list)
    restarts: list[Restart] = field(default_factory=list)
    reloads: int = 0
    checks: int = 0
    hangups: int = 0

    @property
    def second(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self.started

    def answered(self, method: Method, seconds: float, error: str = "") -> None:
        """Count a call that came to its end."""
        self.calls[method] += 1
        if error:
            self.failed[method] += 1
            self.errors[error] += 1
        elif len(self.times[method]) < _KEPT:
            self.times[method].append(seconds)

    def median_ms(self, method: Method) -> float:
        """The median time of an answer that is no error, in ms."""
        return 1000 * median(self.times[method]) if self.times[method] else 0.0

    def slow_ms(self, method: Method) -> float:
        """The time that 99 of 100 answers do not take, in ms."""
        times = self.times[method]
        return 1000 * quantiles(times, n=100)[98] if len(times) > 1 else 0.0
