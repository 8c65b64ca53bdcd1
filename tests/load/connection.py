# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to a bus for an event loop, so that one process can be a hundred callers of several users."""

import array
import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable
from typing import Any

from jeepney import HeaderFields, Message, MessageType
from jeepney.fds import FileDescriptor
from jeepney.low_level import Endianness, Header, Parser
from support.client import BUS_NAME, BUS_PATH, NAME, DBusError
from support.identity import Peer

_MOST_FDS = 16 * 4
_PAUSE = 0.002  # seconds, before a socket that is full is tried again


class Connection:
    """A connection of some user.  `connect` says hello.

    Arguments: address, uid: see `identity.Peer`; on_signal, on_call: get what comes in besides answers.
    """

    def __init__(
        self,
        address: str,
        uid: int = 0,
        on_signal: Callable[[Message], None] = lambda _message: None,
        on_call: Callable[[Message], None] = lambda _message: None,
    ) -> None:
        self.uid = uid
        self.unique_name = ""
        self._peer = Peer(address, uid)
        self.pid = self._peer.pid
        self._sock = self._peer.sock
        self._sock.setblocking(False)
        self._parser = Parser()
        self._serials = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._on_signal = on_signal
        self._on_call = on_call
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._readable)

    async def connect(self) -> None:
        """Say hello."""
        (self.unique_name,) = await self.bus_call("Hello")

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *args: Any,
        timeout: float = 60.0,  # noqa: ASYNC109 - part of what a call is
        destination: str = NAME,
    ) -> tuple[Any, ...]:
        """Call a method and wait for its answer.

        Arguments: args: the body, jeepney's way; timeout: seconds.
        Raises: DBusError; TimeoutError, which no bus that works lets happen; ConnectionError.
        """
        fields = {
            HeaderFields.path: path,
            HeaderFields.interface: interface,
            HeaderFields.member: member,
            HeaderFields.destination: destination,
        }
        if signature:
            fields[HeaderFields.signature] = signature
        header = Header(Endianness.little, MessageType.method_call, 0, 1, -1, -1, fields)
        serial = next(self._serials)
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._pending[serial] = answer
        try:
            await self.send(Message(header, args), serial)
            message = await asyncio.wait_for(answer, timeout)
        finally:
            self._pending.pop(serial, None)
        body = tuple(message.body)
        if message.header.message_type is MessageType.error:
            text = body[0] if body and isinstance(body[0], str) else ""
            raise DBusError(message.header.fields.get(HeaderFields.error_name, ""), text)
        return body

    async def bus_call(self, member: str, signature: str = "", *args: Any) -> tuple[Any, ...]:
        """Call a method of the bus itself."""
        return await self.call(BUS_PATH, BUS_NAME, member, signature, *args, destination=BUS_NAME)

    async def send(self, message: Message, serial: int | None = None) -> None:
        """Send a message; descriptors in its body are sent along.  Raises ConnectionError."""
        fds = array.array("i")
        data = memoryview(message.serialise(serial=serial or next(self._serials), fds=fds))
        async with self._sending:
            while data:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
                try:
                    sent = self._sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    await asyncio.sleep(_PAUSE)
                    continue
                data, fds = data[sent:], array.array("i")

    def _readable(self) -> None:
        try:
            wanted = self._parser.bytes_desired()
            data, ancillary, _, _ = self._sock.recvmsg(wanted, socket.CMSG_SPACE(_MOST_FDS))
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._end()
            return
        self._parser.add_data(data, fds=FileDescriptor.from_ancdata(ancillary))
        while (message := self._parser.get_next_message()) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        match message.header.message_type:
            case MessageType.method_return | MessageType.error:
                waiting = self._pending.get(message.header.fields.get(HeaderFields.reply_serial))
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case MessageType.method_call:
                self._on_call(message)
            case _:
                self._on_signal(message)

    def _end(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the bus hung up"))

    def close(self) -> None:
        """Leave the bus, and end the process that the bus took the caller for."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
        with contextlib.suppress(OSError):
            self._peer.close()
