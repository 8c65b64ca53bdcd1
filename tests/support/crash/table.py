# SPDX-License-Identifier: LGPL-2.1-or-later
"""The crash matrix as a document: `python -m support.crash.table` writes docs/crash-matrix.md."""

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from support.daemon import REPOSITORY

from .matrix import Cells, in_pen
from .operation import OPERATIONS, Operation
from .step import BUS, LOOP, Step
from .supervisor import Fault

DOCUMENT = REPOSITORY / "docs" / "crash-matrix.md"
WORKERS = 2  # operations at a time
_HEAD = """\
# The crash matrix

What becomes of each operation when the daemon is killed before one of its system calls, and when that call fails.
`sudo make crash-matrix` runs it all and writes this page; tests/integration/test_crash_matrix.py runs it all and
fails where anything else comes of it.

Each row is a step: a system call, and what it is about. Each cell is one run or more of the whole operation, by a
real daemon on a real bus. The kernel stops the daemon, its threads and its children at every call
(seccomp_unotify(2)), and this one is not made: the daemon is killed, or the call fails with that error. A step that
comes several times is tried each time; where that came out differently, the cell says all of it. What an operation
has in common with another is tried there.

After each, these hold, or there would be no table:

* The daemon runs, or a new one starts. `List` has the names, inodes and numbers of processes that the kernel has.
* A namespace whose creation was acknowledged is there, with all that is known of it, and so is one from before.
* One whose creation was refused is not there, and neither is its pin, its file, or its metadata.
* The error is one of the contract, and says nothing of the daemon's inside.
* The same operation succeeds when it is asked for again.
* No mount, file, descriptor, process, unit or record is left over.

Paths are below the runtime directory. `N`, `PID` and `NUMBER` are numbers, `INSIDE` is a process in the namespace.
Not tried is what can fail only where the process itself is out of memory, or not at all: memory, locks between
threads, clocks, signal masks; and files of the program and of the interpreter. Of sockets, of the event loop and of
what the interpreter does on its own account only the first of each kind is tried, and of these only sockets are
shown: the rest comes as the machine likes. In a start, errors are tried at the first of each kind of step, and
SIGKILL at all of them. A close(2) that fails has closed, as in the kernel.

| word | what it means |
| --- | --- |
| done | It succeeds as if nothing had happened. |
| undone | There is no such namespace, and nothing of it. |
| kept | The namespace is there, whole. |
| gone | The namespace is no more, and nothing of it is left. |
| ended | No process is inside, and none is on its way. |
| runs, runs on | The process is inside; its caller was told, or never will be, because the daemon ended. |
| died | The process was killed on its last step, and its caller will be told so. |
| told | The caller was told how the process ended. |
| untold | The caller was not told. The daemon that could tell him has ended. |
| noticed | What others changed is noticed at the next look. |
| recovers | The next start takes in what is there, and clears away what was cut short. |
| ends | The start fails with a line in the log; systemd tries again. |
| daemon ends | It has lost the bus or its event loop, and exits with a failure; systemd starts it again. |
| *Name* | The caller gets the error of that name. |
"""


def document(results: Mapping[str, Cells]) -> str:
    """The page."""
    parts = [_HEAD]
    for name, cells in results.items():
        parts.append(_section(OPERATIONS[name], cells))
    return "\n".join(parts)


def _section(operation: Operation, cells: Cells) -> str:
    rows: list[tuple[list[str], tuple[str, ...]]] = []
    faults = [fault.value for fault in Fault if any(fault.value in row for row in cells.values())]
    steps = [Step(*key.split("\t")) for key in cells]
    for step in sorted(steps, key=_place):
        if step.is_routine or step.what == LOOP:
            continue
        row = cells["\t".join((step.actor, step.call, step.what))]
        words = tuple(" / ".join(sorted(row.get(fault, []))) for fault in faults)
        if rows and rows[-1][1] == words:
            rows[-1][0].append(_shown(step))
        else:
            rows.append(([_shown(step)], words))
    lines = [f"## {operation.title}", ""]
    if operation.beyond:
        lines += [f"Beyond the steps of *{OPERATIONS[operation.beyond].title}*:", ""]
    lines += ["| " + " | ".join(("step", *faults)) + " |", "| --- |" + " --- |" * len(faults)]
    lines += [f"| {', '.join(shown)} | {' | '.join(_briefly(words))} |" for shown, words in rows]
    return "\n".join(lines) + "\n"


def _place(step: Step) -> tuple[bool, bool, str]:
    """Where a row comes: what goes on side by side, and so in any order, is sorted."""
    aside = step.what == BUS
    return aside, step.actor == "child", step.call if aside else ""


def _briefly(words: tuple[str, ...]) -> list[str]:
    return [word or "–" for word in words]


def _shown(step: Step) -> str:
    actor = "child: " if step.actor == "child" else ""
    what = f" `{step.what}`" if step.what else ""
    return f"{actor}{step.call}{what}"


def main() -> int:
    """Run the matrix and write the page, unless something came out that must not.  Returns the exit status."""
    with ThreadPoolExecutor(WORKERS) as pool:
        results = dict(zip(OPERATIONS, pool.map(in_pen, OPERATIONS), strict=True))
    wrong = [f"{name}: {text}" for name, result in results.items() for text in result.wrong]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    DOCUMENT.write_text(document({name: result.cells for name, result in results.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
