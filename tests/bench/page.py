# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/performance.md, its picture and the JSON file, of what was measured."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from . import goals, operations, plot, short, table
from .goals import Growth, Row
from .marshal import Marshalling
from .operations import BARE, NETNS, OURS, PYTHON, UNSHARE
from .plot import Line
from .scale import LSNS, LSNS_NEW, WARM, Outcome, Plan

_INTRODUCTION = """\
What mountnsd costs, beside what a person would use instead. The figures are made in one run by

    {command}

They are those of one machine at one time. What holds elsewhere is the ratio, more or less."""

_GOALS = """\
A line a goal, the two kinds of holder beside each other. *×* is how many times as long as what the goal names, in
the same run. Where a goal is about more than one measurement, the cell has the worst of them, and in brackets which
that is. What misses its goal is **bold**. "Each with {many:,}" is one line for Create, Enter, exec, Destroy, Open
and GetMounts: how many times as long as with {few}, first as it is, then without what the bare system calls take
longer with {many:,}. The second is what is judged."""

_METHOD = """\
Everything is measured in turns: in each round a namespace of mountnsd, one of `unshare --mount=FILE`, one of the bare
system calls and one of `ip netns` go through their lives side by side, and in each step another one is the first. So
what else the machine does meets all of them. Each figure is the median of up to {rounds} rounds with {few}
namespaces, and of up to {rounds_many} with {many:,}.

* **mountnsd** is the installed program, on a dbus-daemon of its own with the shipped policy, without systemd
  (`--launcher=fork`), with its files on a tmpfs as `/run` is one, and its configuration on a disk. One connection of
  root's calls it. The messages are marshalled before; the time is that from sending the call until the whole answer
  has come, or the signal *Exited*.
* **unshare, nsenter, umount, rm** are used as a person does it: FILE lies on a private mount and was touched before.
  The time is that of the whole command, started by posix_spawn(3) from a small process, so that the size of who
  starts it does not count. `mountnsctl`, `ip`, `lsns` and `python3` are timed in the same way.
* **The bare system calls** are what no implementation can do without, made by a C program:
  [tests/bench/floor.c](../tests/bench/floor.c). For Create that is a thread, unshare(2), the propagation of all
  mounts, the holder detached inside, open_tree(2), an empty file, move_mount(2).
* **ip netns** does with network namespaces what mountnsd does with mount namespaces. It is shown because people know
  it.
* **After a change**: the mounts of the host have changed just before, and the call waits until the daemon has taken
  that in. All other calls find a daemon that has. The namespaces of the peers change the host's mounts as well.
* **With {many:,} namespaces** all peers work on the same host, with the mounts of these in its table: with the host
  holder these are {many:,}, with the hidden holder two.
* **What an operation grows by** from {few} to {many:,} is measured in {rounds} rounds of their own, mountnsd
  and the bare system calls in turns, without the peers: at {many:,} umount(8) and ip(8) read all mounts of the host,
  and leave nothing of anybody else's in the caches of the processor. The bare system calls pin in the mount
  namespace that the daemon pins in, and copy the one that it copies. What they take longer at {many:,} is the
  kernel's part: unshare(2) looks at each mount of the host, pins as well, which it then does not copy. Both are
  shown: how many times as long an operation takes, and the same without the kernel's part, which is (time at
  {many:,} - kernel's part) / time at {few}. **The goal is judged by the second.** Where nothing but that is too
  much, the table says "met without the kernel's part".
* **Resident memory** is Rss in /proc/PID/smaps_rollup, of the daemon alone, when nobody has called it for {rest:g}
  s: by then it has given back what an answer took. *Just started* is before the first call. *One of each done* is
  without a namespace as well, but after all that is measured here was done once, and {warm} creations and
  destructions, 16 in flight, over 1 and over 16 connections: code, buffers and threads that are there from the first
  call on. That of each is how much more it is with so many namespaces, after one of each too, divided by their
  number.
* **lsns** looks from the mount namespace that has the pins. That of util-linux 2.41 is the first that knows pins that
  no process is in.

The quartiles of all figures are in build/bench.json."""

_HOLDERS = {
    "host": "The pins lie in the host's mount namespace, which is the default.",
    "hidden": '`holder = "hidden"`: the pins lie in a mount namespace that one visible pin keeps.',
}


@dataclass
class Report:
    """All that is told.

    Attributes: command: what makes it; machine: by what is said of it; outcomes: of each holder; marshalling: by
        library; booted: of booted.py; trouble: why something was not measured.
    """

    command: str
    plan: Plan
    machine: Mapping[str, str]
    outcomes: Sequence[Outcome]
    marshalling: Mapping[str, Marshalling] = field(default_factory=dict)
    booted: Sequence[Mapping[str, object]] = ()
    trouble: str = ""

    def rows(self) -> list[Row]:
        """The first table, of all holders."""
        return [row for one in self.outcomes for row in goals.rows(one, self.plan.few, self.plan.many)]

    def growth(self) -> list[Growth]:
        """The table of what grows, of all holders."""
        return [row for one in self.outcomes for row in goals.growth(one)]


