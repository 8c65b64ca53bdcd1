# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl pids` and `which`: the processes in a namespace, and the namespace of a process."""

from __future__ import annotations

from typing import Any

from mountnsd.ctl import proc
from mountnsd.ctl.connection import MANAGER, NAMESPACE, PATH, CallProblem, Connection
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.problem import FAILURE, Problem
from mountnsd.ctl.table import Table

_IN_NONE = "org.mountnsd1.Error.NoNamespaceForPID"
_MAX_PID = (1 << 31) - 1


def processes(connection: Connection, path: str) -> list[dict[str, Any]]:
    """The processes inside, by pid, with the unit of each where that can be known."""
    (rows,) = connection.ask(path, NAMESPACE, "GetProcesses")
    found = [dict(zip(("pid", "uid", "comm"), row, strict=True)) for row in sorted(rows)]
    return [{**row, "unit": proc.unit_of(row["pid"]) if connection.local else ""} for row in found]


def pids(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status."""
    rows = processes(connection, connection.namespace(arguments.names[0]))
    if output.json:
        output.value(rows)
        return 0
    table = Table(("PID", "USER", "UNIT", "COMMAND"), "processes", numbers=("PID",))
    for row in rows:
        table.add(row["pid"], output.user(row["uid"]), row["unit"], row["comm"])
    output.page(table.render(output.legend, output.colours))
    return 0


def which(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status: 1 where the process is in none."""
    pid = _pid(arguments.names[0]) if arguments.names else 0
    try:
        (path,) = connection.ask(PATH, MANAGER, "GetNamespaceByPID", "u", (pid,))
    except CallProblem as problem:
        if problem.name != _IN_NONE:
            raise
        output.note(problem.message)
        if output.json:
            output.value(None)
        return FAILURE
    name = connection.properties(path)["Name"]
    if output.json:
        output.value({"name": name, "path": path})
    else:
        output.page(f"{name}\n")
    return 0


def _pid(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 11 and 0 < int(word) <= _MAX_PID):
        raise Problem(f"'{word}' is no process id.")
    return int(word)
