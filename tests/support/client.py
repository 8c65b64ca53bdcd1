# SPDX-License-Identifier: LGPL-2.1-or-later
"""A D-Bus client for tests: any user, bounded waiting, descriptors both ways."""

import array
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jeepney import HeaderFields, MatchRule, Message, MessageFlag, MessageType
from jeepney.io.blocking import DBusConnection
from jeepney.low_level import Endianness, Header

from .closing import Closing
from .identity import Peer

NAME = "org.mountnsd1"
PATH = "/org/mountnsd1"
MANAGER = "org.mountnsd1.Manager"
NAMESPACE = "org.mountnsd1.Namespace"
PROPERTIES = "org.freedesktop.DBus.Properties"
BUS_NAME = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"

NO_REPLY = int(MessageFlag.no_reply_expected)
INTERACTIVE = int(MessageFlag.allow_interactive_authorization)
TIMEOUT = 10.0


class DBusError(Exception):
    """An error that came as the answer to a call.

    Attributes: name: the D-Bus error name; message: its text, empty if it has none.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


@dataclass(frozen=True)
class Signal:
    """A signal that arrived."""

    sender: str
    path: str
    interface: str
    member: str
    body: tuple[Any, ...]


class Signals(Closing):
    """The signals that match a rule, from its making on.  A context manager that ends the subscription."""

    def __init__(self, client: "Client", rule: MatchRule, text: str) -> None:
        self._client = client
        self._text = text
        self._queue: deque[Message] = deque()
        self._filter = client.connection.filter(rule, queue=self._queue)
        self._filter.__enter__()
        client.bus_call("AddMatch", "s", text)

    def wait(
        self, timeout: float = TIMEOUT, accept: Callable[[Signal], bool] = lambda _signal: True
    ) -> Signal:
        """The next signal that is accepted; others are dropped.

        Raises: TimeoutError if none comes in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            signal = self._next(deadline)
            if accept(signal):
                return signal

    def _next(self, deadline: float) -> Signal:
        remaining = max(deadline - time.monotonic(), 0.0)
        try:
            message = self._client.connection.recv_until_filtered(self._queue, timeout=remaining)
        except TimeoutError:
            raise TimeoutError(f"no signal came that matches {self._text}") from None
        fields = message.header.fields
        return Signal(
            fields.get(HeaderFields.sender, ""),
            fields.get(HeaderFields.path, ""),
            fields.get(HeaderFields.interface, ""),
            fields.get(HeaderFields.member, ""),
            tuple(message.body),
        )

    def drain(self, quiet: float = 0.2) -> list[Signal]:
        """All signals that are there, until none has come for a while."""
        found = []
        while True:
            try:
                found.append(self._next(time.monotonic() + quiet))
            except TimeoutError:
                return found

    def close(self) -> None:
        """End the subscription, unless the client has ended."""
        if not self._client.closed:
            self._filter.close()
            self._client.bus_call("RemoveMatch", "s", self._text)


