# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables and aligned lists, as systemd's tools draw them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mountnsd.ctl.text import BOLD, RESET, UNDERLINED, cell, width


class Table:
    """Rows below headings.

    Arguments: headings: the columns; numbers: the columns that are aligned to the right; noun: what is counted
        in the line below, in the plural.
    """

    def __init__(self, headings: Sequence[str], noun: str, numbers: Sequence[str] = ()) -> None:
        self._headings = list(headings)
        self._numbers = {self._headings.index(heading) for heading in numbers}
        self._noun = noun
        self._rows: list[list[str]] = []
        self._colours: list[str] = []

    def add(self, *values: object, colour: str = "", front: str = "") -> None:
        """Add a row; its texts are escaped, and what is empty becomes a dash.

        Arguments: colour: of the whole row, where there are colours; front: what is drawn in front of the first text.
        """
        if len(values) != len(self._headings):
            raise ValueError("a row has one value a heading")
        first, *others = (cell(str(value)) or "-" for value in values)
        self._rows.append([front + first, *others])
        self._colours.append(colour)

    def render(self, legend: bool, colours: bool) -> str:
        """The table as text, with its headings and the count below them if `legend`."""
        if legend and not self._rows:
            return f"No {self._noun}.\n"
        above = [self._headings] if legend else []
        widths = [
            max(width(row[column]) for row in [*above, *self._rows]) if above or self._rows else 0
            for column in range(len(self._headings))
        ]
        lines = [self._line(row, widths) for row in self._rows]
        if colours:
            coloured = zip(self._colours, lines, strict=True)
            lines = [f"{colour}{line}{RESET}" if colour else line for colour, line in coloured]
        if legend:
            heading = self._line(self._headings, widths)
            lines.insert(0, f"{UNDERLINED}{heading}{RESET}" if colours else heading)
            lines += ["", f"{len(self._rows)} {self._noun} listed."]
        return "".join(line + "\n" for line in lines)

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = []
        for column, value in enumerate(row):
            space = " " * (widths[column] - width(value))
            cells.append(space + value if column in self._numbers else value + space)
        return " ".join(cells).rstrip(" ")


def aligned(title: str, fields: Iterable[tuple[str, Sequence[str]]], colours: bool) -> str:
    """A title and below it `key: value` lines, the keys aligned to the right as in `systemctl status`.

    A field has any number of values, each on a line of its own; one with none is left out.  The values are
    written as they are: escape them with `text.cell` first, or colour them.
    """
    kept = [(key, values) for key, values in fields if values]
    indent = max((width(key) for key, _ in kept), default=0) + 4
    start, end = (BOLD, RESET) if colours else ("", "")
    lines = [f"{start}{cell(title)}{end}"]
    for key, values in kept:
        lines.append(" " * (indent - width(key)) + f"{key}: {values[0]}")
        lines += [" " * (indent + 2) + value for value in values[1:]]
    return "".join(line.rstrip(" ") + "\n" for line in lines)
