# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl mounts`: the mounts in a namespace, as findmnt(8) shows those here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mountnsd.ctl import text, tree, values
from mountnsd.ctl.connection import NAMESPACE, Connection
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.table import Table

KEYS = ("id", "parent", "device", "root", "target", "options", "fstype", "source")


def run(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status."""
    (rows,) = connection.ask(connection.namespace(arguments.names[0]), NAMESPACE, "GetMounts")
    if output.json:
        output.value([dict(zip(KEYS, row, strict=True)) for row in rows])
        return 0
    glyphs = tree.LINES if text.has_lines() else tree.ASCII
    drawn: Iterable[tuple[str, Any]] = (
        tree.branches(rows, glyphs) if arguments.tree else (("", row) for row in rows)
    )
    table = Table(("TARGET", "SOURCE", "FSTYPE", "OPTIONS"), "mounts")
    for front, (_, _, _, root, target, options, fstype, source) in drawn:
        table.add(target, values.source_of(source, root), fstype, options, front=front)
    output.page(table.render(output.legend, output.colours))
    return 0
