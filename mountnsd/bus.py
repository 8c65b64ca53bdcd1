# SPDX-License-Identifier: LGPL-2.1-or-later
"""The transport: method calls in, replies and signals out, and calls of our own.

dbus-next is the D-Bus library, for reading bodies, and is imported nowhere else,
so that its maintained fork dbus-fast can take its place here.  Its own
connection, dispatch and service classes are not used: SECURITY.md lists what
any unprivileged caller could do with them.

Out of scope: which methods there are (service.py) and who may call them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any, Self

from mountnsd import errors, frames, packages, refusal, stream, writing
from mountnsd.descriptors import Descriptors
from mountnsd.frames import Frame
from mountnsd.reading import Reading
from mountnsd.ready import Ready, fill

# Without its connections, services and proxies, and so without GLib and an XML parser.
packages.open_up("dbus_next")
import dbus_next.errors  # noqa: E402, F401 - the first: the others import each other
from dbus_next._private.unmarshaller import Unmarshaller  # noqa: E402
from dbus_next.signature import SignatureTree, Variant  # noqa: E402

__all__ = ["Bus", "Call", "CallError", "Disconnected", "Variant"]

log = logging.getLogger(__name__)

DRIVER = "org.freedesktop.DBus"
DRIVER_PATH = "/org/freedesktop/DBus"
MAX_ANSWER = 16 << 20  # bytes; dbus-daemon ends the connection above 32 MiB
_DO_NOT_QUEUE = 0x4
_PRIMARY_OWNER = 1
_TIMEOUT = 25.0  # seconds that a call of ours may take, as libdbus has it
# What a variant from a caller may hold: more than any option takes, so that a wrong type can be named,
# and nothing that nests.
_SIMPLE = frozenset("ybnqiuxtdsog") | {"as", "a{ss}"}

# Whoever leaves the bus.  One rule for all whom we watch: a bus has a limit for the rules of a connection.
_LEAVING = f"type='signal',sender='{DRIVER}',member='NameOwnerChanged',arg2=''"


class Disconnected(Exception):
    """The connection to the bus has ended."""


class CallError(Exception):
    """An error reply to a call of ours."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


@dataclass(slots=True)
class Call:
    """A method call that came in.  Its descriptors are closed when its handler ends."""

    frame: Frame
    body: list[Any] = field(default_factory=list)

    @property
    def sender(self) -> str:
        return self.frame.text(frames.SENDER)

    @property
    def path(self) -> str:
        return self.frame.text(frames.PATH)

    @property
    def interface(self) -> str:
        return self.frame.text(frames.INTERFACE)

    @property
    def member(self) -> str:
        return self.frame.text(frames.MEMBER)

    @property
    def signature(self) -> str:
        return self.frame.text(frames.SIGNATURE)

    @property
    def interactive(self) -> bool:
        """Whether the caller can wait for a question to be answered by a person."""
        return bool(self.frame.flags & frames.ALLOW_INTERACTIVE_AUTHORIZATION)

    @property
    def fds(self) -> Descriptors:
        return self.frame.fds

    def decode(self) -> None:
        """Decode the body into `body`.  Raises InvalidArgs."""
        if self.frame.oversized:
            raise errors.LimitsExceeded(f"A call may have {frames.MAX_MESSAGE} bytes in all; send less.")
        if self.fds.truncated:
            raise errors.LimitsExceeded(
                "There is no room for the file descriptors that you sent; try again later."
            )
        self.body = _decode(self.frame, trusted=False)


class _Reader(Reading, Unmarshaller):  # type: ignore[misc]
    """dbus-next's unmarshaller, made fit for a body that nobody has checked (dbus-broker does not).

    Types come from a bounded cache; strings have no NUL inside; from a caller no variant nests.
    """

    def __init__(self, frame: Frame, trusted: bool) -> None:
        super().__init__(BytesIO())
        self.begin(frame.body, frame.little_endian)
        self.endian = 0x6C if frame.little_endian else 0x42
        self.trusted = trusted

    def read_boolean(self, _: object = None) -> bool:
        value = self.read_uint32()
        if value > 1:
            raise ValueError("a boolean is 0 or 1")
        return bool(value)

    def read_variant(self, _: object = None) -> Variant:
        signature = self.read_signature()
        if not self.trusted and signature not in _SIMPLE:
            raise ValueError("the type of a variant is not one that any method takes")
        tree = _tree(signature)
        if len(tree.types) != 1:
            raise ValueError("a variant holds one value")
        return Variant(tree, self.read_argument(tree.types[0]))


@lru_cache(maxsize=256)
def _tree(signature: str) -> SignatureTree:
    return SignatureTree(signature)


def marshal(signature: str, *values: Any) -> bytes:
    """Values as they would stand at the beginning of a body."""
    return bytes(writing.body(signature, values))


