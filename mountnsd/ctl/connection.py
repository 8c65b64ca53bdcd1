# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way to mountnsd over D-Bus, with every failure worded for the user.

Out of scope: what the answers mean.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import deque
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jeepney import DBusAddress, HeaderFields, MatchRule, Message, MessageFlag, MessageType, new_method_call
from jeepney.auth import BEGIN, Authenticator
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from mountnsd.ctl.exits import Exits
from mountnsd.ctl.parser import Parser
from mountnsd.ctl.problem import FAILURE, Problem
from mountnsd.ctl.progress import Progress

if TYPE_CHECKING:
    from mountnsd.ctl.bridge import Bridge
    from mountnsd.ctl.options import Arguments

NAME = "org.mountnsd1"
PATH = "/org/mountnsd1"
MANAGER = "org.mountnsd1.Manager"
NAMESPACE = "org.mountnsd1.Namespace"

_STANDARD = "org.freedesktop.DBus.Error."
DEFAULT_ADDRESS = "unix:path=/run/dbus/system_bus_socket"
_AUTHENTICATION_SECONDS = 20.0
_BRIDGE_SECONDS = 90.0  # ssh may ask for a password meanwhile
_QUESTION_SECONDS = 60.0  # for what the daemon answers out of its own knowledge
_ANOTHER_BUS = "set DBUS_SYSTEM_BUS_ADDRESS if its bus is another"
_NOT_THERE = (
    "ServiceUnknown",
    "NameHasNoOwner",
    "Spawn.",
    "TimedOut",
    "FileNotFound",
)


# What the library raises when the bus hangs up, or does not speak D-Bus.
BROKEN = (OSError, RuntimeError, ValueError, KeyError, IndexError, struct.error)


class CallProblem(Problem):
    """An error that came as the answer to a call.  `name` is the error's D-Bus name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message, FAILURE)
        self.name = name


def bridge_of(arguments: Arguments) -> Bridge | None:
    """The way to the bus that a command line means, None for that of this host, at no cost.  Raises: Problem."""
    if not arguments.remote:
        return None
    from mountnsd.ctl.bridge import bridge_for

    return bridge_for(arguments)


class Connection:
    """A connection to the bus that mountnsd is on; a context manager that closes it.

    Arguments: interactive: whether polkit may ask the user; bridge: the way to a bus elsewhere, by which no
        descriptors go; progress: shows for what we wait.
    Raises: Problem if there is no connection to be had.

    Attributes: exits: what the daemon has told of the ends of processes; doing: what is shown where a call takes
        long, empty for nothing.
    """

    def __init__(
        self, interactive: bool, bridge: Bridge | None = None, progress: Progress | None = None
    ) -> None:
        self._flags = MessageFlag.allow_interactive_authorization if interactive else MessageFlag(0)
        self._bridge = bridge
        self._progress = progress
        self.doing = "Waiting for mountnsd"
        if bridge is None:
            self._bus = connect(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_ADDRESS)
        else:
            self._bus = _connect_by(bridge)
        self.exits = Exits(NAME, MANAGER)
        self._bus.filter(MatchRule(type="signal"), queue=self.exits)
        self.local = bridge is None  # the daemon is on this host, so that its pids are those of our /proc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.close()
        if self._bridge is not None:
            self._bridge.close()

    def fileno(self) -> int:
        """The socket, to be polled."""
        return int(self._bus.sock.fileno())

    def expect_exits(self) -> None:
        """Hear also of a daemon that takes the place of this one, for what it tells of processes.  Does not wait."""
        message = message_bus.AddMatch(self.exits.rule)
        message.header.flags |= MessageFlag.no_reply_expected
        try:
            self._bus.send(message)
        except BROKEN as error:
            raise Problem(f"The connection to the bus broke: {error}.") from error

    def receive(self) -> bool:
        """Take in a message that has arrived, if one is whole.  False: the bus has hung up."""
        try:
            self._bus.recv_messages(timeout=0)
        except TimeoutError:
            return True
        except BROKEN:
            return False
        return True

    def subscribe(self, *rules: str) -> deque[Message]:
        """Have signals come that match one of the rules; returns where they, and all others, are put."""
        signals: deque[Message] = deque()
        self._bus.filter(MatchRule(type="signal"), queue=signals)
        bus = "org.freedesktop.DBus"
        for rule in rules:
            self._call(bus, "/org/freedesktop/DBus", bus, "AddMatch", "s", (rule,), _QUESTION_SECONDS)
        return signals

    def next_signal(self, signals: deque[Message]) -> Message:
        """Take the oldest signal, waiting for one if need be.  Raises: Problem when the bus hangs up."""
        while not signals:
            try:
                self._bus.recv_messages()
            except BROKEN as error:
                raise self.broken(error) from error
        return signals.popleft()

    def manager(
        self, member: str, signature: str | None = None, body: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        """Call a method of org.mountnsd1.Manager that may take its time; returns the answer's values."""
        return self._call(NAME, PATH, MANAGER, member, signature, body, None)

    def ask(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str | None = None,
        body: tuple[Any, ...] = (),
    ) -> tuple[Any, ...]:
        """Call a method of the daemon that answers at once; returns the answer's values."""
        return self._call(NAME, path, interface, member, signature, body, _QUESTION_SECONDS)

    def change(self, path: str, member: str, signature: str, body: tuple[Any, ...]) -> tuple[Any, ...]:
        """Call a method of the namespace at `path` that may take its time; returns the answer's values."""
        return self._call(NAME, path, NAMESPACE, member, signature, body, None)

    def namespace(self, name: str) -> str:
        """The object path of a namespace."""
        return str(self.ask(PATH, MANAGER, "GetNamespace", "s", (name,))[0])

    def properties(self, path: str) -> dict[str, Any]:
        """All properties of the namespace at `path`."""
        (values,) = self.ask(path, "org.freedesktop.DBus.Properties", "GetAll", "s", (NAMESPACE,))
        return {key: value for key, (_, value) in values.items()}

    def owner(self) -> str:
        """The unique name that owns the daemon's name now, empty if nobody does."""
        bus = "org.freedesktop.DBus"
        try:
            (name,) = self._call(
                bus, "/org/freedesktop/DBus", bus, "GetNameOwner", "s", (NAME,), _QUESTION_SECONDS
            )
        except Problem:
            return ""
        return str(name)

    def broken(self, error: Exception | None = None) -> Problem:
        """The problem that the bus has hung up."""
        if self._bridge is not None:
            return Problem(f"The connection to {self._bridge.place} broke: {self._bridge.reason()}.")
        return Problem(f"The connection to the bus broke{f': {error}' if error else ''}.")

    def wake(self) -> None:
        """Have the daemon started if it does not run; a failure is for others to tell."""
        with suppress(Problem):
            self.ask(PATH, "org.freedesktop.DBus.Peer", "Ping")

    def _call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str | None,
        body: tuple[Any, ...],
        timeout: float | None,
    ) -> tuple[Any, ...]:
        message = new_method_call(DBusAddress(path, destination, interface), member, signature, body)
        message.header.flags |= self._flags
        place = "" if self._bridge is None else self._bridge.place
        try:
            with self._progress.shown(self.doing) if self._progress and self.doing else nullcontext():
                reply = self._bus.send_and_get_reply(message, timeout=timeout)
        except TimeoutError:
            where = f"on {place}" if place else _ANOTHER_BUS
            raise Problem(
                f"mountnsd does not answer; 'systemctl status mountnsd' may say why ({where})."
            ) from None
        except UnicodeEncodeError:
            raise Problem("The bus carries UTF-8 text only, and an argument is not.") from None
        except BROKEN as error:
            raise self.broken(error) from error
        if reply.header.message_type is MessageType.error:
            raise _refusal(reply, place)
        if destination == NAME:
            self.exits.believe(reply.header.fields.get(HeaderFields.sender, ""))
        answer: tuple[Any, ...] = reply.body
        return answer


