# SPDX-License-Identifier: LGPL-2.1-or-later
"""The verbs that ask mountnsd and show what it says; `enter`, `exec` and `verify` have files of their own.

The JSON shapes here are an interface: keys are added, never renamed or taken away (mountnsctl(1) has them).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mountnsd.ctl import text
from mountnsd.ctl.agent import Agent
from mountnsd.ctl.bridge import bridge_for
from mountnsd.ctl.connection import MANAGER, NAMESPACE, PATH, CallProblem, Connection
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.problem import FAILURE, Problem
from mountnsd.ctl.progress import Progress
from mountnsd.ctl.table import Table, aligned

KEYS = {"Path": "pin", "NamespaceID": "namespace_id", "OwnerUID": "owner", "CreatedUSec": "created_usec"}
_NO_SUCH_NAMESPACE = "org.mountnsd1.Error.NoSuchNamespace"
_MOUNT_KEYS = ("id", "parent", "device", "root", "target", "options", "fstype", "source")


def run(arguments: Arguments) -> int:
    """Do what the verb says; returns the exit status."""
    output = Output(arguments)
    progress = Progress(not arguments.quiet)
    with Connection(arguments.ask_password, bridge_for(arguments), progress) as connection:
        return _VERBS[arguments.verb](connection, arguments, output)


def _list(connection: Connection, _arguments: Arguments, output: Output) -> int:
    (rows,) = connection.ask(PATH, MANAGER, "List")
    rows = sorted(rows)
    if output.json:
        keys = ("name", "path", "inode", "owner", "processes")
        output.value([dict(zip(keys, row, strict=True)) for row in rows])
        return 0
    table = Table(("NAME", "INODE", "OWNER", "PROCESSES"), "namespaces", numbers=("PROCESSES",))
    for name, _, inode, owner, processes in rows:
        table.add(name, f"mnt:[{inode}]", output.user(owner), processes)
    output.page(table.render(output.legend, output.colours))
    return 0


def _show(connection: Connection, arguments: Arguments, output: Output) -> int:
    shown: list[Any] = []

    def one(name: str) -> None:
        path = connection.namespace(name)
        properties = connection.properties(path)
        (processes,) = connection.ask(path, NAMESPACE, "GetProcesses")
        if output.json:
            shown.append(_object(path, properties, len(processes)))
        else:
            shown.append(_status(properties, sorted(processes), output))

    status = _each(arguments.names, one)
    if output.json:
        output.value(shown)
    elif shown:
        output.page("\n".join(shown))
    return status


def _object(path: str, properties: dict[str, Any], processes: int) -> dict[str, Any]:
    """A namespace for JSON: its properties in snake_case, its object path, and the number of processes inside."""
    found = {"name": properties.get("Name", ""), "path": path}
    found.update((KEYS.get(key, key.lower()), value) for key, value in properties.items())
    return {**found, "processes": processes}


def _status(properties: dict[str, Any], processes: list[tuple[int, int, str]], output: Output) -> str:
    """A namespace for people, as `machinectl status` has a machine."""
    known = dict(properties)

    def take(key: str, default: Any = "") -> Any:
        return known.pop(key, default)

    name, description, state = take("Name"), take("Description"), str(take("State"))
    identifier, owner, created = take("NamespaceID", 0), take("OwnerUID", 0), take("CreatedUSec", 0)
    colour = text.GREEN if state == "active" else text.RED
    fields: list[tuple[str, list[str]]] = [
        ("State", [f"{colour}{text.cell(state)}{text.RESET}" if output.colours else text.cell(state)]),
        ("Inode", [f"mnt:[{take('Inode', 0)}]"]),
        ("Namespace ID", [str(identifier)] if identifier else []),
        ("Pin", [text.cell(take("Path"))]),
        ("Owner", [_owner(owner, output)]),
        ("Created", [_when(created)] if created else []),
        ("Propagation", [text.cell(take("Propagation"))]),
        ("Labels", [text.cell(f"{key}={value}") for key, value in sorted(take("Labels", {}).items())]),
        ("Processes", [str(len(processes)), *(f"{pid} {text.cell(comm)}" for pid, _, comm in processes)]),
    ]
    fields += [(text.cell(key), [text.cell(str(value))]) for key, value in sorted(known.items())]
    return aligned(f"{name} - {description}" if description else name, fields, output.colours)


def _owner(uid: int, output: Output) -> str:
    name = output.user(uid)
    return name if name == str(uid) else f"{text.cell(name)} ({uid})"


def _when(usec: int) -> str:
    import time

    seconds = usec // 1_000_000
    try:
        moment = time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{usec} us after the epoch"
    age = int(time.time()) - seconds
    if age < 0:
        return moment
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= length:
            return f"{moment}; {age // length}{unit} ago"
    return f"{moment}; {age}s ago"


def _create(connection: Connection, arguments: Arguments, output: Output) -> int:
    name = arguments.names[0]
    options: dict[str, tuple[str, Any]] = {}
    for key, value in (
        ("propagation", arguments.propagation),
        ("description", arguments.description),
        ("from", arguments.source),
    ):
        if value is not None:
            options[key] = ("s", value)
    if arguments.labels:
        options["labels"] = ("a{ss}", arguments.labels)
    if arguments.if_not_exists:
        options["if_not_exists"] = ("b", True)
    with Agent(arguments.ask_password and not arguments.remote) as agent:
        connection.doing = "" if agent.running else f"Creating '{name}'"
        (path,) = connection.manager("Create", "sa{sv}", (name, options))
    if output.json:
        output.value({"name": name, "path": path})
    return 0


def _destroy(connection: Connection, arguments: Arguments, output: Output) -> int:
    options = {key: ("b", True) for key in ("kill", "lazy") if getattr(arguments, key)}
    gone: list[dict[str, Any]] = []

    def one(name: str) -> None:
        if not agent.running:
            connection.doing = _destroying(name, len(gone), len(arguments.names), arguments.kill)
        try:
            (pids,) = connection.manager("Destroy", "sa{sv}", (name, options))
        except CallProblem as problem:
            if arguments.if_exists and problem.name == _NO_SUCH_NAMESPACE:
                return
            raise
        gone.append({"name": name, "pids": sorted(pids)})
        if pids and arguments.lazy:
            inside = " ".join(str(pid) for pid in sorted(pids))
            output.note(
                f"The namespace '{name}' has lost its name and ends with the processes inside: {inside}."
            )

    with Agent(arguments.ask_password and not arguments.remote) as agent:
        connection.doing = ""
        status = _each(arguments.names, one)
    if output.json:
        output.value(gone)
    return status


def _destroying(name: str, done: int, of: int, kill: bool) -> str:
    """What is shown of a destruction that takes long."""
    doing = f"Ending the processes in '{name}'" if kill else f"Destroying '{name}'"
    return f"{doing}, destroyed {done} of {of}" if of > 1 else doing


def _pids(connection: Connection, arguments: Arguments, output: Output) -> int:
    path = connection.namespace(arguments.names[0])
    (rows,) = connection.ask(path, NAMESPACE, "GetProcesses")
    rows = sorted(rows)
    if output.json:
        output.value([dict(zip(("pid", "uid", "comm"), row, strict=True)) for row in rows])
        return 0
    table = Table(("PID", "USER", "COMMAND"), "processes", numbers=("PID",))
    for pid, uid, comm in rows:
        table.add(pid, output.user(uid), comm)
    output.page(table.render(output.legend, output.colours))
    return 0


def _mounts(connection: Connection, arguments: Arguments, output: Output) -> int:
    path = connection.namespace(arguments.names[0])
    (rows,) = connection.ask(path, NAMESPACE, "GetMounts")
    if output.json:
        output.value([dict(zip(_MOUNT_KEYS, row, strict=True)) for row in rows])
        return 0
    table = Table(("TARGET", "SOURCE", "FSTYPE", "OPTIONS"), "mounts")
    for _, _, _, root, target, options, fstype, source in rows:
        table.add(target, source if root == "/" else f"{source}[{root}]", fstype, options)
    output.page(table.render(output.legend, output.colours))
    return 0


def _each(names: list[str], work: Callable[[str], None]) -> int:
    """Do something with each name, going on past what fails; returns the exit status."""
    status = 0
    for name in names:
        try:
            work(name)
        except Problem as problem:
            text.complain(problem.message)
            status = FAILURE
    return status


_VERBS: dict[str, Callable[[Connection, Arguments, Output], int]] = {
    "list": _list,
    "show": _show,
    "create": _create,
    "destroy": _destroy,
    "pids": _pids,
    "mounts": _mounts,
}
