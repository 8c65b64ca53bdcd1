# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection that sends whatever it is told to: for hostile frames.

A marshaller of its own, so that a header can say what no library would let it.
"""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jeepney.low_level import Endianness, parse_signature

from .client import BUS_NAME, BUS_PATH, NAME, TIMEOUT
from .closing import Closing
from .identity import Ourselves, Peer

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL = 1, 2, 3, 4, 5
DESTINATION, SENDER, SIGNATURE, UNIX_FDS = 6, 7, 8, 9


@dataclass(frozen=True)
class Field:
    """A header field with any code, any signature and any value, already marshalled if it is bytes."""

    code: int
    signature: str
    value: Any


@dataclass
class Frame:
    """A message that came in.

    Attributes: kind, flags, serial: of the header; fields: code to value; body: undecoded; fds: descriptors,
        which the receiver closes (`close_fds`).
    """

    kind: int
    flags: int
    serial: int
    fields: dict[int, Any]
    body: bytes
    fds: list[int] = field(default_factory=list)

    @property
    def error_name(self) -> str:
        """The error's name, empty for what is no error."""
        return str(self.fields.get(ERROR_NAME, ""))

    @property
    def reply_to(self) -> int:
        """The serial that this answers, 0 if none."""
        return int(self.fields.get(REPLY_SERIAL, 0))

    def decode(self) -> tuple[Any, ...]:
        """The body, by the signature that the header gives.  Descriptors are given as their numbers."""
        signature = self.fields.get(SIGNATURE, "")
        kind = parse_signature(list(f"({signature})"))
        return tuple(kind.parse_data(self.body, 0, Endianness.little, fds=self.fds)[0])

    def close_fds(self) -> None:
        """Close the descriptors that came along."""
        for descriptor in self.fds:
            os.close(descriptor)
        self.fds.clear()


def _pad(data: bytes, alignment: int) -> bytes:
    return data + b"\0" * (-len(data) % alignment)


_HEADER_FIELDS = parse_signature(list("a(yv)"))
_ALIGNMENT = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}


def marshal(signature: str, *values: Any) -> bytes:
    """Marshal values by a valid signature; an `h` is given as the index of the descriptor."""
    plain = signature.replace("h", "u")
    return bytes(parse_signature(list(f"({plain})")).serialise(values, 0, Endianness.little))


def header_fields(fields: Sequence[Field]) -> bytes:
    """Marshal an array of header fields, in the order given."""
    data = b""
    for item in fields:
        name = item.signature.encode("latin-1")
        data = _pad(data, 8) + bytes([item.code, len(name)]) + name + b"\0"
        data = _pad(data, _ALIGNMENT.get(item.signature[:1], 4))
        data += item.value if isinstance(item.value, bytes) else marshal(item.signature, item.value)
    return data


def frame(
    fields: Sequence[Field],
    body: bytes = b"",
    *,
    kind: int = METHOD_CALL,
    flags: int = 0,
    serial: int = 1,
    version: int = 1,
    endian: bytes = b"l",
    body_length: int | None = None,
    fields_length: int | None = None,
) -> bytes:
    """Build a message, little endian whatever it claims.

    Arguments: fields: as they shall stand; body: as it shall stand; body_length, fields_length: what to claim
        instead of the truth.
    """
    array = header_fields(fields)
    claimed = len(body) if body_length is None else body_length
    start = endian + struct.pack("<BBBII", kind, flags, version, claimed, serial)
    start += struct.pack("<I", len(array) if fields_length is None else fields_length)
    return _pad(start + array, 8) + body


def call_fields(
    path: str,
    interface: str | None,
    member: str,
    signature: str = "",
    *,
    destination: str = NAME,
    n_fds: int = 0,
    extra: Sequence[Field] = (),
) -> list[Field]:
    """The header fields of a method call, and any others."""
    fields = [Field(PATH, "o", path), Field(MEMBER, "s", member), Field(DESTINATION, "s", destination)]
    if interface is not None:
        fields.append(Field(INTERFACE, "s", interface))
    if signature:
        fields.append(Field(SIGNATURE, "g", signature))
    if n_fds:
        fields.append(Field(UNIX_FDS, "u", n_fds))
    return [*fields, *extra]


