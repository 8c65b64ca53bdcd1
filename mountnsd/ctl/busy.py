# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl busy`: what keeps a namespace besides its name."""

from __future__ import annotations

import os
from typing import Any

from mountnsd.ctl import inside
from mountnsd.ctl.connection import Connection
from mountnsd.ctl.holders import Search
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.table import Table

_USER = "Only root sees what all processes hold: there may be more. Try it with sudo."
_ROOT = "The kernel does not let us look into all processes: there may be more."
_REMOTE = "What keeps it besides processes inside can be seen on its own host only."


def run(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status."""
    name = arguments.names[0]
    path = connection.namespace(name)
    properties = connection.properties(path)
    search = Search(properties["Inode"], str(properties["Path"]))
    for process in inside.processes(connection, path):
        search.add("process", process["pid"], process["uid"], process["comm"], process["unit"])
    if connection.local:
        search.run()
    holders = sorted(search.found, key=lambda row: row["pid"])
    if not search.complete:
        output.note((_ROOT if os.geteuid() == 0 else _USER) if connection.local else _REMOTE)
    if output.json:
        inode = properties["Inode"]
        output.value({"name": name, "inode": inode, "complete": search.complete, "holders": holders})
        return 0
    table = Table(("PID", "USER", "UNIT", "COMMAND", "KEEPS IT BY"), "holders", numbers=("PID",))
    for row in holders:
        table.add(row["pid"], output.user(row["uid"]), row["unit"], row["comm"], _how(row))
    output.page(table.render(output.legend, output.colours))
    return 0


def _how(row: dict[str, Any]) -> str:
    match row["kind"]:
        case "thread":
            return f"its thread {row['thread']} inside"
        case "descriptor":
            return f"descriptor {row['fd']}"
        case "mount":
            return f"a mount that it sees on {row['path']}"
        case _:
            return "being inside"
