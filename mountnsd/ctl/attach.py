# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl attach` and `detach`: a systemd service in a namespace, by a drop-in.

Of what systemd has loaded all is taken that the drop-in is made of.  Where there is a drop-in of ours already, that
must not be of it: so it is first replaced by one that keeps the service from being started, and only then the unit
is looked at.  At no moment can the service start outside of its namespace.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from mountnsd import names
from mountnsd.ctl import text
from mountnsd.ctl.dropfile import DropInFile
from mountnsd.ctl.dropin import MARK, DropIn
from mountnsd.ctl.execute import could_be_pin, open_pin
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.problem import Problem
from mountnsd.ctl.progress import Progress
from mountnsd.ctl.systemd import Systemd
from mountnsd.ctl.unitsyntax import service_name

ADMINISTRATOR = "/etc/systemd/system"
RUNTIME = "/run/systemd/system"
_PROGRAM = "/usr/bin/mountnsctl"
_DECLARED = ("/etc/mountnsd/namespaces", "/usr/lib/mountnsd/namespaces")

# In place while the unit is looked at.
GUARD = f"""{MARK}
# The unit is being changed by mountnsctl. If this stays, attach it again, or detach it.

[Unit]
AssertPathExists=!/
"""
# mountns@.service needs these, so that they would wait for themselves.
_BELOW = ("mountnsd.service", "dbus.service", "dbus-broker.service")


def run(arguments: Arguments) -> int:
    """Do what the verb says; returns the exit status.  Raises: Problem."""
    if os.geteuid() != 0:
        raise Problem(f"{arguments.verb} changes units of systemd, and that needs root: try it with sudo.")
    name = service_name(arguments.names[0])
    with Systemd() as systemd:
        if arguments.verb == "attach":
            name, notes = _attach(systemd, arguments, name)
        else:
            name, notes = _detach(systemd, name)
        active = _is_active(systemd, name)
        if active and not arguments.now:
            notes.append(f"{name} runs as it did: 'systemctl restart {name}' makes the change.")
        if not arguments.quiet:
            for note in notes:
                text.note(text.plain(note))
        if active and arguments.now:
            with Progress(not arguments.quiet).shown(f"Restarting {name}"):
                systemd.restart(name)
    return 0


def _is_active(systemd: Systemd, name: str) -> bool:
    return systemd.service(name).get("ActiveState") in ("active", "activating", "reloading")


def _attach(systemd: Systemd, arguments: Arguments, name: str) -> tuple[str, list[str]]:
    namespace = arguments.names[1]
    if not could_be_pin(namespace):
        raise Problem(f"'{namespace}' is no name for a namespace: see mountnsctl(1).")
    name = _check(systemd.service(name), name)
    files = _files(name)
    before = [file.read() for file in files]
    target = files[1] if arguments.runtime else files[0]
    try:
        if any(before):
            for file, content in zip(files, before, strict=True):
                file.put(GUARD if content else None)
            systemd.reload()
        drop_in = _made(systemd, arguments, name, namespace)
        if _is_active(systemd, name):  # systemd would stop it as soon as it is bound to what is not
            systemd.start(names.keeper_of(namespace))
        for file in files:
            file.put(drop_in.text if file is target else None)
        systemd.reload()
        _verify(systemd.service(name), target, drop_in)
    except BaseException:
        for file, content in zip(files, before, strict=True):
            file.put(content)
        systemd.reload()
        raise
    return name, [*drop_in.notes, *_about(arguments, namespace)]


def _made(systemd: Systemd, arguments: Arguments, name: str, namespace: str) -> DropIn:
    properties = systemd.service(name)
    _check(properties, name)
    drop_in = DropIn(name, properties, namespace, _program())
    drop_in.release(arguments.without_mount_sandbox)
    return drop_in


def _detach(systemd: Systemd, name: str) -> tuple[str, list[str]]:
    names = dict.fromkeys((name, str(systemd.service(name).get("Id", name))))
    ours = [file for known in names for file in _files(known) if file.read() is not None]
    if not ours:
        raise Problem(f"{name} is not attached to a namespace: it has no drop-in that mountnsctl wrote.")
    for file in ours:
        file.remove()
    systemd.reload()
    return name, []


def _files(name: str) -> list[DropInFile]:
    """Where our drop-in may be.  The first hides the second."""
    return [DropInFile(root, name, MARK) for root in (ADMINISTRATOR, RUNTIME)]


def _check(properties: dict[str, Any], name: str) -> str:
    """The own name of a unit that can be attached.  Raises: Problem."""
    state, fragment = properties.get("LoadState"), str(properties.get("FragmentPath", ""))
    own = str(properties.get("Id", name))
    if state == "not-found":
        raise Problem(f"There is no unit '{name}': 'systemctl list-unit-files' shows those that there are.")
    if state == "masked":
        raise Problem(f"'{name}' is masked and cannot run: 'systemctl unmask {name}' first.")
    if state != "loaded":
        said = str(properties.get("LoadError", ("", ""))[1]) or str(state)
        raise Problem(f"systemd cannot load '{name}': {said.rstrip('.')}. Repair the unit first.")
    if properties.get("Transient") or not fragment:
        raise Problem(
            f"'{name}' is transient, and gone when it stops: start its command by 'mountnsctl exec'."
        )
    if "/systemd/generator" in fragment:
        raise Problem(
            f"'{name}' was generated ({fragment}): write a unit of its own for it, and attach that."
        )
    if own in _BELOW or own.startswith("mountns@"):
        raise Problem(f"'{own}' must run for there to be a namespace, and so cannot be in one.")
    if not properties.get("DefaultDependencies", True):
        raise Problem(
            f"'{own}' may start before there is a bus and mountnsd, and so cannot be in a namespace."
        )
    return own


def _verify(properties: dict[str, Any], file: DropInFile, drop_in: DropIn) -> None:
    """Hold what systemd has read against what was meant.  Raises: Problem."""
    read = {
        setting: [(path, argv) for path, argv, *_ in properties.get(f"{setting}Ex", ())]
        for setting in drop_in.commands
    }
    if properties.get("LoadState") != "loaded" or read != drop_in.commands:
        others = ", ".join(path for path in properties.get("DropInPaths", ()) if path != file.path)
        raise Problem(
            f"systemd does not run what {file.path} says, and it is as it was before: another drop-in comes after "
            f"it ({others or 'none is known'}), or the log of systemd says why."
        )


def _about(arguments: Arguments, namespace: str) -> list[str]:
    fd = open_pin(arguments.runtime_directory, namespace)
    if fd is not None:
        os.close(fd)
        return []
    if any(os.path.exists(f"{place}/{namespace}.toml") for place in _DECLARED):
        return []
    return [
        f"There is no namespace '{namespace}' now: mountns@{namespace}.service makes an empty one at the start."
    ]


def _program() -> str:
    """Where this program is, as the unit shall call it."""
    called = os.path.abspath(sys.argv[0])
    return called if os.path.basename(called) == "mountnsctl" and os.access(called, os.X_OK) else _PROGRAM
