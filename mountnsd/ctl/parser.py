# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages out of what the bus sends, of which anybody on it may have written some.

jeepney gives up on a message with a header field that it does not know, though the specification has such fields
passed over; and it takes whatever has a reply serial for the reply, a signal too.  So anybody could have ended each
command, or answered in the daemon's place.  Headers are checked by both buses; bodies by dbus-daemon alone.

Source: D-Bus specification, "Message Format", "Header Fields".
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any, Self

from jeepney import HeaderFields, Message, MessageFlag, MessageType
from jeepney import Parser as JeepneyParser
from jeepney.low_level import Endianness, Header, calc_msg_size, parse_signature

_START = 16  # bytes that say how long a message is
_ENDIANNESS = {b"l": Endianness.little, b"B": Endianness.big}
_FIELDS = parse_signature(list("a(yv)"))
# The specification's types of header fields; a value of another type is none.
_TYPES = {
    HeaderFields.path: "o",
    HeaderFields.interface: "s",
    HeaderFields.member: "s",
    HeaderFields.error_name: "s",
    HeaderFields.reply_serial: "u",
    HeaderFields.destination: "s",
    HeaderFields.sender: "s",
    HeaderFields.signature: "g",
    HeaderFields.unix_fds: "u",
}
_ANSWERS = (MessageType.method_return, MessageType.error)


class Parser(JeepneyParser):  # type: ignore[misc]
    """Takes the place of jeepney's in a connection.  A message that cannot be read is passed over."""

    fds: list[Any]
    next_msg_size: int | None

    @classmethod
    def after(cls, earlier: JeepneyParser) -> Self:
        """A parser that goes on where another one is."""
        parser = cls()
        parser.buf, parser.fds, parser.next_msg_size = earlier.buf, earlier.fds, earlier.next_msg_size
        return parser

    def get_next_message(self) -> Message | None:
        """The next message that can be read, None if there is none (yet).

        Raises: KeyError where the stream is not D-Bus.
        """
        while self.buf.bytes_buffered >= _START:
            if self.next_msg_size is None:
                self.next_msg_size = calc_msg_size(self.buf.peek(_START))
            if self.buf.bytes_buffered < self.next_msg_size:
                break
            data = self.buf.read(self.next_msg_size)
            self.next_msg_size = None
            # No read goes beyond a message (bytes_desired), so that all descriptors are of this one.
            fds, self.fds = self.fds, []
            with suppress(Exception):  # whatever the library says to it
                return _message(data, fds)
            for descriptor in fds:
                descriptor.close()
        return None


def _message(data: bytes, fds: list[Any]) -> Message:
    """One whole message.  Raises: anything, where it is malformed."""
    order = _ENDIANNESS[data[:1]]
    _, kind, flags, version = data[:4]
    message_type = MessageType(kind)
    given, offset = _FIELDS.parse_data(data, 12, order)
    fields = {}
    for code, (signature, value) in given:
        if code in _TYPES and signature == _TYPES[code]:
            fields[HeaderFields(code)] = value
    if message_type not in _ANSWERS:
        fields.pop(HeaderFields.reply_serial, None)
    count = fields.get(HeaderFields.unix_fds, 0)
    if count != len(fds):
        raise ValueError("more or fewer descriptors came than were announced")
    length, serial = struct.unpack_from(order.struct_code() + "II", data, 4)
    header = Header(order, message_type, MessageFlag(flags), version, length, serial, fields)
    if message_type in _ANSWERS:
        return Message(header, _body(header, data, offset, fds))
    if message_type is not MessageType.signal:
        raise ValueError("we serve nothing")
    for descriptor in fds:  # no signal that we want has any
        descriptor.close()
    return _Signal(header, data, offset)


class _Signal(Message):  # type: ignore[misc]
    """A signal, whose body is decoded when it is looked at: after the sender, that is, if he is one to listen to."""

    def __init__(self, header: Header, data: bytes, offset: int) -> None:
        self.header = header
        self._data = data
        self._offset = offset

    @property
    def body(self) -> tuple[Any, ...]:
        return _body(self.header, self._data, self._offset, [])


def _body(header: Header, data: bytes, offset: int, fds: list[Any]) -> tuple[Any, ...]:
    """The body of a message, which begins with the padding behind the header."""
    if HeaderFields.signature not in header.fields:
        return ()
    kind = parse_signature(list(f"({header.fields[HeaderFields.signature]})"))
    body: tuple[Any, ...] = kind.parse_data(data, offset, header.endianness, fds=fds)[0]
    return body