def unmet(report: Report) -> list[str]:
    """A line for each goal that is not met, with the limit that was measured."""
    found = [
        f"{row.operation}{_at(row.namespaces)}, {row.holder} holder: {table.figure(row.ours)} {row.unit}".rstrip()
        + (f", {table.figure(row.ratio)} × {row.peer}" if row.ratio is not None else "")
        + f"; the goal is {row.goal}. {f'Of this: {row.note}.' if row.note else ''}".rstrip()
        for row in report.rows()
        if row.met is False
    ]
    found += [
        f"{row.operation} at {report.plan.many:,}, {row.holder} holder: {row.ratio:.2f} × as long as at "
        f"{report.plan.few}, {row.many - row.few:+.2f} ms, of which the kernel's part is {row.kernel or 0:+.2f} ms: "
        f"{row.apart:.2f} × without that; the goal is {row.goal}."
        for row in report.growth()
        if row.met is False
    ]
    found += [
        f"{row['operation']}, {row['release']}, {row['holder']} holder: {table.booted_outcome(row)}; the goal is "
        f"{table.booted_goal(row)}. {row['note'] or ''}".rstrip()
        for row in report.booted
        if row["met"] is False
    ]
    return found


def _at(namespaces: int) -> str:
    return f" at {namespaces:,}" if namespaces else ""


def summary(report: Report) -> list[str]:
    """A line a goal, the worst of what it is about."""
    plan = report.plan
    return short.lines(
        (
            *short.of_rows(report.rows()),
            *short.of_growth(report.growth(), plan.few, plan.many),
            *short.of_booted(report.booted),
        )
    )


def judged(report: Report) -> list[str]:
    """All that has a goal, a line each."""
    head = ("operation", "with", "holder", "goal", "measured", "")
    many = f"{report.plan.many:,}"
    cells = [
        (
            row.operation,
            f"{row.namespaces:,}" if row.namespaces else "",
            row.holder,
            row.whole_goal,
            table.outcome_of(row),
            table.verdict(row.met) or "not measured",
        )
        for row in report.rows()
        if row.goal
    ]
    cells += [
        (
            row.operation,
            many,
            row.holder,
            table.goal_of_growth(row, report.plan.few),
            table.outcome_of_growth(row),
            table.verdict_of(row),
        )
        for row in report.growth()
        if row.goal
    ]
    cells += [
        (
            str(row["operation"]),
            "",
            f"{row['holder']}, {row['release']}",
            table.booted_goal(row),
            table.booted_outcome(row),
            table.verdict(row["met"] if isinstance(row["met"], bool) else None) or "not measured",
        )
        for row in report.booted
        if row["goal"]
    ]
    return list(table.markdown(head, cells, frozenset({1, 4})))


def picture(report: Report) -> str:
    """The medians as SVG."""
    names = {OURS: "mountnsd", BARE: "bare system calls", UNSHARE: "", NETNS: ""}
    peers = {
        operations.CREATE: "unshare --mount=FILE true",
        operations.ENTER: "nsenter --mount=FILE true",
        operations.DESTROY: "umount + rm",
    }
    groups: list[tuple[str, list[Line]]] = []
    for operation in (
        operations.CREATE,
        operations.ENTER,
        operations.EXEC,
        operations.DESTROY,
        operations.OPEN,
        operations.MOUNTS,
        operations.LIST,
    ):
        lines = [
            Line(f"{names[OURS]}, {one.holder} holder", "ours", *_both(one, operation, OURS))
            for one in report.outcomes
        ]
        first = report.outcomes[0]
        if operation in peers:
            lines.append(Line(peers[operation], "peer", *_both(first, operation, UNSHARE)))
        if operation == operations.EXEC:
            lines.append(Line("nsenter + python3 -c pass", "peer", *_nsenter_and_python(first)))
        if operation == operations.LIST:
            lines += [Line(who, "peer", *_both(first, operation, who)) for who in (LSNS, LSNS_NEW)]
        if operation in peers or operation in (operations.OPEN, operations.MOUNTS):
            lines.append(Line(names[BARE], "bare", *_both(first, operation, BARE)))
        groups.append((operation, lines))
    return plot.svg(
        "How long operations take, beside what one would use instead",
        groups,
        report.plan.few,
        report.plan.many,
    )


def _both(outcome: Outcome, operation: str, who: str) -> tuple[float | None, float | None]:
    return outcome.few.median((operation, who)), outcome.many.median((operation, who))


