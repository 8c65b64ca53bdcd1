# SPDX-License-Identifier: LGPL-2.1-or-later
"""An error reply as bytes: what is sent most often to who sends most.

To marshal it with the D-Bus library takes longer than to read a call, so that
whoever is refused could still keep the daemon busy.  Here it is made of parts
that are the same for all calls of one caller.

Source: D-Bus specification, "Message Protocol".
"""

import struct
from functools import lru_cache

from mountnsd import frames

_START = struct.Struct("<cBBBIIIBBHI")  # the fixed part, and the first field: REPLY_SERIAL, of type u


def marshal(serial: int, reply_serial: int, destination: str, name: str, text: str) -> bytes:
    """An error.

    Arguments: serial: its own; reply_serial: of the call that it answers; destination: who called; name: the
        error's D-Bus name; text: its message.
    """
    length, fields, rest = _same(destination, name, text)
    start = (b"l", frames.ERROR, frames.NO_REPLY_EXPECTED, 1, length, serial, fields)
    return _START.pack(*start, frames.REPLY_SERIAL, 1, ord("u"), reply_serial) + rest


@lru_cache(maxsize=64)
def _same(destination: str, name: str, text: str) -> tuple[int, int, bytes]:
    """What is the same for all calls: the length of the body, that of the fields, and all behind the first field."""
    fields = bytearray(8)  # where the first one stands
    for code, value in ((frames.ERROR_NAME, name), (frames.DESTINATION, destination)):
        fields += bytes(-len(fields) % 8) + struct.pack("<BBH", code, 1, ord("s")) + _string(value)
    fields += bytes(-len(fields) % 8) + struct.pack("<BBHB", frames.SIGNATURE, 1, ord("g"), 1) + b"s\0"
    body = _string(text)
    return len(body), len(fields), bytes(fields[8:]) + bytes(-len(fields) % 8) + body


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "replace").replace(b"\0", b"?")
    return struct.pack("<I", len(data)) + data + b"\0"
