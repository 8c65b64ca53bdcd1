# SPDX-License-Identifier: LGPL-2.1-or-later
"""A tree drawn in front of the first column of a table, as findmnt(8) draws it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

# What is in front of: a child, the last child, what is below a child, what is below the last child.
LINES = ("├─", "└─", "│ ", "  ")
ASCII = ("|-", "`-", "| ", "  ")

# Deeper rows are drawn as if they were so deep: mounts can be stacked a hundred thousand deep.
_DEEPEST = 40


def branches(
    rows: Sequence[Sequence[Any]], glyphs: tuple[str, str, str, str]
) -> Iterator[tuple[str, Sequence[Any]]]:
    """Rows that begin with an id and the id of their parent, each once: what is drawn in front, and the row.

    Children are below their parents, in the order in which they come.  What has no parent here, or is its own, is a
    root; rows that are below themselves only are drawn as roots, too.
    """
    known = {row[0] for row in rows}
    children: defaultdict[Any, list[int]] = defaultdict(list)
    roots = []
    for index, row in enumerate(rows):
        if row[1] == row[0] or row[1] not in known:
            roots.append(index)
        else:
            children[row[1]].append(index)
    seen: set[int] = set()
    for root in (*roots, *range(len(rows))):
        stack = [
            (root, "", "", 0)
        ]  # a row, what is in front of it, what is in front of those below it, and how deep
        while stack:
            index, front, below, depth = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            yield front, rows[index]
            child, last, down, space = glyphs
            for number, kid in enumerate(reversed(children.pop(rows[index][0], []))):
                mark, line = (child, down) if number else (last, space)
                stack.append((kid, below + mark, below + line if depth < _DEEPEST else below, depth + 1))