def _decode(frame: Frame, trusted: bool) -> list[Any]:
    """The arguments in a message's body.

    Raises: InvalidArgs for what is not well-formed, whatever dbus-next says to it.
    """
    try:
        reader = _Reader(frame, trusted)
        body = [reader.read_argument(kind) for kind in _tree(frame.text(frames.SIGNATURE)).types]
    except Exception as error:  # noqa: BLE001 - hostile input meets an unmaintained parser
        detail = f" ({error})" if type(error) is ValueError else ""
        raise errors.InvalidArgs(f"The arguments are not well-formed{detail}.") from None
    if reader.offset != len(frame.body):
        raise errors.InvalidArgs("The arguments are longer or shorter than their signature.")
    return body


class Bus:
    """A connection to a bus.

    `handler` is called with every method call and owns it: it answers by `reply` or `error`, and closes the
    call's descriptors.  `left` is called with the name of every connection that leaves the bus.  `ended` is done,
    with the reason, when the connection has ended.
    """

    def __init__(self) -> None:
        self.unique_name = ""
        self.id = ""  # of the bus: unique names mean somebody on this one only
        self.handler: Callable[[Call], None] = lambda call: call.fds.close()
        self.left: Callable[[str], None] = lambda _: None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stream: stream.Stream
        self._serial = 0
        self._pending: dict[int, asyncio.Future[Frame]] = {}
        self._watched: dict[str, set[asyncio.Future[None]]] = {}
        self._releasing = False

    @classmethod
    async def connect(cls, address: str) -> Self:
        """Connect, authenticate and say hello.  Raises stream.ConnectError, CallError, Disconnected."""
        bus = cls()
        bus._stream = stream.Stream(stream.connect(address), bus._received, bus._end)
        bus._stream.start()
        (bus.unique_name,) = await bus.call_driver("Hello")
        (bus.id,) = await bus.call_driver("GetId")
        await bus.call_driver("AddMatch", "s", _LEAVING)
        return bus

    def close(self, reason: str = "closed") -> None:
        """End the connection."""
        self._stream.close(reason)

    async def drain(self) -> None:
        """Wait until what was sent is written, at most two seconds."""
        await self._stream.drain(2.0)

    def flush(self) -> None:
        """Write what was sent now, as far as the bus takes it, and not in the next turn of the event loop."""
        self._stream.flush()

    async def request_name(self, name: str) -> bool:
        """Own a well-known name, without waiting in its queue.  Returns whether we own it."""
        (answer,) = await self.call_driver("RequestName", "su", name, _DO_NOT_QUEUE)
        return bool(answer == _PRIMARY_OWNER)

    async def release_name(self, name: str) -> None:
        """Give a well-known name up; the connection stays, to answer what came before."""
        self._releasing = True
        await self.call_driver("ReleaseName", "s", name)

    # Calls of our own

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        timeout: float | None = _TIMEOUT,  # noqa: ASYNC109 - part of what a call is
        fds: list[int] | None = None,
    ) -> list[Any]:
        """Call a method and wait for its reply.

        Arguments: timeout: seconds, or None to wait until the reply, the connection's end or cancellation; fds:
            what the handles in the body point at, sent and then closed, whatever happens.
        Returns: the reply's arguments.
        Raises: CallError (with NoReply after the timeout), Disconnected.
        """
        serial = self._next_serial()
        reply: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        if self.ended.done():
            stream.close_all(fds or [])
            raise Disconnected(self.ended.result())
        self._pending[serial] = reply
        try:
            to: dict[str, Any] = {"destination": destination, "path": path, "interface": interface}
            self._send(frames.METHOD_CALL, signature, body, fds, serial=serial, member=member, **to)
            async with asyncio.timeout(timeout):
                frame = await reply
        except TimeoutError:
            raise CallError("org.freedesktop.DBus.Error.NoReply", f"{destination} did not answer") from None
        finally:
            self._pending.pop(serial, None)
        return _result(frame)

    async def call_driver(self, member: str, signature: str = "", *body: Any) -> list[Any]:
        """Call a method of the bus itself.  Raises CallError, Disconnected."""
        return await self.call(DRIVER, DRIVER_PATH, DRIVER, member, signature, body)

    async def watch(self, unique_name: str) -> asyncio.Future[None]:
        """A future that is done when the connection `unique_name` has left the bus.  See `unwatch`.

        Raises: CallError, Disconnected.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watchers = self._watched.setdefault(unique_name, set())
        watchers.add(future)
        try:
            (here,) = await self.call_driver("NameHasOwner", "s", unique_name)
        except BaseException:
            self.unwatch(unique_name, future)
            raise
        if not here and not future.done():
            future.set_result(None)
        return future

    def unwatch(self, unique_name: str, future: asyncio.Future[None]) -> None:
        """Watch no longer."""
        future.cancel()
        watchers = self._watched.get(unique_name)
        if watchers is None:
            return
        watchers.discard(future)
        if not watchers:
            del self._watched[unique_name]

    # Answers and signals

    async def reply(
        self, call: Call, signature: str, body: list[Any] | Ready, fds: list[int] | None = None
    ) -> int:
        """Answer a call.  Waits while too much waits to be written.

        Arguments: body: a `Ready` is read after the waiting, in the moment in which the answer leaves; fds: sent with
            the answer and closed, also where the caller wants no answer.
        Returns: the bytes of the answer, 0 where the caller wants none.
        """
        if call.frame.flags & frames.NO_REPLY_EXPECTED:
            stream.close_all(fds or [])
            return 0
        try:
            await self._stream.room()
        except BaseException:
            stream.close_all(fds or [])
            raise
        failed = errors.Failed("The file descriptor of the answer could not be sent; try again.")
        instead = self._error(call, failed) if fds else b""
        size = self._send(
            frames.METHOD_RETURN,
            signature,
            body,
            fds,
            instead,
            MAX_ANSWER,
            flags=frames.NO_REPLY_EXPECTED,
            destination=call.sender,
            reply_serial=call.frame.serial,
        )
        if not size:
            refused = self._error(
                call, errors.LimitsExceeded("The answer is too large; ask for less at once.")
            )
            self._stream.send(refused)
            size = len(refused)
        return size

    def error(self, call: Call, error: errors.Error) -> None:
        """Answer a call with an error."""
        if not call.frame.flags & frames.NO_REPLY_EXPECTED:
            self._stream.send(self._error(call, error))

    def _error(self, call: Call, error: errors.Error) -> bytes:
        serial = self._next_serial()
        return refusal.marshal(serial, call.frame.serial, call.sender, error.dbus_name, error.message)

    def signal(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str,
        *body: Any,
        destination: str | None = None,
    ) -> None:
        """Send a signal, to everybody or to one connection."""
        to: dict[str, Any] = {"path": path, "interface": interface, "destination": destination or ""}
        self._send(frames.SIGNAL, signature, body, flags=frames.NO_REPLY_EXPECTED, member=member, **to)

    def send_only(
        self, destination: str, path: str, interface: str, member: str, signature: str, *body: Any
    ) -> None:
        """Call a method without wanting an answer."""
        to: dict[str, Any] = {"destination": destination, "path": path, "interface": interface}
        self._send(frames.METHOD_CALL, signature, body, flags=frames.NO_REPLY_EXPECTED, member=member, **to)

    def _send(
        self,
        kind: int,
        signature: str,
        body: Sequence[Any] | Ready,
        fds: list[int] | None = None,
        instead: bytes = b"",
        most: int = 0,
        serial: int = 0,
        **fields: Any,
    ) -> int:
        """Returns: the bytes of it; 0 where it has more than `most`, and nothing was sent."""
        values = [{}] if isinstance(body, Ready) else body
        number = len(fds or ())
        try:
            serial = serial or self._next_serial()
            data = fill(writing.message(kind, serial, signature, values, fds=number, **fields), body)
            if most and len(data) > most:
                stream.close_all(fds or [])
                return 0
        except BaseException:
            stream.close_all(fds or [])
            raise
        self._stream.send(data, fds, instead)
        return len(data)

    def _next_serial(self) -> int:
        self._serial = self._serial % 0xFFFFFFFF + 1  # never 0
        return self._serial

    # What comes in

    def _received(self, frame: Frame) -> None:
        if frame.kind == frames.METHOD_CALL:
            self.handler(Call(frame))
            return
        frame.fds.close()  # none of our calls asks for descriptors, and no signal that we want has any
        if frame.kind in (frames.METHOD_RETURN, frames.ERROR):
            reply = self._pending.pop(frame.number(frames.REPLY_SERIAL), None)
            if reply is not None and not reply.done():
                reply.set_result(frame)
        elif frame.kind == frames.SIGNAL and frame.text(frames.SENDER) == DRIVER:
            self._driver_says(frame)

    def _driver_says(self, frame: Frame) -> None:
        lost = frame.text(frames.MEMBER) == "NameLost" and frame.text(frames.SIGNATURE) == "s"
        if lost and not self._releasing:
            self._stream.close("the bus took the name away")
        if frame.text(frames.MEMBER) != "NameOwnerChanged" or frame.text(frames.SIGNATURE) != "sss":
            return
        name, _, owner = _decode(frame, trusted=True)
        if not owner:
            self.left(name)
            for future in self._watched.get(name, ()):
                if not future.done():
                    future.set_result(None)

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(Disconnected(reason))
        self._pending.clear()


def _result(frame: Frame) -> list[Any]:
    """The arguments of a reply to a call of ours.  Raises CallError."""
    if frame.oversized:
        raise CallError("org.freedesktop.DBus.Error.LimitsExceeded", "the answer is too large")
    try:
        body = _decode(frame, trusted=True)
    except errors.InvalidArgs as error:
        raise CallError("org.freedesktop.DBus.Error.InconsistentMessage", error.message) from None
    if frame.kind == frames.ERROR:
        text = body[0] if body and isinstance(body[0], str) else ""
        raise CallError(frame.text(frames.ERROR_NAME), text)
    return body
