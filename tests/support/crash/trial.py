# SPDX-License-Identifier: LGPL-2.1-or-later
"""One operation with one fault: what the caller was told, what there was afterwards, and that nothing was left."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from support.client import DBusError

from .operation import Operation
from .step import LOOP, Step
from .supervisor import Fault, Trap
from .world import World

_NAME = re.compile(r"org\.(?:mountnsd1|freedesktop\.DBus)\.Error\.(\w+)")
_CONTRACT = {
    *(
        "NoSuchNamespace",
        "NamespaceExists",
        "NamespaceBusy",
        "NamespaceStale",
        "NoSuchUser",
        "NoNamespaceForPID",
    ),
    *("MountFailed", "EnterFailed", "InvalidArgs", "AccessDenied", "LimitsExceeded", "Failed"),
}


@dataclass(frozen=True)
class Outcome:
    """What came of it. Attributes: hit: whether the step was reached; word: for the table; steps: that were seen."""

    hit: bool
    word: str
    steps: Mapping[Step, int] = field(default_factory=dict)


def attempt(world: World, operation: Operation, trap: Trap | None = None) -> Outcome:
    """Try it.  Raises AssertionError for what must not be."""
    world.daemon.forget_log()
    return _start(world, operation, trap) if operation.starts else _call(world, operation, trap)


def _call(world: World, operation: Operation, trap: Trap | None) -> Outcome:
    """A call to a daemon that runs."""
    before = world.snapshot()
    operation.prepare(world)
    if operation.name != "notice":
        world.call("List")  # what was prepared is known, and no look at it comes in between
    told: DBusError | None = None
    world.impatient = trap is not None and (trap.step.what, trap.step.call) == (LOOP, "sendto")
    with world.daemon.armed(trap) as steps:
        try:
            operation.act(world)
        except DBusError as error:
            told = error
        alive = world.settled()
    world.impatient = False
    hit = world.daemon.hit
    if not alive:
        world.daemon.start()
    words: list[str] = []
    killed = trap is not None and trap.fault is Fault.KILL
    if not alive and not killed:
        words.append("daemon ends")
    elif told is not None and alive:
        words.append(_named(told))
    world.refused = told is not None and alive
    state = operation.state(world, told is None)
    if world.refused:
        assert state == operation.refused, f"{told}, and yet {state}"
    world.check_truth()
    words.append("done" if told is None and not killed and state != "died" else state)
    operation.again(world, state)
    world.check_nothing_left(before, restarted=not alive)
    return Outcome(hit, ", ".join(words), steps)


def _named(error: DBusError) -> str:
    """The error as a word; it must be one of the contract, and say nothing of the inside."""
    found = _NAME.fullmatch(error.name)
    assert found, error
    assert found[1] in _CONTRACT, error
    assert not re.search(r"Traceback|\.py\b|Errno", error.message), error
    return found[1]


def _start(world: World, operation: Operation, trap: Trap | None) -> Outcome:
    """A start of the daemon."""
    operation.prepare(world)
    mounts = world.snapshot().mounts
    steps = world.daemon.start_armed(trap)
    hit = world.daemon.hit
    ready = not world.daemon.ended() and world.settled()
    word = "done"
    if not ready:
        word = "recovers" if trap is not None and trap.fault is Fault.KILL else "ends, recovers"
        world.daemon.start()
    operation.state(world, True)
    world.check_truth()
    operation.again(world, word)
    if world.keeps:
        assert world.snapshot().mounts == mounts
    assert not world.strangers(), world.strangers()
    return Outcome(hit, word, steps)
