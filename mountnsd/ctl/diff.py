# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl diff`: what is mounted in one namespace and not on the host, or not in another namespace.

mountnsd compares with the host; two namespaces are compared here, by the same rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from mountnsd.ctl import text, values
from mountnsd.ctl.connection import NAMESPACE, Connection
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.table import Table

KEYS = ("change", "target", "fstype", "source", "root", "options")
MARKS = {"added": ("+", text.GREEN), "removed": ("-", text.RED), "changed": ("~", text.YELLOW)}
_DIFFERENT = 1

Change = tuple[str, ...]  # as KEYS has them


def run(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status, that of diff(1)."""
    name, *others = arguments.names
    path = connection.namespace(name)
    if others:
        (theirs,) = connection.ask(connection.namespace(others[0]), NAMESPACE, "GetMounts")
        (ours,) = connection.ask(path, NAMESPACE, "GetMounts")
        changes: Sequence[Change] = differences(theirs, ours)
    else:
        (changes,) = connection.ask(path, NAMESPACE, "GetChanges")
    if output.json:
        output.value([dict(zip(KEYS, change, strict=True)) for change in changes])
    elif changes:
        table = table_of(changes).render(False, output.colours)
        output.page(_head(others[0] if others else "", name, output) + table)
    return _DIFFERENT if changes else 0


def differences(before: Iterable[Sequence[Any]], after: Iterable[Sequence[Any]]) -> list[Change]:
    """What differs between two answers of GetMounts, in the shape and by the rule of GetChanges.

    Mounts that lie over each other on one mount point are compared from the lowest.
    """
    old, new = _by_target(before), _by_target(after)
    found: list[Change] = []
    for target in sorted({*old, *new}):
        here, there = old[target], new[target]
        for index in range(max(len(here), len(there))):
            if index >= len(there):
                found.append(("removed", *_shown(here[index])))
            elif index >= len(here):
                found.append(("added", *_shown(there[index])))
            elif _essence(here[index]) != _essence(there[index]):
                found.append(("changed", *_shown(there[index])))
    return found


def table_of(changes: Iterable[Change], with_options: bool = True) -> Table:
    """Changes as a table whose rows begin with +, - or ~."""
    headings = ("TARGET", "SOURCE", "FSTYPE", "OPTIONS")
    table = Table(headings if with_options else headings[:-1], "differences")
    for kind, target, fstype, source, root, options in changes:
        mark, colour = MARKS.get(kind, ("?", ""))
        cells = [target, values.source_of(source, root), fstype, *([options] if with_options else [])]
        table.add(*cells, colour=colour, front=f"{mark} ")
    return table


def _head(other: str, name: str, output: Output) -> str:
    """What is compared, as diff(1) says it above its output."""
    if not output.legend:
        return ""
    start, end = (text.BOLD, text.RESET) if output.colours else ("", "")
    before = f"namespace {text.cell(other)}" if other else "host"
    return f"{start}--- {before}{end}\n{start}+++ namespace {text.cell(name)}{end}\n"


def _by_target(mounts: Iterable[Sequence[Any]]) -> defaultdict[str, list[Sequence[Any]]]:
    found: defaultdict[str, list[Sequence[Any]]] = defaultdict(list)
    for mount in mounts:
        found[mount[4]].append(mount)
    return found


def _essence(mount: Sequence[Any]) -> tuple[Any, ...]:
    """What makes a mount the same as another one: all but the ids, and where it is."""
    return (mount[2], mount[3], *mount[5:])


def _shown(mount: Sequence[Any]) -> tuple[str, str, str, str, str]:
    _, _, _, root, target, options, fstype, source = mount
    return target, fstype, source, root, options