def _nsenter_and_python(outcome: Outcome) -> tuple[float | None, float | None]:
    nsenter, python = _both(outcome, operations.ENTER, UNSHARE), _both(outcome, PYTHON, PYTHON)
    few, many = (
        None if one is None or other is None else one + other
        for one, other in zip(nsenter, python, strict=True)
    )
    return few, many


def page(report: Report, picture_name: str) -> str:
    """The document."""
    plan = report.plan
    method = _METHOD.format(
        few=plan.few,
        many=plan.many,
        rounds=plan.rounds,
        rounds_many=plan.rounds_many,
        rest=plan.idle + 1,
        warm=WARM,
    )
    missed = unmet(report) or ["None."]
    text = [
        "# Performance",
        "",
        _INTRODUCTION.format(command=report.command),
        "",
        *(f"* {key}: {value}" for key, value in report.machine.items()),
        "",
        "## Goals",
        "",
        _GOALS.format(few=plan.few, many=plan.many),
        "",
        *summary(report),
        "",
        f"![medians by operation, on a logarithmic scale]({picture_name})",
        "",
        "Goals that are not met, and the limit that was measured:",
        "",
        *(f"* {line}" for line in missed),
        "",
        "## How it is measured",
        "",
        method,
        "",
        "## All that is judged",
        "",
        *judged(report),
    ]
    for outcome in report.outcomes:
        text += [
            "",
            f"## The {outcome.holder} holder",
            "",
            _HOLDERS[outcome.holder],
            _rounds(outcome, plan),
            "",
        ]
        text += table.of_rows(goals.rows(outcome, plan.few, plan.many))
        if outcome.refused:
            text += ["", f"unshare(1) was refused {outcome.refused} times, and tried again."]
        text += ["", f"### From {plan.few} to {plan.many:,}", ""]
        text += table.of_growth(goals.growth(outcome), plan.few, plan.many)
    if report.trouble:
        text += ["", report.trouble]
    if report.booted:
        text += ["", "## In booted systems", "", *table.of_booted(report.booted)]
    if report.marshalling:
        text += ["", "## Marshalling", "", *_marshalling(report)]
    return "\n".join([*text, ""])


def _rounds(outcome: Outcome, plan: Plan) -> str:
    key = (operations.CREATE, OURS)
    few, many = outcome.few.count(key), outcome.many.count(key)
    return f"Medians of {few} rounds with {plan.few}, and of {many} with {plan.many:,}."


def _marshalling(report: Report) -> Iterator[str]:
    many = report.plan.many
    head = ("library", f"a List of {many:,}, ms", "the answer to Create, ms")
    rows = [
        (f"{name.replace('_', '-')} {one.version}", table.figure(one.many), table.figure(one.small))
        for name, one in report.marshalling.items()
    ]
    yield "What the library needs to make bytes of an answer, by itself, without a bus."
    yield ""
    yield from table.markdown(head, rows, frozenset({1, 2}))
    yield ""
    old, new = report.marshalling.get("dbus_next"), report.marshalling.get("dbus_fast")
    if old is None or new is None:
        yield "dbus-fast was not to be had."
        return
    ours = report.outcomes[0].many.median((operations.LIST, OURS))
    long, short = new.many / old.many, new.small / old.small
    yield f"dbus-fast needs {long:.2f} × the time for the long one, {short:.2f} × for the short."
    if ours:
        yield (
            f"A whole List of {many:,} takes {ours:.0f} ms over the bus; to marshal it by dbus-next would be "
            f"{old.many:.0f} ms, by dbus-fast {new.many:.0f} ms."
        )


def figures(report: Report) -> str:
    """Everything, as JSON."""
    content: dict[str, Any] = {
        "command": report.command,
        "machine": dict(report.machine),
        "rows": [{**asdict(row), "ratio": row.ratio} for row in report.rows()],
        "growth": [{**asdict(row), "ratio": row.ratio} for row in report.growth()],
        "booted": [dict(row) for row in report.booted],
        "marshalling": {name: asdict(one) for name, one in report.marshalling.items()},
        "samples": [sample for one in report.outcomes for sample in _samples(report, one)],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _samples(report: Report, outcome: Outcome) -> Iterator[dict[str, object]]:
    plan = report.plan
    for namespaces, samples, alone in (
        (plan.few, outcome.few, False),
        (plan.many, outcome.many, False),
        (plan.few, outcome.few_alone, True),
        (plan.many, outcome.many_alone, True),
    ):
        for key in samples:
            low, high = samples.spread(key)
            yield {
                "holder": outcome.holder,
                "namespaces": namespaces,
                "alone": alone,
                "operation": key[0],
                "who": key[1],
                "median_ms": samples.median(key),
                "quartiles_ms": [low, high],
                "count": samples.count(key),
            }
