# SPDX-License-Identifier: LGPL-2.1-or-later
"""The goals in short: a line each, the holders beside each other, the worst of all figures that a goal is about.

Out of scope: what is measured, and what the goals are (goals.py, booted.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from . import table
from .goals import Growth, Row
from .installed import HOLDERS


@dataclass(frozen=True)
class Judged:
    """One figure that a goal is about, of whatever table.

    Attributes: what, goal: the line that it belongs to; holder; said: the figure in words; badness: the larger, the
        worse; met: None where it was not measured, or is only to be compared.
    """

    what: str
    goal: str
    holder: str
    said: str
    badness: float
    met: bool | None


def of_rows(rows: Iterable[Row]) -> Iterator[Judged]:
    """Those of the table of operations."""
    for row in rows:
        if row.goal:
            figure = (row.ratio if "×" in row.goal else row.ours) or 0.0
            badness = -figure if row.goal.startswith("≥") else figure
            said = table.outcome_of(row)
            said += f" ({row.case})" if row.case and said else ""
            yield Judged(row.short or row.operation, row.whole_goal, row.holder, said, badness, row.met)


def of_growth(rows: Iterable[Growth], few: int, many: int) -> Iterator[Judged]:
    """Those of the table of what grows: all operations in one line."""
    for row in rows:
        if row.goal:
            said = f"{table.outcome_of_growth(row)} ({row.operation})"
            yield Judged(
                f"Each with {many:,}", table.goal_of_growth(row, few), row.holder, said, row.apart, row.met
            )


def of_booted(rows: Sequence[Mapping[str, object]]) -> Iterator[Judged]:
    """Those of booted systems, and beside them the same of a holder for which there is no goal."""
    goals = {_family(row): table.booted_goal(row) for row in rows if row["goal"]}
    judged = {(_family(row), row["holder"]) for row in rows if row["goal"]}
    for row in rows:
        family, holder = _family(row), str(row["holder"])
        if family in goals and (row["goal"] or (family, holder) not in judged):
            figure = row["ratio"] if "×" in str(row["goal"]) else row["ours_ms"]
            said = table.booted_outcome(row)
            said += f" ({row['release']})" if said else ""
            said += "" if row["goal"] else ", no goal"
            met = row["met"] if isinstance(row["met"], bool) else None
            badness = float(figure) if isinstance(figure, (int, float)) else 0.0
            yield Judged(family, goals[family], holder, said, badness, met)


def _family(row: Mapping[str, object]) -> str:
    """The operation, however many namespaces there are."""
    return str(row["operation"]).partition(", of ")[0]


def lines(judged: Iterable[Judged]) -> list[str]:
    """The table."""
    found: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        found.setdefault((one.what, one.goal), []).append(one)
    head = ("operation", "goal", *(f"{holder} holder" for holder in HOLDERS), "")
    cells = [
        (*key, *(_worst(line, holder) for holder in HOLDERS), _verdict(line)) for key, line in found.items()
    ]
    return list(table.markdown(head, cells, frozenset()))


def _worst(line: Sequence[Judged], holder: str) -> str:
    """Of one holder, in bold where it is not good enough."""
    found = [one for one in line if one.holder == holder]
    if not found:
        return ""
    worst = max(found, key=lambda one: (one.met is False, one.badness))
    return f"**{worst.said}**" if worst.met is False else worst.said


def _verdict(line: Sequence[Judged]) -> str:
    """Of both holders together."""
    met = {one.met for one in line}
    return table.verdict(False if False in met else True if True in met else None) or "not measured"
