# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd's manager over D-Bus: units as it has loaded them, reload, restart.

Out of scope: what is in a unit.  Source: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any, Self

from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call

from mountnsd.ctl.connection import BROKEN, DEFAULT_ADDRESS, connect
from mountnsd.ctl.problem import Problem

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = f"{_NAME}.Manager"
_SECONDS = 90.0  # a reload of many units takes its time
_POLL_SECONDS = 0.1


class Systemd:
    """A connection to PID 1 over the system bus; a context manager that closes it.  Raises: Problem throughout."""

    def __init__(self) -> None:
        self._bus = connect(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_ADDRESS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.close()

    def service(self, name: str) -> dict[str, Any]:
        """The properties of a service, those of every unit and those of services alone, loaded if need be."""
        return self._properties(name, "Unit", "Service")

    def unit(self, name: str) -> dict[str, Any]:
        """Those properties of a unit that every unit has, loaded if need be."""
        return self._properties(name, "Unit")

    def _properties(self, name: str, *kinds: str) -> dict[str, Any]:
        (path,) = self._call(_PATH, _MANAGER, "LoadUnit", "s", (name,))
        found: dict[str, Any] = {}
        for interface in (f"{_NAME}.{kind}" for kind in kinds):
            (values,) = self._call(path, "org.freedesktop.DBus.Properties", "GetAll", "s", (interface,))
            found.update((key, value) for key, (_, value) in values.items())
        return found

    def reload(self) -> None:
        """Have systemd read all units again."""
        self._call(_PATH, _MANAGER, "Reload")

    def restart(self, name: str) -> None:
        """Restart a unit if it runs, and wait until that is done."""
        self._work("TryRestartUnit", "restart", name)

    def start(self, name: str) -> None:
        """Start a unit unless it is active, and wait until that is done."""
        self._work("StartUnit", "start", name)

    def _work(self, member: str, what: str, name: str) -> None:
        (job,) = self._call(_PATH, _MANAGER, member, "ss", (name, "replace"))
        deadline = time.monotonic() + _SECONDS
        while self._exists(job):
            if time.monotonic() > deadline:
                raise Problem(f"The {what} of {name} takes long: see 'systemctl status {name}'.")
            time.sleep(_POLL_SECONDS)
        if self.service(name).get("ActiveState") == "failed":
            raise Problem(f"{name} has failed after its {what}: see 'systemctl status {name}'.")

    def _exists(self, job: str) -> bool:
        try:
            self._call(job, "org.freedesktop.DBus.Peer", "Ping")
            self._call(job, "org.freedesktop.DBus.Properties", "GetAll", "s", (f"{_NAME}.Job",))
        except _Refused:
            return False
        return True

    def _call(
        self, path: str, interface: str, member: str, signature: str | None = None, body: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        message = new_method_call(DBusAddress(path, _NAME, interface), member, signature, body)
        try:
            reply = self._bus.send_and_get_reply(message, timeout=_SECONDS)
        except TimeoutError:
            raise Problem("systemd does not answer; its log may say why.") from None
        except BROKEN as error:
            raise Problem(f"The connection to the bus broke: {error}.") from error
        if reply.header.message_type is MessageType.error:
            name = str(reply.header.fields.get(HeaderFields.error_name, ""))
            said = reply.body[0] if reply.body and isinstance(reply.body[0], str) else name
            if name.endswith((".ServiceUnknown", ".NameHasNoOwner", ".Spawn.ChildExited")):
                raise Problem(
                    f"systemd is not on the system bus, and there are no units: {said.rstrip('.')}."
                )
            raise _Refused(f"systemd refused {member}: {said.rstrip('.')}.")
        answer: tuple[Any, ...] = reply.body
        return answer


class _Refused(Problem):
    """An error that systemd answered with."""
