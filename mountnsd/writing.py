# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages as bytes: each type of a signature has its writer, which is made once.

The D-Bus library parses the signature and looks at every value of a message
before it marshals it, and then does the same with the header: the two signals
and the answer of a creation took it 110 microseconds, and take 13 here.

Out of scope: whether names and paths are well-formed, which are ours; error
replies (refusal.py).

Source: D-Bus specification, "Marshaling (Wire Format)", "Message Protocol".
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from mountnsd import frames

_Writer = Callable[[bytearray, Any], None]
_START = struct.Struct("<cBBBIII")
_REPLY_SERIAL = struct.Struct("<BBcBI")
_LENGTH = struct.Struct("<I")
_FORMATS = {
    "y": "B",
    "b": "I",
    "n": "h",
    "q": "H",
    "i": "i",
    "u": "I",
    "h": "I",
    "x": "q",
    "t": "Q",
    "d": "d",
}
_EIGHT = frozenset("xtd({")


def body(signature: str, values: Sequence[Any]) -> bytearray:
    """Values as they stand in a body.  Variants have `signature` and `value`; dictionaries are such.

    Raises: ValueError, TypeError, AttributeError, KeyError, struct.error for what the signature is not of.
    """
    out = bytearray()
    for writer, value in zip(_writers(signature), values, strict=True):
        writer(out, value)
    return out


def message(
    kind: int,
    serial: int,
    signature: str,
    values: Sequence[Any],
    *,
    flags: int = 0,
    path: str = "",
    interface: str = "",
    member: str = "",
    reply_serial: int = 0,
    destination: str = "",
    fds: int = 0,
) -> bytearray:
    """A whole message, little endian.  Arguments: kind: as in frames.  Raises as `body`."""
    content = body(signature, values)
    fields = _fields(signature, path, interface, member, destination, fds)
    if reply_serial:  # the first of them, so that it leaves those behind it where they are
        fields = _REPLY_SERIAL.pack(frames.REPLY_SERIAL, 1, b"u", 0, reply_serial) + fields
    out = bytearray(_START.pack(b"l", kind, flags, 1, len(content), serial, len(fields)))
    out += fields
    out += bytes(-len(out) % 8)
    return out + content


@lru_cache(maxsize=64)
def _fields(signature: str, path: str, interface: str, member: str, destination: str, fds: int) -> bytes:
    """The fields of a header, as they stand on a multiple of eight: most messages are like one before."""
    out = bytearray()
    for code, of_type, value in (
        (frames.PATH, "o", path),
        (frames.INTERFACE, "s", interface),
        (frames.MEMBER, "s", member),
        (frames.DESTINATION, "s", destination),
        (frames.SIGNATURE, "g", signature),
        (frames.UNIX_FDS, "u", fds),
    ):
        if value:
            out += bytes(-len(out) % 8)
            out += bytes((code, 1, ord(of_type), 0))
            _writer(of_type)(out, value)
    return bytes(out)


@lru_cache(maxsize=256)
def _writers(signature: str) -> tuple[_Writer, ...]:
    """A writer for each complete type of a signature."""
    found = []
    position = 0
    while position < len(signature):
        end = frames.type_end(signature, position)
        found.append(_writer(signature[position:end]))
        position = end
    return tuple(found)


@lru_cache(maxsize=256)
def _writer(kind: str) -> _Writer:
    """The writer of one complete type.  Raises KeyError for what is none."""
    token = kind[0]
    if token == "a":
        array = _dictionary if kind[1] == "{" else _array
        members = _writers(kind[2:-1]) if kind[1] == "{" else _writers(kind[1:])
        return partial(array, 8 if kind[1] in _EIGHT else 4, members)
    if token == "(":
        return partial(_struct, _writers(kind[1:-1]))
    if token in "so":
        return _string
    if token == "g":
        return _signature
    if token == "v":
        return _variant
    number = struct.Struct("<" + _FORMATS[token])
    return partial(_number, number.size, number.pack)


def _number(size: int, pack: Callable[[Any], bytes], out: bytearray, value: Any) -> None:
    out += bytes(-len(out) % size)
    out += pack(value)


def _string(out: bytearray, value: str) -> None:
    data = value.encode()
    out += bytes(-len(out) % 4)
    out += _LENGTH.pack(len(data))
    out += data
    out.append(0)


def _signature(out: bytearray, value: str) -> None:
    data = value.encode("ascii")
    out.append(len(data))
    out += data
    out.append(0)


def _variant(out: bytearray, value: Any) -> None:
    _signature(out, value.signature)
    _writer(value.signature)(out, value.value)


def _struct(members: tuple[_Writer, ...], out: bytearray, value: Sequence[Any]) -> None:
    out += bytes(-len(out) % 8)
    for writer, member in zip(members, value, strict=True):
        writer(out, member)


def _array(alignment: int, members: tuple[_Writer, ...], out: bytearray, value: Sequence[Any]) -> None:
    start = _begin(alignment, out)
    (writer,) = members
    for element in value:
        writer(out, element)
    _LENGTH.pack_into(out, start, len(out) - _content(alignment, start))


def _dictionary(alignment: int, members: tuple[_Writer, ...], out: bytearray, value: dict[Any, Any]) -> None:
    start = _begin(alignment, out)
    write_key, write_value = members
    for key, element in value.items():
        out += bytes(-len(out) % 8)
        write_key(out, key)
        write_value(out, element)
    _LENGTH.pack_into(out, start, len(out) - _content(alignment, start))


def _begin(alignment: int, out: bytearray) -> int:
    """Room for the length of an array, and the padding before its first element, which the length leaves out."""
    out += bytes(-len(out) % 4)
    start = len(out)
    out += bytes(_content(alignment, start) - start)
    return start


def _content(alignment: int, start: int) -> int:
    """Where the elements of an array begin whose length is at `start`."""
    return start + 4 + -(start + 4) % alignment
