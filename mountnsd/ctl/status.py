# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl status`: how a namespace is, for people, as `machinectl status` has a machine."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Self

from mountnsd import names
from mountnsd.ctl import diff, inside, journal, text, values
from mountnsd.ctl.connection import MANAGER, NAMESPACE, PATH, Connection
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.problem import FAILURE, Problem
from mountnsd.ctl.systemd import Systemd
from mountnsd.ctl.table import Table, aligned

_SHORT = 10  # of processes and of differences, so many are shown


class Units:
    """What systemd says of the units of namespaces; nothing where it is not to be asked.  A context manager."""

    def __init__(self, local: bool) -> None:
        self._systemd: Systemd | None = None
        if local:
            with contextlib.suppress(Problem):
                self._systemd = Systemd()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._systemd is not None:
            self._systemd.__exit__(kind, error, trace)

    def state(self, name: str) -> dict[str, str] | None:
        """Name and states of a unit; None where systemd does not run or does not say."""
        if self._systemd is None:
            return None
        try:
            found = self._systemd.unit(name)
        except Problem:
            return None
        keys = {"active": "ActiveState", "sub": "SubState", "enabled": "UnitFileState"}
        return {"name": name, **{key: str(found.get(property_, "")) for key, property_ in keys.items()}}


def run(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status."""
    wanted = arguments.names
    if not wanted:
        (rows,) = connection.ask(PATH, MANAGER, "List")
        wanted = sorted(row[0] for row in rows)
        if not rows and not output.json and output.legend:
            output.page("No namespaces.\n")
            return 0
    found: list[dict[str, Any]] = []
    with Units(connection.local) as units:

        def one(name: str) -> None:
            found.append(_gather(connection, units, name, int(arguments.lines)))

        status = values.each(wanted, one)
    if output.json:
        output.value(found)
    elif found:
        pages = [_text(one, _way(connection, one), arguments.full, output) for one in found]
        output.page("\n".join(pages))
    return FAILURE if any(one["changes"] is None for one in found) else status


def _gather(connection: Connection, units: Units, name: str, lines: int) -> dict[str, Any]:
    """All that is shown of a namespace, as JSON has it."""
    path = connection.namespace(name)
    properties = connection.properties(path)
    processes = inside.processes(connection, path)
    try:
        (changes,) = connection.ask(path, NAMESPACE, "GetChanges")
    except Problem as problem:  # it is stale: its pin cannot be reached
        text.complain(problem.message)
        changes = None
    return {
        **values.object_of(path, properties, len(processes)),
        "inside": processes,
        "changes": None
        if changes is None
        else [dict(zip(diff.KEYS, change, strict=True)) for change in changes],
        "unit": units.state(names.keeper_of(name)),
        "slice": units.state(names.slice_of(name)),
        "log": journal.lines(name, lines) if connection.local else [],
    }


def _way(connection: Connection, found: dict[str, Any]) -> str:
    """The way to a pin that the host does not see, for which the daemon need not run; empty for another."""
    if not str(found["pin"]).startswith("/proc/"):
        return ""
    question = (MANAGER, "Holder")
    ((_, holder),) = connection.ask(PATH, "org.freedesktop.DBus.Properties", "Get", "ss", question)
    return f"nsenter --mount={holder}/.anchor nsenter --mount={holder}/{found['name']}"


def _text(found: dict[str, Any], way: str, full: bool, output: Output) -> str:
    """A namespace for people.  Arguments: way: see `_way`."""
    most = None if full else _SHORT
    state = text.cell(found["state"])
    colour = text.GREEN if state == "active" else text.RED
    identifier, created, name = found["namespace_id"], found["created_usec"], found["name"]
    fields: list[tuple[str, list[str]]] = [
        ("State", [f"{colour}{state}{text.RESET}" if output.colours else state]),
        ("Inode", [f"mnt:[{found['inode']}]"]),
        ("Namespace ID", [str(identifier)] if identifier else []),
        ("Pin", [text.cell(found["pin"]), *([text.cell(way)] if way else [])]),
        ("Owner", [_owner(found["owner"], output)]),
        ("Created", [values.when(created)] if created else []),
        ("Propagation", [text.cell(found["propagation"])] if found["propagation"] else []),
        ("Labels", [values.label(*label) for label in sorted(found["labels"].items())]),
        ("Unit", _unit(found["unit"])),
        ("Slice", _unit(found["slice"])),
        (
            "Processes",
            [str(found["processes"]), *_shortened(_processes(found["inside"], output), most, "pids", name)],
        ),
        ("Mounts", _changes(found["changes"], most, name, output.colours)),
    ]
    description = found["description"]
    page = aligned(f"{name} - {description}" if description else name, fields, output.colours)
    return page + "".join(f"{line}\n" for line in ["", *map(text.plain, found["log"])] if found["log"])


def _owner(uid: int, output: Output) -> str:
    name = output.user(uid)
    return name if name == str(uid) else f"{text.cell(name)} ({uid})"


def _unit(unit: dict[str, str] | None) -> list[str]:
    """A unit, with its states; nothing where systemd does not run."""
    if unit is None:
        return []
    states = [unit["active"] + (f" ({unit['sub']})" if unit["sub"] not in ("", unit["active"]) else "")]
    states += [unit["enabled"]] if unit["enabled"] else []
    return [text.cell(f"{unit['name']}: {', '.join(states)}")]


def _processes(processes: list[dict[str, Any]], output: Output) -> list[str]:
    table = Table(("PID", "USER", "UNIT", "COMMAND"), "processes", numbers=("PID",))
    for row in processes:
        table.add(row["pid"], output.user(row["uid"]), row["unit"], row["comm"])
    return table.render(False, False).splitlines()


def _changes(changes: list[dict[str, str]] | None, most: int | None, name: str, colours: bool) -> list[str]:
    if changes is None:
        return []
    if not changes:
        return ["as on the host"]
    rows = [tuple(row[key] for key in diff.KEYS) for row in changes]
    drawn = diff.table_of(rows, with_options=most is None).render(False, colours).splitlines()
    said = "1 differs" if len(changes) == 1 else f"{len(changes)} differ"
    return [f"{said} from the host's", *_shortened(drawn, most, "diff", name)]


def _shortened(rows: list[str], most: int | None, verb: str, name: str) -> list[str]:
    """The first rows, and how many there are more."""
    if most is None or len(rows) <= most:
        return rows
    return [*rows[:most], f"and {len(rows) - most} more: 'mountnsctl {verb} {name}' shows all"]
