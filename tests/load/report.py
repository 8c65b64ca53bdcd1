# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a run found, as tables: for a terminal, and as docs/soak.md."""

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from .held import FEW, MANY, Figures
from .soak import UIDS, Plan, grown
from .tally import Restart, Tally
from .world import World

_ROWS = 20  # of memory over time
_WHAT = """\
A hundred callers call every method of the interface, each with names of its own and some that all fight over. The
daemon is ended by SIGKILL and SIGTERM at random moments and started again in the midst of calls, and told to reload.
After each restart and at the end everything is compared: what was acknowledged, List, GetManagedObjects, Introspect
and Count, the mount table, the files, and the processes. A call whose answer went down with the daemon may have been
carried out or not. Any other error than the contract has there, any namespace that is lost or comes back, any process
or descriptor that is left, and any fault in the log fails the run. The times are those of a machine that has all it
can do: a caller calls again as soon as it has its answer."""


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A table, in markdown that reads as text as well."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for number, row in enumerate(cells):
        padded = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        yield f"| {' | '.join(padded)} |"
        if number == 0:
            rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            yield f"| {' | '.join(rule)} |"


def _calls(tally: Tally) -> Iterator[str]:
    rows = [
        (
            f"{interface.rpartition('.')[2]}.{member}",
            tally.calls[interface, member],
            tally.failed[interface, member],
            f"{tally.median_ms((interface, member)):.0f}",
            f"{tally.slow_ms((interface, member)):.0f}",
        )
        for interface, member in sorted(tally.calls)
    ]
    yield from _table(("method", "calls", "errors", "median ms", "99 % ms"), rows)


def _errors(tally: Tally) -> Iterator[str]:
    yield from _table(("error", "times"), tally.errors.most_common())


def _restarts(restarts: Sequence[Restart]) -> Iterator[str]:
    rows = []
    for how in sorted({restart.how for restart in restarts}):
        seconds = [restart.seconds for restart in restarts if restart.how == how]
        kept = [restart.kept for restart in restarts if restart.how == how]
        rows.append(
            (
                how,
                len(seconds),
                f"{median(seconds):.2f}",
                f"{max(seconds):.2f}",
                f"{min(kept)} to {max(kept)}",
            )
        )
    yield from _table(("ended by", "times", "median s until ready", "longest", "namespaces kept"), rows)


def _memory(tally: Tally) -> Iterator[str]:
    step = max(len(tally.samples) // _ROWS, 1)
    rows = [
        (f"{one.second:.0f}", one.life, one.namespaces, one.rss, one.fds, one.calls)
        for one in tally.samples[::step]
    ]
    yield from _table(("second", "daemon", "namespaces", "RSS KiB", "fds", "calls so far"), rows)


def _summary(world: World, plan: Plan) -> Iterator[str]:
    tally = world.tally
    calls = tally.calls.total()
    yield f"* {plan.callers} callers of the uids {', '.join(map(str, UIDS))} on {plan.bus}, {plan.seconds:.0f} s"
    yield f"* {calls} calls of all {len(tally.calls)} methods, {calls / plan.seconds:.0f} a second"
    yield (
        f"* {len(tally.restarts)} restarts and {tally.reloads} reloads, {tally.checks} checks of everything; "
        f"{tally.hangups} times a caller left and came back"
    )
    yield (
        f"* the daemon's memory grew by {grown(world, world.steady_from):.0f} KiB in the part without restarts "
        f"({plan.seconds - world.steady_from:.0f} s)"
    )
    yield f"* promises that were broken: {len(world.wrong)}"


def lines(world: World, plan: Plan) -> Iterator[str]:
    """The report of a run, as markdown."""
    yield from _summary(world, plan)
    for title, table in (
        ("Calls", _calls(world.tally)),
        ("Errors", _errors(world.tally)),
        ("Restarts", _restarts(world.tally.restarts)),
        ("Memory and descriptors", _memory(world.tally)),
    ):
        yield from ("", f"## {title}", "", *table)


def held_lines(figures: Figures) -> Iterator[str]:
    """The report on what many namespaces cost, as markdown."""
    yield f"## {MANY} namespaces"
    yield ""
    yield from (f"* {line}" for line in figures.summary())
    yield ""
    rows = [(what, f"{figures.few[what]:.1f}", f"{ms:.1f}") for what, ms in figures.many.items()]
    yield from _table(("median ms of", f"at {FEW}", f"at {MANY}"), rows)


def write(path: Path, world: World, plan: Plan, figures: Figures) -> None:
    """Write the document."""
    minutes = plan.seconds / 60
    command = f"sudo make soak MINUTES={minutes:g} SEED={plan.seed} REPORT={path}"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    machine = f"Linux {platform.release()}, {os.cpu_count()} CPUs, {memory} MiB of memory, "
    machine += f"Python {platform.python_version()}."
    text = [
        "# Under load",
        "",
        "What a run found, on one machine. The figures are made by",
        "",
        f"    {command}",
        "",
        _WHAT,
        "",
        machine,
        "",
        *lines(world, plan),
        "",
        *held_lines(figures),
        "",
    ]
    path.write_text("\n".join(text))
