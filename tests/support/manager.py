# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stand-in for systemd on a private bus, for what the real one cannot be made to: refuse, lag, lose a unit.

It starts the processes of transient units for real.  How mountnsd gets on with systemd itself is for tests/system.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from jeepney import HeaderFields, Message, MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection

SYSTEMD = "org.freedesktop.systemd1"
_NO_SUCH_UNIT = SYSTEMD + ".NoSuchUnit"
_UNIT_PATH = "/org/freedesktop/systemd1/unit/"


class Refusal(Exception):
    """An error reply: its name and text."""


class Started(Protocol):
    """A process of a unit, as of subprocess.Popen."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...


def _started(command: list[str], stdin: int) -> Started:
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


@dataclass
class Unit:
    """A transient unit, while somebody refers to it or it is active."""

    properties: dict[str, tuple[str, Any]]
    process: Started | None
    state: str = "running"
    references: int = 1
    pid: int = 0
    code: int = 0
    status: int = 0
    kept: bool = False  # somebody else is in it, too

    def look(self) -> None:
        """See whether the process has ended."""
        if self.process is None or self.code or (status := self.process.poll()) is None:
            return
        self.code = os.CLD_EXITED if status >= 0 else os.CLD_KILLED
        self.status = abs(status)
        if not self.kept:
            self.state = "exited"


@dataclass
class Faults:
    """What it does wrong.

    Arguments: refuse: members that are answered with an error; silent: members that are never answered; starts:
        whether a unit that was asked for is started; late: so many times it is asked before it says how a process
        ended.
    """

    refuse: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    starts: bool = True
    late: int = 0


class Manager:
    """Owns org.freedesktop.systemd1 on a bus; a context manager.

    Arguments: start: starts a command with that standard input, borrowed.

    Attributes: units: by name; asked: every member that was called, with its first argument; faults.
    """

    def __init__(self, address: str, start: Callable[[list[str], int], Started] = _started) -> None:
        self.units: dict[str, Unit] = {}
        self.others: set[str] = set()  # names of units that are active and not transient
        self.asked: list[tuple[str, str]] = []
        self.faults = Faults()
        self._start_process = start
        self._ending = False
        self._connect(address)

    def _connect(self, address: str) -> None:
        self._connection: DBusConnection = open_dbus_connection(bus=address, enable_fds=True)
        answer = self._connection.send_and_get_reply(message_bus.RequestName(SYSTEMD, 4))
        assert answer.body == (1,), answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def reconnect(self, address: str) -> None:
        """Go on, with the units that there are, on a bus that was started anew."""
        self._thread.join(5)
        self._connection.close()
        self._connect(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._thread.join(5)
        for unit in self.units.values():
            self._end(unit)
        self._connection.close()

    def members(self) -> list[str]:
        return [member for member, _ in self.asked]

    def _serve(self) -> None:
        while not self._ending:
            try:
                message = self._connection.receive(timeout=0.1)
            except TimeoutError:
                continue
            except OSError:
                return
            if message.header.message_type is MessageType.method_call:
                with suppress(BrokenPipeError):  # the bus is gone, and the next look says so
                    self._answer(message)

    def _answer(self, message: Message) -> None:
        fields = message.header.fields
        member, path = fields[HeaderFields.member], fields[HeaderFields.path]
        body = message.body
        self.asked.append((member, str(body[0]) if body else ""))
        if member in self.faults.silent:
            return
        try:
            if member in self.faults.refuse:
                raise Refusal(SYSTEMD + ".TransactionIsDestructive", "The system is going down.")
            signature, answer = self._act(member, path, body)
        except Refusal as refusal:
            self._connection.send(new_error(message, refusal.args[0], "s", (refusal.args[1],)))
        else:
            self._connection.send(new_method_return(message, signature, answer))

    def _act(self, member: str, path: str, body: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        if member == "StartTransientUnit":
            self._start(body[0], dict(body[2]))
            return "o", ("/org/freedesktop/systemd1/job/1",)
        if member == "Get":
            return "v", (self._get(_unescape(path), body[1]),)
        if not body:  # Subscribe, by dbus-broker's launcher when somebody owns the name
            raise Refusal("org.freedesktop.DBus.Error.UnknownMethod", f"There is no {member} here.")
        name = body[0]
        if name in self.others:
            if member == "StopUnit":
                self.others.discard(name)
            return "o", ("/org/freedesktop/systemd1/job/2",)
        unit = self._unit(name)
        actions: dict[str, Callable[[Unit], None]] = {
            "GetUnit": lambda _: None,
            "StopUnit": self._end,
            "KillUnit": self._end,
            "RefUnit": lambda found: setattr(found, "references", found.references + 1),
            "UnrefUnit": lambda found: setattr(found, "references", 0),
            "ResetFailedUnit": lambda _: None,
        }
        actions[member](unit)
        if not unit.references and unit.state == "dead":
            del self.units[name]
        return ("o", ("/org/freedesktop/systemd1/job/3",)) if member in ("GetUnit", "StopUnit") else ("", ())

    def _unit(self, name: str) -> Unit:
        if name not in self.units:
            raise Refusal(_NO_SUCH_UNIT, f"Unit {name} not loaded.")
        self.units[name].look()
        return self.units[name]

    def _start(self, name: str, properties: dict[str, tuple[str, Any]]) -> None:
        stdin = properties["StandardInputFileDescriptor"][1]
        process = None
        if self.faults.starts:
            command = properties["ExecStart"][1][0][1]
            process = self._start_process(command, stdin.fileno())
        stdin.close()
        self.units[name] = Unit(properties, process, pid=process.pid if process is not None else 0)

    def _get(self, name: str, key: str) -> tuple[str, Any]:
        if name in self.others:
            return "s", {"ActiveState": "active"}.get(key, "")
        none = Unit({}, None, state="dead")
        unit = self._unit(name) if name in self.units else none
        if key == "ExecMainCode":
            return "i", 0 if self._is_late(unit) else unit.code
        if key == "SubState" and self._is_late(unit):
            return "s", "running"
        numbers = {"ExecMainStatus": ("i", unit.status), "ExecMainPID": ("u", unit.pid)}
        return numbers.get(key) or ("s", {"SubState": unit.state, "ActiveState": "active"}.get(key, ""))

    def _is_late(self, unit: Unit) -> bool:
        """Whether the end of a process is not yet known here."""
        if unit.code and self.faults.late:
            self.faults.late -= 1
            return True
        return False

    def _end(self, unit: Unit) -> None:
        if unit.process is not None and unit.process.poll() is None:
            os.killpg(unit.process.pid, signal.SIGKILL)
            unit.process.wait(10)
        unit.look()
        unit.state = "dead"


def _unescape(path: str) -> str:
    """The name of a unit, of its object path."""
    text = path.removeprefix(_UNIT_PATH)
    parts = text.split("_")
    return parts[0] + "".join(chr(int(part[:2], 16)) + part[2:] for part in parts[1:])
