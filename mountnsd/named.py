# SPDX-License-Identifier: LGPL-2.1-or-later
"""A mount namespace that has a name, and what is said of it.

Out of scope: how it comes to be and ends (registry.py).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    ACTIVE = "active"
    STALE = "stale"  # something covers the pin


@dataclass(frozen=True, slots=True)
class Namespace:
    """A named mount namespace, as it was seen last."""

    name: str
    path: str  # of the pin
    inode: int
    id: int
    owner: int
    created_usec: int
    propagation: str
    description: str
    labels: dict[str, str]
    state: State = State.ACTIVE


@dataclass(frozen=True, slots=True)
class Limits:
    """How many namespaces there may be in all, and of each owner but root."""

    namespaces: int = 16384
    per_owner: int = 256


async def _nothing(_: str) -> None:
    pass


@dataclass(slots=True)
class Listener:
    """Who is told of changes.  `changed` comes for the same namespace in another state.

    `ending` is waited for before the processes inside a namespace are killed: it ends those that it knows better.
    """

    added: Callable[[Namespace], None] = lambda _: None
    removed: Callable[[Namespace], None] = lambda _: None
    changed: Callable[[Namespace], None] = lambda _: None
    ending: Callable[[str], Awaitable[None]] = _nothing
