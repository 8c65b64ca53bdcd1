# SPDX-License-Identifier: LGPL-2.1-or-later
"""D-Bus messages out of a stream of bytes and descriptors, with hard limits.

This part is ours and not the D-Bus library's because a root daemon reads here
what anybody sent: a message is measured before it is read, only its header is
looked at, and a body is decoded (bus.py) only once the header has shown that
it is wanted.  Nothing here touches a socket.

Source: D-Bus specification, "Message Protocol" and "UNIX file descriptors".
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mountnsd.descriptors import Descriptors

# A call's whole size, and a header's: far above any real call, far below what could hurt.
MAX_MESSAGE = 64 * 1024
_SPEC_MAX_MESSAGE = 1 << 27
_FIXED = 16
_MAX_DEPTH = 128  # the buses allow less

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY_EXPECTED = 0x1
ALLOW_INTERACTIVE_AUTHORIZATION = 0x4

PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SENDER, SIGNATURE, UNIX_FDS = range(1, 10)
_FIELD_TYPES = {
    PATH: "o",
    INTERFACE: "s",
    MEMBER: "s",
    ERROR_NAME: "s",
    REPLY_SERIAL: "u",
    DESTINATION: "s",
    SENDER: "s",
    SIGNATURE: "g",
    UNIX_FDS: "u",
}
_SIZES = {"y": 1, "n": 2, "q": 2, "b": 4, "i": 4, "u": 4, "h": 4, "x": 8, "t": 8, "d": 8}
_ALIGNMENTS = {**_SIZES, "s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}


class ProtocolError(Exception):
    """The stream is not D-Bus, so that nothing after this point can be believed: disconnect."""


class MalformedMessage(Exception):
    """One message is not well-formed; the next one can still be read."""


@dataclass(slots=True)
class Frame:
    """One message: its header, decoded, and its body, not decoded."""

    kind: int
    flags: int
    serial: int
    little_endian: bool
    fields: dict[int, str | int]
    body: bytes
    oversized: bool = False  # the body was larger than allowed and is not here
    fds: Descriptors = field(default_factory=lambda: Descriptors([]))

    def text(self, code: int) -> str:
        """A textual header field, '' where it is absent."""
        value = self.fields.get(code, "")
        return value if isinstance(value, str) else ""

    def number(self, code: int) -> int:
        """A numeric header field, 0 where it is absent."""
        value = self.fields.get(code, 0)
        return value if isinstance(value, int) else 0

    def forget(self) -> None:
        """Drop what can be large, and is not needed to answer."""
        kept = (SENDER, INTERFACE, MEMBER)
        self.fields = {code: value for code, value in self.fields.items() if code in kept}
        self.body = b""


@dataclass(slots=True)
class _Batch:
    """Descriptors that arrived with the bytes from offset `start` of the stream to `end`."""

    start: int
    end: int
    fds: Descriptors


class Framer:
    """Cuts the stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._base = 0  # offset in the stream of the buffer's first byte
        self._skip = 0  # bytes still to be thrown away
        self._batches: deque[_Batch] = deque()

    def close(self) -> None:
        """Close the descriptors of messages that never became whole."""
        while self._batches:
            self._batches.popleft().fds.close()

    def feed(self, data: bytes, fds: list[int], truncated: bool = False) -> Iterator[Frame]:
        """Take what one recvmsg(2) gave, and yield the messages that are whole now.

        The kernel ends a read behind the message that descriptors came with, so that each batch of them belongs
        to the last message that begins in its read: one batch a message, in order.

        Arguments: data: the bytes; fds: the descriptors that came with them; truncated: some were lost
            (MSG_CTRUNC: no descriptor was free).
        Raises: ProtocolError.
        """
        if fds or truncated:
            start = self._base + len(self._buffer)
            self._batches.append(_Batch(start, start + len(data), Descriptors(fds, truncated)))
        self._buffer += data
        while True:
            if self._skip:
                self._drop(min(self._skip, len(self._buffer)), skipped=True)
                if self._skip:
                    return
            try:
                frame = self._next()
            except MalformedMessage:
                continue  # neither bus lets such a header through
            if frame is not None:
                yield frame
            elif not self._skip:
                return

    def _drop(self, count: int, skipped: bool = False) -> None:
        del self._buffer[:count]
        self._base += count
        if skipped:
            self._skip -= count

    def _next(self) -> Frame | None:
        """The next whole message; None where more bytes are wanted, or some are to be skipped first.

        Raises: ProtocolError; MalformedMessage, with that message gone.
        """
        if len(self._buffer) < _FIXED:
            return None
        order = {0x6C: "<", 0x42: ">"}.get(self._buffer[0])
        if order is None or self._buffer[3] != 1:
            raise ProtocolError("neither endianness nor protocol version are D-Bus's")
        body_length, serial, fields_length = struct.unpack_from(order + "III", self._buffer, 4)
        header_length = _FIXED + fields_length + -fields_length % 8
        if header_length + body_length > _SPEC_MAX_MESSAGE:
            raise ProtocolError("a message is longer than the specification allows")
        end = self._base + header_length + body_length
        if header_length > MAX_MESSAGE:
            self._discard_batch(self._base, end)
            self._skip = header_length + body_length
            return None
        oversized = header_length + body_length > MAX_MESSAGE
        whole = header_length if oversized else header_length + body_length
        if len(self._buffer) < whole:
            return None
        kind, flags = self._buffer[1], self._buffer[2]
        header = bytes(self._buffer[_FIXED : _FIXED + fields_length])
        body = b"" if oversized else bytes(self._buffer[header_length:whole])
        start = self._base
        self._drop(whole)
        if oversized:
            self._skip = body_length
        try:
            fields = parse_fields(header, order)
            if not serial:
                raise MalformedMessage("the serial is 0, to which nobody could answer")
        except MalformedMessage:
            self._discard_batch(start, end)
            raise
        frame = Frame(kind, flags, serial, order == "<", fields, body, oversized)
        count = frame.number(UNIX_FDS)
        if count:
            frame.fds = self._take_batch(count)
        return frame

    def _take_batch(self, count: int) -> Descriptors:
        if not self._batches:
            raise ProtocolError("descriptors were announced and did not come")
        fds = self._batches.popleft().fds
        if len(fds) != count and not fds.truncated:
            fds.close()
            raise ProtocolError("more or fewer descriptors came than were announced")
        return fds

    def _discard_batch(self, start: int, end: int) -> None:
        """Close the descriptors, if any, of the message from `start` to `end`, whose header is not known."""
        # Those of a later message that begins in the same read stay: only what a read ends in can own its batch.
        if self._batches and self._batches[0].start <= start and end >= self._batches[0].end:
            self._batches.popleft().fds.close()