def connect(address: str) -> DBusConnection:
    """A connection to the bus at an address.  Raises: Problem."""
    try:
        return guarded(open_dbus_connection(address, enable_fds=True, auth_timeout=_AUTHENTICATION_SECONDS))
    except (OSError, ValueError, RuntimeError, KeyError, StopIteration) as error:
        raise Problem(
            f"Cannot connect to the system bus at '{address}': {_reason(error)}. "
            f"Is D-Bus running? Otherwise {_ANOTHER_BUS}."
        ) from error


def _connect_by(bridge: Bridge) -> DBusConnection:
    """A connection to the bus at the other end of a bridge.  Raises: Problem."""
    sock = bridge.open()
    try:
        _authenticate(sock, time.monotonic() + _BRIDGE_SECONDS)
        return guarded(DBusConnection(sock))
    except BROKEN as error:
        sock.close()
        why = bridge.reason()
        bridge.close()
        if isinstance(error, ValueError):  # what came is no D-Bus
            why = f"what answers is no D-Bus (does a login there print something?), and {why}"
        raise Problem(f"Cannot reach the system bus of {bridge.place}: {why}.") from error
    except BaseException:
        sock.close()
        bridge.close()
        raise


def _authenticate(sock: socket.socket, deadline: float) -> None:
    """Have the other side accept us; the bridge is who the bus knows.  Raises: OSError, ValueError."""
    authenticator = Authenticator(enable_fds=False)
    for data in authenticator:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        sock.sendall(data)
        received = sock.recv(1024)
        if not received:
            raise ConnectionResetError
        authenticator.feed(received)
    sock.sendall(BEGIN)
    sock.settimeout(None)


def guarded(connection: DBusConnection) -> DBusConnection:
    """A connection as the library made it, that others on the bus can now neither break nor deceive."""
    connection.parser = Parser.after(connection.parser)
    return connection


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, OSError | RuntimeError) or type(error).__module__.startswith("jeepney"):
        return str(error) or type(error).__name__
    return "no address of the form unix:path=PATH"


def _refusal(reply: Message, place: str = "") -> CallProblem:
    """The problem that an error message stands for; `place`: of which host or container, if not of this one."""
    name = str(reply.header.fields.get(HeaderFields.error_name, ""))
    said = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
    kind = name.removeprefix(_STANDARD) if name.startswith(_STANDARD) else ""
    from_bus = reply.header.fields.get(HeaderFields.sender) == "org.freedesktop.DBus"
    start = "start it with 'systemctl start mountnsd'" + (f" on {place}" if place else f", or {_ANOTHER_BUS}")
    if kind.startswith(_NOT_THERE):
        said = f"mountnsd is not running, and the bus cannot start it ({said.rstrip('.')}): {start}."
    elif kind in ("NoReply", "Disconnected"):
        said = (
            f"mountnsd went away before it answered; 'systemctl status mountnsd' may say why. Then {start}."
        )
    elif kind == "AccessDenied" and from_bus:
        said = f"The bus does not let this through to mountnsd; is its bus policy installed? ({said})"
    elif kind == "InteractiveAuthorizationRequired":
        said += " Try it without --no-ask-password, or as root."
    return CallProblem(name, said or "mountnsd refused without saying why; its log may say more.")
