# SPDX-License-Identifier: LGPL-2.1-or-later
"""A mount namespace that has a name, and what is said of it.

Out of scope: how it comes to be and ends (registry.py).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from mountnsd.holder import Pin
from mountnsd.metadata import Metadata

Key = tuple[str, int]  # name, generation
NO_LABELS: Mapping[str, str] = {}


class State(StrEnum):
    ACTIVE = "active"
    STALE = "stale"  # something covers the pin


@dataclass(frozen=True, slots=True)
class Namespace:
    """A named mount namespace, as it was seen last.  There are thousands: what several have alike they share."""

    name: str
    holder: str  # a path of the directory of the pin
    inode: int
    id: int
    owner: int
    created_usec: int
    propagation: str
    description: str
    labels: Mapping[str, str]
    generation: int = field(compare=False)  # one more for each that this daemon has taken in
    state: State = State.ACTIVE

    @classmethod
    def described(cls, pin: Pin, holder: str, metadata: Metadata, generation: int, state: State) -> Self:
        """The one that its metadata is about.

        Name and inode are those of the pin, which are the holder's very own: they are kept once.
        """
        return cls(
            name=pin.name,
            holder=holder,
            inode=pin.inode,
            id=metadata.id,
            owner=metadata.owner,
            created_usec=metadata.created_usec,
            propagation=metadata.propagation,
            description=metadata.description,
            labels=metadata.labels or NO_LABELS,
            generation=generation,
            state=state,
        )

    @property
    def path(self) -> str:
        """The path of the pin."""
        return f"{self.holder}/{self.name}"

    @property
    def key(self) -> Key:
        """Which namespace it is: another one may bear its name later, and its inode; not every kernel has an id."""
        return self.name, self.generation


@dataclass(frozen=True, slots=True)
class Limits:
    """How many namespaces there may be in all, and of each owner but root."""

    namespaces: int = 16384
    per_owner: int = 256


@dataclass(slots=True)
class Listener:
    """Who is told of changes.  `changed` comes for the same namespace in another state.

    `entering`: how many are on their way into a namespace and cannot be seen inside yet.  `ending`: entered while the
    processes inside are killed; it ends those that are known better, and lets nobody else in.
    """

    added: Callable[[Namespace], None] = lambda _: None
    removed: Callable[[Namespace], None] = lambda _: None
    changed: Callable[[Namespace], None] = lambda _: None
    entering: Callable[[Namespace], int] = lambda _: 0
    ending: Callable[[Namespace], AbstractAsyncContextManager[None]] = lambda _: nullcontext()
