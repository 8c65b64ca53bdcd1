# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures and tables, in markdown that reads as text as well."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from .goals import GROWTH_GOAL, Growth, Row


def figure(value: float | None) -> str:
    """A number with three digits that say something; nothing for none."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def outcome_of(row: Row) -> str:
    """What was measured of what the goal is about."""
    if "×" not in row.goal:
        return f"{figure(row.ours)} {row.unit}".strip()
    return "" if row.ratio is None else f"{figure(row.ratio)} ×"


def goal_of_growth(growth: Growth, few: int) -> str:
    """The goal in words: what is judged is the time without the kernel's part."""
    return f"{growth.goal} with {few:,}, without the kernel's part"


def outcome_of_growth(growth: Growth) -> str:
    """How many times as long it takes; and without the kernel's part, where there is one."""
    whole, apart = figure(growth.ratio), figure(growth.apart)
    return f"{whole} ×" if whole == apart else f"{whole} ×, without {apart} ×"


def booted_goal(row: Mapping[str, object]) -> str:
    """The goal of a row of booted.py, with whom it is compared with."""
    return str(row["goal"]).replace("×", f"× {row['peer']}", 1)


def booted_outcome(row: Mapping[str, object]) -> str:
    """What was measured of what the goal is about."""
    ratio = "×" in str(row["goal"])
    value = _number(row["ratio"] if ratio else row["ours_ms"])
    return "" if value is None else f"{figure(value)} {'×' if ratio else 'ms'}"


def verdict_of(growth: Growth) -> str:
    """Whether it does not grow too much, in words."""
    if growth.met and growth.ratio > GROWTH_GOAL:
        return "met without the kernel's part"
    return verdict(growth.met)


def verdict(met: bool | None) -> str:
    """Whether a goal is met, in a word."""
    return {True: "met", False: "**not met**", None: ""}[met]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], right: frozenset[int]) -> Iterator[str]:
    """A table.  Arguments: right: the columns of numbers."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for number, row in enumerate(cells):
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield f"| {' | '.join(padded)} |"
        if number == 0:
            rule = (
                "-" * (width - 1) + ":" if column in right else "-" * width
                for column, width in enumerate(widths)
            )
            yield f"| {' | '.join(rule)} |"


def of_rows(rows: Iterable[Row]) -> Iterator[str]:
    """What was measured, line by line."""
    head = (
        "operation",
        "with",
        "compared with",
        "ours",
        "theirs",
        "ratio",
        "goal",
        "",
        "of this, in ms, or seen",
    )
    cells = (
        (
            row.operation,
            f"{row.namespaces:,}" if row.namespaces else "",
            row.peer,
            f"{figure(row.ours)} {row.unit}".strip(),
            f"{figure(row.theirs)} {row.unit}".strip() if row.theirs is not None else "",
            figure(row.ratio),
            row.goal,
            verdict(row.met),
            row.note,
        )
        for row in rows
    )
    return markdown(head, cells, frozenset({1, 3, 4, 5}))


def of_growth(rows: Iterable[Growth], few: int, many: int) -> Iterator[str]:
    """What grows."""
    head = (
        "operation",
        "who",
        f"ms at {few:,}",
        f"ms at {many:,}",
        "ratio",
        "kernel's part",
        "without",
        "goal",
        "",
    )
    cells = (
        (
            row.operation,
            row.who,
            figure(row.few),
            figure(row.many),
            figure(row.ratio),
            "" if row.kernel is None else f"{row.kernel:+.2f} ms",
            "" if row.kernel is None else figure(row.apart),
            row.goal,
            verdict_of(row),
        )
        for row in rows
    )
    return markdown(head, cells, frozenset({2, 3, 4, 5, 6}))


def of_booted(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """What was measured in booted systems, by booted.py."""
    head = (
        "operation",
        "release",
        "holder",
        "compared with",
        "ours ms",
        "theirs ms",
        "ratio",
        "goal",
        "",
        "note",
    )
    cells = (
        (
            str(row["operation"]),
            str(row["release"]),
            str(row["holder"]),
            str(row["peer"] or ""),
            *(figure(_number(row[key])) for key in ("ours_ms", "peer_ms", "ratio")),
            str(row["goal"] or ""),
            verdict(_flag(row["met"])),
            str(row["note"] or ""),
        )
        for row in rows
    )
    return markdown(head, cells, frozenset({4, 5, 6}))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
