# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every step of an operation, with every fault in turn.

`python -m support.crash.matrix OPERATION`, in a mount and pid namespace of its own, writes what came of it as JSON.
"""

import dataclasses
import json
import re
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from support.daemon import REPOSITORY

from .operation import OPERATIONS, Operation
from .step import BUS, LOOP, Step
from .supervisor import Fault, Trap
from .trial import attempt
from .world import World, furnish

Cells = dict[str, dict[str, list[str]]]  # by the step, by the fault: the words

_PEN = (
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
    "--propagation=private",
    "--",
)
_LONGEST = 600  # seconds
_REHEARSALS = 3  # after a first one, because what the interpreter does the first time only is no step
_TIMES = 3  # a step that was not reached is tried again so often: threads take turns as they like
# What the daemon looks at of processes that it has nothing to do with.
_OTHERS = re.compile(r"/proc/PID(?:/|$)")
# A child that is killed on its last step may be seen to end before or after it is seen to have got there.
_EITHER = ("EnterFailed, ended", "died")


@dataclass(frozen=True)
class Result:
    """What came of an operation. Attributes: cells; wrong: what must not have come, in words."""

    cells: Cells
    wrong: list[str]


def run(operation: Operation) -> Result:
    """All of one operation's, up to the first thing that must not be."""
    cells: Cells = {}
    wrong: list[str] = []
    known: Mapping[Step, int] = {}
    if operation.beyond:
        base = OPERATIONS[operation.beyond]
        with World(base.launcher) as world:
            known = _rehearsed(world, base)
    with World(operation.launcher) as world:
        for step, nth in _occurrences(_rehearsed(world, operation), known):
            row = cells.setdefault(f"{step.actor}\t{step.call}\t{step.what}", {})
            for fault in Fault:
                if fault is Fault.KILL_CHILD and step.actor != "child":
                    continue
                if operation.starts and nth and not fault.kills:
                    continue  # a start has hundreds of steps: errors at the first of each kind
                words = row.setdefault(fault.value, [])
                try:
                    word = _tried(world, operation, Trap(step, nth, fault))
                except Exception:  # noqa: BLE001 - told, whatever it is
                    wrong.append(
                        f"{step} {nth} {fault.value}: {traceback.format_exc()}\n{world.daemon.log()}"
                    )
                    return Result(cells, wrong)
                last = fault is Fault.KILL_CHILD and step.call == "write" and word in _EITHER
                words += [one for one in (_EITHER if last else (word,)) if one and one not in words]
    return Result(cells, wrong)


def _rehearsed(world: World, operation: Operation) -> Mapping[Step, int]:
    """The steps of an operation without a fault, and how often each comes at least."""
    attempt(world, operation)
    first, *others = (attempt(world, operation).steps for _ in range(_REHEARSALS))
    return {step: min(count, *(other.get(step, 0) for other in others)) for step, count in first.items()}


def _tried(world: World, operation: Operation, trap: Trap) -> str:
    """The word for one fault; empty where the step was not reached."""
    for _ in range(_TIMES):
        outcome = attempt(world, operation, trap)
        if outcome.hit:
            return outcome.word
    return ""


def _occurrences(steps: Mapping[Step, int], known: Mapping[Step, int]) -> list[tuple[Step, int]]:
    """Which steps are tried: all that are not known already.

    Of those that come as often as the machine or the interpreter likes, the first is tried.
    """
    return [
        (step, nth)
        for step, count in steps.items()
        for nth in range(known.get(step, 0), min(count, 1) if _is_repeated(step) else count)
    ]


def _is_repeated(step: Step) -> bool:
    return step.what in (LOOP, BUS, "socket") or step.is_routine or bool(_OTHERS.match(step.what))


def in_pen(name: str) -> Result:
    """The matrix of an operation, in a world of its own that ends with it."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",  # sets have an order
        "LC_ALL": "C.UTF-8",
    }
    try:
        done = subprocess.run(
            [*_PEN, sys.executable, "-m", __name__, name],
            cwd=REPOSITORY / "tests",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result({}, [f"it took longer than {_LONGEST} s"])
    if done.returncode != 0:
        return Result({}, [f"it ended with status {done.returncode}: {done.stderr}"])
    return Result(*json.loads(done.stdout))


if __name__ == "__main__":
    furnish()
    json.dump(dataclasses.astuple(run(OPERATIONS[sys.argv[1]])), sys.stdout)
