# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl monitor`: what happens to namespaces and to mountnsd, a line each, as it happens.

Only what the daemon itself says counts: of the others on the bus anybody may send us signals.
"""

from __future__ import annotations

import json
import signal
import time
from typing import Any, NoReturn

from jeepney import HeaderFields, Message

from mountnsd.ctl import text
from mountnsd.ctl.connection import MANAGER, NAME, NAMESPACE, PATH, Connection, bridge_of
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.values import key_of

_BUS = "org.freedesktop.DBus"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PREFIX = f"{PATH}/namespace/"
_RULES = (
    f"type='signal',sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{NAME}'",
    f"type='signal',sender='{NAME}',path_namespace='{PATH}'",
)
_COLOURS = {"new": text.GREEN, "removed": text.RED, "stopped": text.RED}
_WIDEST = len("removed")

_Event = dict[str, Any]


def run(arguments: Arguments) -> int:
    """Show events until SIGINT or SIGTERM; returns the exit status.  Raises: Problem when the bus hangs up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Connection(arguments.ask_password, bridge_of(arguments)) as connection:
            _monitor(connection, Output(arguments))
    except KeyboardInterrupt:
        return 0


def _monitor(connection: Connection, output: Output) -> NoReturn:
    signals = connection.subscribe(*_RULES)
    events = Events(connection.owner())
    _show(events.first(), output)
    while True:
        event = events.of(connection.next_signal(signals))
        if event is not None:
            _show(event, output)


class Events:
    """Makes events of signals: objects as they are in JSON.

    Arguments: owner: the unique name of the daemon, empty while there is none.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._names: dict[str, str] = {}

    def first(self) -> _Event:
        """Whether the daemon runs."""
        return {"event": "running" if self._owner else "stopped"}

    def of(self, message: Message) -> _Event | None:
        """The event that a signal tells of, None for none of ours."""
        fields = message.header.fields
        sender, path = fields.get(HeaderFields.sender), str(fields.get(HeaderFields.path, ""))
        kind = fields.get(HeaderFields.interface), fields.get(HeaderFields.member)
        if sender == _BUS and kind == (_BUS, "NameOwnerChanged"):
            return self._owner_changed(*message.body)
        if not self._owner or sender != self._owner:
            return None
        if kind == (_OBJECT_MANAGER, "InterfacesAdded"):
            return self._added(*message.body)
        if kind == (MANAGER, "NamespaceRemoved"):
            name, gone = message.body
            return {"event": "removed", "name": name, "path": gone}
        if kind == (_PROPERTIES, "PropertiesChanged") and path.startswith(_PREFIX):
            _, changed, _ = message.body
            return {"event": "changed", "name": _name(path), "path": path, **_plain(changed)}
        return None

    def _owner_changed(self, name: str, _before: str, owner: str) -> _Event | None:
        if name != NAME or owner == self._owner:
            return None
        self._owner = owner
        return {"event": "started" if owner else "stopped"}

    @staticmethod
    def _added(path: str, interfaces: dict[str, Any]) -> _Event | None:
        if NAMESPACE not in interfaces:
            return None
        properties = _plain(interfaces[NAMESPACE])
        return {"event": "new", "name": properties.pop("name", _name(path)), "path": path, **properties}


def _plain(properties: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """Properties by their names in JSON."""
    return {key_of(key): value for key, (_, value) in properties.items()}


def _name(path: str) -> str:
    """The name that an object path is made of, sd_bus_path_decode(3)."""
    first, *rest = path.removeprefix(_PREFIX).split("_")
    return first + "".join(chr(int(part[:2], 16)) + part[2:] for part in rest)


def _show(event: _Event, output: Output) -> None:
    now = time.time_ns() // 1000
    if output.json:
        form: dict[str, Any] = {"indent": "\t"} if output.json == "pretty" else {"separators": (",", ":")}
        text.write(json.dumps({"time_usec": now, **event}, **form) + "\n")
        return
    moment = f"{time.strftime('%b %d %H:%M:%S', time.localtime(now // 1_000_000))}.{now % 1_000_000:06}"
    kind = event["event"].ljust(_WIDEST)
    if output.colours:
        kind = f"{_COLOURS.get(event['event'], text.BOLD)}{kind}{text.RESET}"
    text.write(f"{moment} {kind} {_details(event, output)}\n")


def _details(event: _Event, output: Output) -> str:
    """What a line says after the time and the kind of event."""
    known = {
        key: value for key, value in event.items() if key not in ("event", "path", "pin", "created_usec")
    }
    if "name" not in known:
        return "mountnsd"
    words = [text.cell(str(known.pop("name")))]
    if "inode" in known:
        words.append(f"mnt:[{known.pop('inode')}]")
    if "owner" in known:
        known["owner"] = output.user(known["owner"])
    description = known.pop("description", "")
    for key, value in known.items():
        if isinstance(value, dict):
            words += [f"{key.removesuffix('s')}={text.cell(f'{k}={v}')}" for k, v in sorted(value.items())]
        elif value:
            words.append(f"{key}={text.cell(str(value))}")
    if description:
        words.append(f"description={text.cell(str(description))}")
    return " ".join(words)
