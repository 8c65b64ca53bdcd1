# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a method does with a call: first look at it, then be allowed, then act.

A method's entry in the dispatch table prepares a `Plan` from a `Request`:
that checks every argument and changes nothing.  The dispatch asks the
authority, and only then runs the plan, so that no method can act unasked.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mountnsd.authority import Action
from mountnsd.bus import Call
from mountnsd.callers import Caller
from mountnsd.named import Namespace
from mountnsd.ready import Ready


@dataclass(frozen=True, slots=True)
class Request:
    """A call to a method that exists, with well-formed arguments, from somebody known."""

    call: Call
    caller: Caller
    namespace: Namespace | None  # whose object the call is to

    @property
    def arguments(self) -> list[Any]:
        return self.call.body


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: the arguments, and the descriptors that their handles point at.

    told: tells the log of it, for which the caller need not wait.
    """

    body: list[Any] | Ready = field(default_factory=list)
    fds: list[int] = field(default_factory=list)  # owned
    told: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done once it is allowed.

    action: which of the entry's actions guards it, where there are several; details: for polkit's rules; again: looks
    again, before it is run, at what may have changed while it was asked whether it is allowed.
    """

    run: Callable[[], Awaitable[Answer]]
    details: dict[str, str] = field(default_factory=dict)
    action: Action | None = None
    again: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A method in the dispatch table.

    actions: those that may guard it, the usual one first; none at all only for org.freedesktop.DBus.Peer.
    """

    actions: tuple[Action, ...]
    prepare: Callable[[Request], Plan | Awaitable[Plan]]
