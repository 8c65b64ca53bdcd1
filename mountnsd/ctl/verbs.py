# SPDX-License-Identifier: LGPL-2.1-or-later
"""The verbs that ask mountnsd.  `create` and `destroy` are here, the others have files of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mountnsd.ctl import values
from mountnsd.ctl.agent import Agent
from mountnsd.ctl.connection import CallProblem, Connection, bridge_of
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.progress import Progress

_NO_SUCH_NAMESPACE = "org.mountnsd1.Error.NoSuchNamespace"

_Work = Callable[[Connection, Arguments, Output], int]


def run(arguments: Arguments) -> int:
    """Do what the verb says; returns the exit status."""
    work = _work(arguments.verb)
    output = Output(arguments)
    progress = Progress(not arguments.quiet)
    with Connection(arguments.ask_password, bridge_of(arguments), progress) as connection:
        return work(connection, arguments, output)


def _work(verb: str) -> _Work:
    """What does the verb, with the imports of that alone."""
    match verb:
        case "list":
            from mountnsd.ctl import listing

            return listing.run
        case "status":
            from mountnsd.ctl import status

            return status.run
        case "show":
            from mountnsd.ctl import properties

            return properties.run
        case "mounts":
            from mountnsd.ctl import mounttree

            return mounttree.run
        case "mount" | "umount":
            from mountnsd.ctl import mounting

            return mounting.mount if verb == "mount" else mounting.umount
        case "diff":
            from mountnsd.ctl import diff

            return diff.run
        case "pids" | "which":
            from mountnsd.ctl import inside

            return inside.pids if verb == "pids" else inside.which
        case "busy":
            from mountnsd.ctl import busy

            return busy.run
    return {"create": _create, "destroy": _destroy}[verb]


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
        labels = dict(label.split("=", 1) for label in arguments.labels)
        options["labels"] = ("a{ss}", labels)
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
        status = values.each(arguments.names, one)
    if output.json:
        output.value(gone)
    return status


def _destroying(name: str, done: int, of: int, kill: bool) -> str:
    """What is shown of a destruction that takes long."""
    doing = f"Ending the processes in '{name}'" if kill else f"Destroying '{name}'"
    return f"{doing}, destroyed {done} of {of}" if of > 1 else doing
