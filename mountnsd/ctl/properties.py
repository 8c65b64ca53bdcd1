# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl show`: the properties of namespaces, a line each, for programs."""

from __future__ import annotations

from typing import Any

from mountnsd.ctl import text, values
from mountnsd.ctl.connection import NAMESPACE, Connection
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.problem import Problem


def run(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status."""
    wanted = [name for given in arguments.properties for name in given.split(",") if name]
    objects: list[dict[str, Any]] = []
    blocks: list[str] = []

    def one(name: str) -> None:
        path = connection.namespace(name)
        found = connection.properties(path)
        (inside,) = connection.ask(path, NAMESPACE, "GetProcesses")
        if output.json:
            shown = values.object_of(path, found, len(inside))
            known = {**found, "Processes": len(inside)}
            _check(wanted, known)
            objects.append({values.key_of(key): shown[values.key_of(key)] for key in wanted} or shown)
        else:
            blocks.append(lines({**found, "Processes": len(inside)}, wanted, arguments.values_only))

    status = values.each(arguments.names, one)
    if output.json:
        output.value(objects)
    elif blocks:
        output.page("\n".join(blocks))
    return status


def lines(properties: dict[str, Any], wanted: list[str], values_only: bool) -> str:
    """Properties as lines `Name=value`, those that are wanted in that order, or all; with or without the names.

    Raises: Problem for one that there is not.
    """
    _check(wanted, properties)
    names = wanted or list(properties)
    start = {name: "" if values_only else f"{text.cell(name)}=" for name in names}
    return "".join(f"{start[name]}{_value(properties[name])}\n" for name in names)


def _check(wanted: list[str], known: dict[str, Any]) -> None:
    for name in wanted:
        if name not in known:
            raise Problem(f"There is no property '{name}'; there are {', '.join(known)}.")


def _value(value: Any) -> str:
    """A value on one line.  Labels have spaces between them, and an escape for those that they have themselves."""
    if isinstance(value, dict):
        return " ".join(values.label(*item).replace(" ", "\\x20") for item in sorted(value.items()))
    return text.cell(str(value))
