# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is said of a namespace in words and in JSON, for all verbs alike.

The JSON shapes are an interface: keys are added, never renamed or taken away (mountnsctl(1) has them).
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable
from typing import Any

from mountnsd.ctl import text
from mountnsd.ctl.problem import FAILURE, Problem

_KEYS = {"Path": "pin", "NamespaceID": "namespace_id", "OwnerUID": "owner", "CreatedUSec": "created_usec"}
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def key_of(name: str) -> str:
    """The JSON key of a property."""
    return _KEYS.get(name, name.lower())


def object_of(path: str, properties: dict[str, Any], processes: int) -> dict[str, Any]:
    """A namespace for JSON: its properties in snake_case, its object path, and the number of processes inside."""
    found = {"name": properties.get("Name", ""), "path": path}
    found.update((key_of(key), value) for key, value in properties.items())
    return {**found, "processes": processes}


def uid_of(name: str) -> int:
    """The uid of a user that is given by name or by uid.  Raises: Problem."""
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise Problem(f"There is no user '{name}' here; a uid will do as well.") from None


def label(key: str, value: str) -> str:
    """A label, escaped."""
    return text.cell(f"{key}={value}")


def age(usec: int) -> str:
    """How long ago a moment is, in one unit; empty for one that is not known or is to come."""
    seconds = int(time.time()) - usec // 1_000_000
    if not usec or seconds < 0:
        return ""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return "0s"


def when(usec: int) -> str:
    """A moment, and how long ago it is."""
    try:
        moment = time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(usec // 1_000_000))
    except (OverflowError, ValueError, OSError):
        return f"{usec} us after the epoch"
    ago = age(usec)
    return f"{moment}; {ago} ago" if ago else moment


def source_of(source: str, root: str) -> str:
    """What is mounted, as findmnt(8) writes it: with the directory in brackets where it is not the root."""
    return source if root == "/" else f"{source}[{root}]"


def each(names: list[str], work: Callable[[str], None]) -> int:
    """Do something with each name, going on past what fails; returns the exit status."""
    status = 0
    for name in names:
        try:
            work(name)
        except Problem as problem:
            text.complain(problem.message)
            status = FAILURE
    return status