class RawConnection(Closing):
    """An authenticated connection that has said Hello.

    Arguments: address, uid: see `identity.Peer`; hello: whether to say it; peer: whose connection it is, instead of
        that of a new process.

    Attributes: unique_name; pid: the process that the bus sees.
    """

    def __init__(
        self,
        address: str,
        uid: int = 0,
        *,
        hello: bool = True,
        negotiate_fds: bool = True,
        peer: Peer | Ourselves | None = None,
    ) -> None:
        self._peer = Peer(address, uid, negotiate_fds=negotiate_fds) if peer is None else peer
        self.pid = self._peer.pid
        self.sock = self._peer.sock
        self.unique_name = ""
        self._buffer = b""
        self._fds: list[int] = []
        self._serial = 0
        if hello:
            try:
                serial = self.call(BUS_PATH, BUS_NAME, "Hello", destination=BUS_NAME)
                self.unique_name = str(self.reply(serial).decode()[0])
                self.receive()  # NameAcquired
            except BaseException:
                self.close()
                raise

    def next_serial(self) -> int:
        """A serial that this connection has not used yet."""
        self._serial += 1
        return self._serial

    def send(self, data: bytes, fds: Sequence[int] = (), timeout: float = TIMEOUT) -> None:
        """Send bytes as they are, with descriptors on the first.

        Raises: ConnectionError if the bus has hung up; TimeoutError if it takes nothing for so long.
        """
        self.sock.settimeout(timeout)
        try:
            sent = socket.send_fds(self.sock, [data], list(fds)) if fds else self.sock.send(data)
            if sent < len(data):
                self.sock.sendall(data[sent:])
        finally:
            self.sock.settimeout(None)

    def call(
        self,
        path: str,
        interface: str | None,
        member: str,
        signature: str = "",
        body: bytes = b"",
        *,
        destination: str = NAME,
        flags: int = 0,
        fds: Sequence[int] = (),
        extra: Sequence[Field] = (),
        overrides: Mapping[str, Any] | None = None,
    ) -> int:
        """Send a method call with a body already marshalled; returns its serial.

        Arguments: extra: more header fields; overrides: arguments of `frame`.
        """
        serial = self.next_serial()
        fields = call_fields(
            path, interface, member, signature, destination=destination, n_fds=len(fds), extra=extra
        )
        self.send(frame(fields, body, flags=flags, **{"serial": serial, **(overrides or {})}), fds)
        return serial

    def receive(self, timeout: float = TIMEOUT) -> Frame:
        """The next message.

        Raises: TimeoutError; ConnectionError if the bus hangs up.
        """
        deadline = time.monotonic() + timeout
        while True:
            if len(self._buffer) >= 16:
                body = struct.unpack_from("<I", self._buffer, 4)[0]
                array = struct.unpack_from("<I", self._buffer, 12)[0]
                start = 16 + array + (-(16 + array) % 8)
                if len(self._buffer) >= start + body:
                    return self._take(start, body)
                wanted = start + body - len(self._buffer)
            else:
                wanted = 16 - len(self._buffer)
            if not select.select([self.sock], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise TimeoutError(f"no message within {timeout} s")
            data, fds, _, _ = socket.recv_fds(self.sock, wanted, 253)
            self._fds += fds
            if not data:
                raise ConnectionError("the bus hung up")
            self._buffer += data

    def _take(self, start: int, length: int) -> Frame:
        whole, self._buffer = self._buffer[: start + length], self._buffer[start + length :]
        serial = struct.unpack_from("<I", whole, 8)[0]
        array, _ = _HEADER_FIELDS.parse_data(whole, 12, Endianness.little)
        fields = {int(code): value for code, (_, value) in array}
        count = int(fields.get(UNIX_FDS, 0))
        fds, self._fds = self._fds[:count], self._fds[count:]
        return Frame(whole[1], whole[2], serial, fields, whole[start:], fds)

    def reply(self, serial: int, timeout: float = TIMEOUT) -> Frame:
        """The answer to a call; what else comes is dropped.  Raises: as `receive`."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.receive(max(deadline - time.monotonic(), 0))
            if message.reply_to == serial:
                return message
            message.close_fds()

    def hung_up(self, timeout: float = TIMEOUT) -> bool:
        """Whether the bus ends this connection within some time; what it sends is dropped."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.receive(max(deadline - time.monotonic(), 0)).close_fds()
            except TimeoutError:
                return False
            except ConnectionError:
                return True

    def close(self) -> None:
        """Hang up; descriptors that nobody took are closed."""
        for descriptor in self._fds:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._fds.clear()
        self._peer.close()