def parse_fields(data: bytes, order: str) -> dict[int, str | int]:
    """Decode the header fields.  Unknown ones are passed over, as the specification asks.

    Arguments: data: the array's content (it begins on a multiple of 8); order: '<' or '>'.
    Raises: MalformedMessage.
    """
    fields: dict[int, str | int] = {}
    offset = 0
    try:
        while offset < len(data):
            offset += -offset % 8
            code = data[offset]
            signature, offset = _signature(data, offset + 1)
            expected = _FIELD_TYPES.get(code)
            if expected is None:
                offset = _skip(data, offset, signature, order)
            elif signature != expected:
                raise MalformedMessage(f"header field {code} is of type {signature!r}")
            elif expected == "u":
                offset += -offset % 4
                fields[code] = struct.unpack_from(order + "I", data, offset)[0]
                offset += 4
            elif expected == "g":
                fields[code], offset = _signature(data, offset)
            else:
                fields[code], offset = _string(data, offset, order)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise MalformedMessage("the header ends in the middle, or is not text") from error
    return fields


def _string(data: bytes, offset: int, order: str) -> tuple[str, int]:
    offset += -offset % 4
    (length,) = struct.unpack_from(order + "I", data, offset)
    offset += 4
    if data[offset + length] != 0:
        raise MalformedMessage("a string does not end with NUL")
    return data[offset : offset + length].decode(), offset + length + 1


def _signature(data: bytes, offset: int) -> tuple[str, int]:
    length = data[offset]
    if data[offset + 1 + length] != 0:
        raise MalformedMessage("a signature does not end with NUL")
    return data[offset + 1 : offset + 1 + length].decode("ascii"), offset + length + 2


def _skip(data: bytes, offset: int, signature: str, order: str, depth: int = 0) -> int:
    """The offset behind the values of `signature` that begin at `offset`."""
    if depth > _MAX_DEPTH:
        raise MalformedMessage("nested too deeply")
    position = 0
    while position < len(signature):
        token = signature[position]
        end = type_end(signature, position)
        if token not in _ALIGNMENTS:
            raise MalformedMessage("not a type")
        offset += -offset % _ALIGNMENTS[token]
        if token in _SIZES:
            offset += _SIZES[token]
        elif token in "so":
            _, offset = _string(data, offset, order)
        elif token == "g":
            _, offset = _signature(data, offset)
        elif token == "v":
            inner, offset = _signature(data, offset)
            offset = _skip(data, offset, inner, order, depth + 1)
        elif token == "a":
            (length,) = struct.unpack_from(order + "I", data, offset)
            offset += 4
            offset += -offset % _ALIGNMENTS.get(signature[position + 1], 1) + length
        else:
            offset = _skip(data, offset, signature[position + 1 : end - 1], order, depth + 1)
        if offset > len(data):
            raise MalformedMessage("the header ends in the middle")
        position = end
    return offset


def type_end(signature: str, position: int) -> int:
    """The position behind the complete type that begins at `position`."""
    while signature[position] == "a":
        position += 1
    if signature[position] not in "({":
        return position + 1
    open_brackets = 0
    while True:
        open_brackets += (signature[position] in "({") - (signature[position] in ")}")
        position += 1
        if not open_brackets:
            return position