class Client(Closing):
    """A client on a bus, as a user, with a process of its own.

    Arguments: address, uid and the rest: see `identity.Peer`; destination: whom `call` calls, by default the
        daemon.

    Attributes: pid: the caller's process, as the bus sees it; unique_name; connection: jeepney's.
    """

    def __init__(
        self,
        address: str,
        uid: int = 0,
        gid: int | None = None,
        groups: Sequence[int] | None = None,
        *,
        prepare: Callable[[], None] | None = None,
        destination: str = NAME,
    ) -> None:
        self._peer = Peer(address, uid, gid, groups, prepare=prepare)
        self.uid = uid
        self.pid = self._peer.pid
        self.destination = destination
        try:
            self.connection = DBusConnection(self._peer.sock, enable_fds=True)
        except BaseException:
            self._peer.close()
            raise
        self.unique_name: str = self.connection.unique_name
        self._incoming: deque[Message] = deque()
        self._answers: dict[int, Message] = {}
        self.connection.filter(_Answers(), queue=self._incoming)
        self.closed = False

    def send(
        self,
        path: str,
        interface: str | None,
        member: str,
        signature: str = "",
        *args: Any,
        fds: Sequence[int] = (),
        flags: int = 0,
        destination: str | None = None,
    ) -> int:
        """Send a method call without waiting for the answer; returns its serial, for `reply`."""
        fields = {
            HeaderFields.path: path,
            HeaderFields.member: member,
            HeaderFields.destination: destination or self.destination,
        }
        if interface is not None:
            fields[HeaderFields.interface] = interface
        if signature:
            fields[HeaderFields.signature] = signature
        header = Header(Endianness.little, MessageType.method_call, flags, 1, -1, -1, fields)
        serial: int = next(self.connection.outgoing_serial)
        descriptors = array.array("i", fds)
        data = Message(header, args).serialise(serial=serial, fds=descriptors)
        sock = self._peer.sock
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
        sent = sock.sendmsg([data], ancillary)
        if sent < len(data):
            sock.sendall(data[sent:])
        return serial

    def reply(self, serial: int, timeout: float = TIMEOUT) -> tuple[Any, ...]:
        """Wait for the answer to a call that `send` sent; answers to other calls are kept meanwhile.

        Raises: DBusError if it is one; TimeoutError; ConnectionError if the bus hangs up.
        """
        deadline = time.monotonic() + timeout
        while serial not in self._answers:
            try:
                left = max(deadline - time.monotonic(), 0)
                answer = self.connection.recv_until_filtered(self._incoming, timeout=left)
            except TimeoutError:
                raise TimeoutError(f"no answer within {timeout} s") from None
            self._answers[answer.header.fields.get(HeaderFields.reply_serial)] = answer
        message = self._answers.pop(serial)
        body = tuple(message.body)
        if message.header.message_type is MessageType.error:
            text = body[0] if body and isinstance(body[0], str) else ""
            raise DBusError(message.header.fields.get(HeaderFields.error_name, ""), text)
        return body

    def call(
        self,
        path: str,
        interface: str | None,
        member: str,
        signature: str = "",
        *args: Any,
        fds: Sequence[int] = (),
        flags: int = 0,
        timeout: float = TIMEOUT,
        destination: str | None = None,
    ) -> tuple[Any, ...]:
        """Call a method and wait for its answer.

        Arguments: args: the body, jeepney's way: a variant is (signature, value), an `h` is an int or has a
            fileno(); fds: descriptors to attach ahead of those of the body; flags: NO_REPLY (returns at
            once), INTERACTIVE.
        Returns: the body.  An `h` in it is a jeepney FileDescriptor, which closes itself when it is dropped.
        Raises: DBusError, TimeoutError, ConnectionError.
        """
        serial = self.send(
            path, interface, member, signature, *args, fds=fds, flags=flags, destination=destination
        )
        return () if flags & NO_REPLY else self.reply(serial, timeout)

    def manager(
        self, member: str, signature: str = "", *args: Any, flags: int = 0, timeout: float = TIMEOUT
    ) -> tuple[Any, ...]:
        """Call a method of org.mountnsd1.Manager."""
        return self.call(PATH, MANAGER, member, signature, *args, flags=flags, timeout=timeout)

    def get(self, path: str, interface: str, name: str) -> Any:
        """The value of a property."""
        return self.call(path, PROPERTIES, "Get", "ss", interface, name)[0][1]

    def bus_call(self, member: str, signature: str = "", *args: Any) -> tuple[Any, ...]:
        """Call a method of the bus itself."""
        return self.call(BUS_PATH, BUS_NAME, member, signature, *args, destination=BUS_NAME)

    def signals(
        self,
        interface: str | None = None,
        member: str | None = None,
        path: str | None = None,
        sender: str | None = None,
    ) -> Signals:
        """Subscribe to signals; a context manager."""
        wanted = {"interface": interface, "member": member, "path": path}
        given = {key: value for key, value in wanted.items() if value is not None}
        # What arrives bears the sender's unique name, so that only the bus can compare a well-known one.
        text = MatchRule(type="signal", **given, **({"sender": sender} if sender else {})).serialise()
        return Signals(self, MatchRule(type="signal", **given), text)

    def wait_for_name(self, name: str, present: bool = True, timeout: float = TIMEOUT) -> None:
        """Wait until a name is owned (or not).  Raises: TimeoutError."""
        with self.signals(BUS_NAME, "NameOwnerChanged", sender=BUS_NAME) as changes:
            if bool(self.bus_call("NameHasOwner", "s", name)[0]) == present:
                return
            changes.wait(timeout, lambda signal: signal.body[0] == name and bool(signal.body[2]) == present)

    def close(self) -> None:
        """Leave the bus and end the caller's process."""
        if not self.closed:
            self.closed = True
            self.connection.close()
            self._peer.close()
            self._peer._end_process()


class _Answers:
    """A rule for jeepney's filters: every answer."""

    def matches(self, message: Message) -> bool:
        """Whether the message is an answer."""
        return message.header.message_type in (MessageType.method_return, MessageType.error)
