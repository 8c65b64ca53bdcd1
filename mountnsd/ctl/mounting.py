# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl mount` and `umount`: change the mounts in a namespace, through mountnsd."""

from __future__ import annotations

import os
from typing import Any

from mountnsd.ctl import values
from mountnsd.ctl.agent import Agent
from mountnsd.ctl.connection import Connection
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.problem import Problem

_BINDS = ("bind", "rbind")


def mount(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status."""
    name, what, where = arguments.names
    options = ",".join([*([arguments.bind] if arguments.bind else []), *arguments.mount_options])
    fstype = arguments.fstype or ""
    if any(option in _BINDS for option in options.split(",")):
        what = os.path.join(os.getcwd(), what) if what else what
    elif not fstype:
        raise Problem(
            "What is to be mounted? Say the type of the filesystem with -t TYPE, or that WHAT is a directory or "
            "file of the host with --bind."
        )
    path = connection.namespace(name)
    with Agent(arguments.ask_password and not arguments.remote):
        connection.change(path, "Mount", "ssss", (what, where, fstype, options))
    if output.json:
        output.value({"name": name, "what": what, "where": where, "type": fstype, "options": options})
    return 0


def umount(connection: Connection, arguments: Arguments, output: Output) -> int:
    """Do what the verb says; returns the exit status."""
    name, *places = arguments.names
    options = {"lazy": ("b", True)} if arguments.lazy else {}
    path = connection.namespace(name)
    gone: list[dict[str, Any]] = []

    def one(where: str) -> None:
        connection.change(path, "Unmount", "sa{sv}", (where, options))
        gone.append({"name": name, "where": where})

    with Agent(arguments.ask_password and not arguments.remote):
        status = values.each(places, one)
    if output.json:
        output.value(gone)
    return status
