# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was measured: figures under a key, with median and spread.

Medians, because the machine has something else to do now and then; and interleaved, by whoever adds to them, so that
what it has to do meets all alike.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator
from statistics import median, quantiles
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Samples(Generic[Key]):
    """Figures by key."""

    def __init__(self) -> None:
        self._figures: defaultdict[Key, list[float]] = defaultdict(list)

    def add(self, key: Key, figure: float) -> None:
        """One more of a key."""
        self._figures[key].append(figure)

    def __iter__(self) -> Iterator[Key]:
        """All that there is something of, in the order in which it came."""
        return iter(self._figures)

    def __contains__(self, key: Key) -> bool:
        return key in self._figures

    def count(self, key: Key) -> int:
        """How many there are of a key."""
        return len(self._figures[key]) if key in self._figures else 0

    def median(self, key: Key) -> float | None:
        """The middle one, None where there is none."""
        return median(self._figures[key]) if key in self._figures else None

    def spread(self, key: Key) -> tuple[float, float]:
        """The first and the third quartile; of a single one, itself twice.  Raises: KeyError."""
        if key not in self._figures:
            raise KeyError(key)
        figures = self._figures[key]
        if len(figures) < 2:
            return figures[0], figures[0]
        low, _, high = quantiles(figures, n=4, method="inclusive")
        return low, high
