# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl list`: the namespaces, those that are wanted, in the order that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mountnsd.ctl import values
from mountnsd.ctl.connection import MANAGER, NAMESPACE, PATH, Connection
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.table import Table

_HEADINGS = ("NAME", "INODE", "OWNER", "PROCESSES")
_MORE = ("STATE", "AGE", "LABELS", "DESCRIPTION")


def run(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status."""
    more = bool(output.json or arguments.full or arguments.labels or "created" in arguments.sort)
    rows = _rows(connection, more)
    if arguments.owner is not None:
        owner = values.uid_of(arguments.owner)
        rows = [row for row in rows if row["owner"] == owner]
    rows = [row for row in rows if all(_has(row["labels"], label) for label in arguments.labels)]
    rows = ordered(rows, arguments.sort, output.user)
    if output.json:
        output.value(rows)
        return 0
    headings = (*_HEADINGS, *(_MORE if arguments.full else ()))
    table = Table(headings, "namespaces", numbers=("PROCESSES",))
    for row in rows:
        cells = [row["name"], f"mnt:[{row['inode']}]", output.user(row["owner"]), row["processes"]]
        if arguments.full:
            labels = ",".join(f"{key}={value}" for key, value in sorted(row["labels"].items()))
            cells += [row["state"], values.age(row["created_usec"]), labels, row["description"]]
        table.add(*cells)
    output.page(table.render(output.legend, output.colours))
    return 0


def ordered(rows: list[dict[str, Any]], sort: str, user: Callable[[int], str]) -> list[dict[str, Any]]:
    """Rows sorted by keys with commas between, the first counting most, by name at last; `-KEY` is downwards.

    Arguments: user: the name of a user, by which owners are sorted.
    """
    values_of: dict[str, Callable[[dict[str, Any]], Any]] = {
        "name": lambda row: row["name"],
        "owner": lambda row: user(row["owner"]),
        "processes": lambda row: row["processes"],
        "created": lambda row: row["created_usec"],
    }
    for key in ("name", *reversed(sort.split(","))):
        rows = sorted(rows, key=values_of[key.removeprefix("-")], reverse=key.startswith("-"))
    return rows


def _rows(connection: Connection, more: bool) -> list[dict[str, Any]]:
    """Every namespace, as JSON has it; without `more`, only what List says of it."""
    (listed,) = connection.ask(PATH, MANAGER, "List")
    if not more:
        keys = ("name", "path", "inode", "owner", "processes")
        return [{**dict(zip(keys, row, strict=True)), "labels": {}} for row in listed]
    inside = {(path, inode): processes for _, path, inode, _, processes in listed}
    rows = []
    for path, properties in _properties(connection).items():
        row = values.object_of(path, properties, inside.get((path, properties.get("Inode")), 0))
        leading = {key: row.pop(key) for key in ("name", "path", "inode", "owner", "processes")}
        rows.append({**leading, **row})
    return rows


def _properties(connection: Connection) -> dict[str, dict[str, Any]]:
    """The properties of all namespaces, by object path."""
    (objects,) = connection.ask(PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    return {
        path: {key: value for key, (_, value) in interfaces[NAMESPACE].items()}
        for path, interfaces in objects.items()
        if NAMESPACE in interfaces
    }


def _has(labels: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
