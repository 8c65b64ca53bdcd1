# SPDX-License-Identifier: LGPL-2.1-or-later
"""The a{sv} options of Create, Enter, Destroy and Unmount, checked.

Out of scope: what the options do, and the D-Bus types they arrive in: a value
comes as its D-Bus signature and a plain Python value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mountnsd import names
from mountnsd.errors import InvalidArgs
from mountnsd.mountrequest import MountRequest
from mountnsd.namespace import Propagation

MAX_DESCRIPTION = 256
MAX_LABELS = 32
MAX_LABEL_KEY = 64
MAX_LABEL_VALUE = 256

_LABEL_KEY = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_./-]*[A-Za-z0-9_])?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Options = Mapping[str, tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class CreateOptions:
    propagation: Propagation = Propagation.SLAVE
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    source: str | None = None  # "from"
    if_not_exists: bool = False
    mounts: tuple[MountRequest, ...] = ()  # of a declaration; no caller can give them


@dataclass(frozen=True, slots=True)
class EnterOptions:
    user: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    tty: bool = False
    kill_on_disconnect: bool = False
    new_privileges: bool = False


@dataclass(frozen=True, slots=True)
class DestroyOptions:
    kill: bool = False
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class UnmountOptions:
    lazy: bool = False


_CREATE = {"propagation": "s", "description": "s", "labels": "a{ss}", "from": "s", "if_not_exists": "b"}
_ENTER = {
    "user": "s",
    "env": "a{ss}",
    "cwd": "s",
    "tty": "b",
    "kill_on_disconnect": "b",
    "new_privileges": "b",
}
_DESTROY = {"kill": "b", "lazy": "b"}
_UNMOUNT = {"lazy": "b"}


def create(options: Options) -> CreateOptions:
    """Raises InvalidArgs that names the option."""
    values = _checked("Create", options, _CREATE)
    if "propagation" in values:
        values["propagation"] = _propagation(values["propagation"])
    if "from" in values:
        values["source"] = names.check(values.pop("from"))
    _check_text("description", values.get("description", ""), MAX_DESCRIPTION)
    _check_labels(values.get("labels", {}))
    return CreateOptions(**values)


def enter(options: Options) -> EnterOptions:
    """Raises InvalidArgs that names the option."""
    values = _checked("Enter", options, _ENTER)
    if "user" in values:
        _check_text("user", values["user"], 256)
    return EnterOptions(**values)


def destroy(options: Options) -> DestroyOptions:
    """Raises InvalidArgs that names the option."""
    chosen = DestroyOptions(**_checked("Destroy", options, _DESTROY))
    if chosen.kill and chosen.lazy:
        raise InvalidArgs("Destroy takes either kill or lazy, not both.")
    return chosen


def unmount(options: Options) -> UnmountOptions:
    """Raises InvalidArgs that names the option."""
    return UnmountOptions(**_checked("Unmount", options, _UNMOUNT))


def _checked(method: str, options: Options, known: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for key, (signature, value) in options.items():
        if key not in known:
            raise InvalidArgs(
                f"{method} has no option {names.shown(key)}; it has {', '.join(sorted(known))}."
            )
        if signature != known[key]:
            raise InvalidArgs(
                f"The option {key} of {method} is of type {known[key]}, not {names.shown(signature)}."
            )
        values[key] = value
    return values


def _propagation(value: str) -> Propagation:
    try:
        return Propagation(value)
    except ValueError:
        raise InvalidArgs(
            f"The option propagation is one of {', '.join(Propagation)}, not {names.shown(value)}."
        ) from None


def _check_text(key: str, text: str, most: int) -> None:
    if len(text.encode()) > most or _CONTROL.search(text):
        raise InvalidArgs(f"The option {key} takes at most {most} bytes of text without control characters.")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidArgs(f"A namespace takes at most {MAX_LABELS} labels, not {len(labels)}.")
    for key, value in labels.items():
        if len(key) > MAX_LABEL_KEY or not _LABEL_KEY.fullmatch(key):
            raise InvalidArgs(
                f"{names.shown(key)} is no key for a label: take 1 to {MAX_LABEL_KEY} of A-Z a-z 0-9 _ . / -, "
                "beginning and ending with a letter, a digit or _."
            )
        _check_text(f"labels (the value of {key})", value, MAX_LABEL_VALUE)
