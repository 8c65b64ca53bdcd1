# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages as mountnsctl takes them in: what anybody may have sent is passed over, what follows is not."""

import os
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_method_call, new_method_return
from jeepney.fds import FileDescriptor
from support.raw import (
    ERROR,
    METHOD_CALL,
    METHOD_RETURN,
    PATH,
    REPLY_SERIAL,
    SIGNAL,
    SIGNATURE,
    UNIX_FDS,
    Field,
    frame,
    marshal,
)

from mountnsd.ctl.parser import Parser

CALL = new_method_call(DBusAddress("/", "a.b", "a.b"), "Call")
CALL.header.serial = 1
ANSWER = bytes(new_method_return(CALL, "s", ("yes",)).serialise(serial=7))


def _parsed(*parts: bytes, fds: tuple[FileDescriptor, ...] = ()) -> list[Message]:
    parser = Parser()
    found = []
    for part in parts:
        parser.add_data(part, fds=fds if part is parts[0] else ())
        found += list(iter(parser.get_next_message, None))
    return found


def test_a_message_is_what_the_library_makes_of_it() -> None:
    body: tuple[Any, ...] = ("text", 7, {"a": ("as", ["b"])}, [(True, 2**40)])
    message = new_method_return(CALL, "sua{sv}a(bt)", body)
    (found,) = _parsed(message.serialise(serial=9))
    assert found.body == body
    assert found.header.fields == message.header.fields
    assert (found.header.serial, found.header.message_type) == (9, MessageType.method_return)


def test_byte_by_byte() -> None:
    two = ANSWER + ANSWER
    assert [found.body for found in _parsed(*(bytes([byte]) for byte in two))] == [("yes",), ("yes",)]


def test_it_goes_on_where_another_parser_is() -> None:
    earlier = Parser()
    earlier.add_data(ANSWER[:20])
    assert earlier.get_next_message() is None
    later = Parser.after(earlier)
    later.add_data(ANSWER[20:])
    found = later.get_next_message()
    assert found is not None
    assert found.body == ("yes",)


@pytest.mark.parametrize(
    "field",
    [Field(200, "s", "new"), Field(0, "u", 1), Field(10, "a{sv}", {"deep": ("v", ("u", 1))})],
    ids=lambda field: field.signature,
)
def test_an_unknown_field_is_passed_over(field: Field) -> None:
    data = frame(
        [Field(PATH, "o", "/x"), field, Field(SIGNATURE, "g", "s")], marshal("s", "body"), kind=SIGNAL
    )
    first, second = _parsed(data + ANSWER)
    assert first.header.fields == {HeaderFields.path: "/x", HeaderFields.signature: "s"}
    assert first.body == ("body",)
    assert second.body == ("yes",)


@pytest.mark.parametrize(
    "data",
    [
        frame([Field(PATH, "o", "/")], kind=77),
        frame([Field(9, "Z", b"\0" * 8)], kind=SIGNAL),
        frame([Field(200, "v", b"\1v\0" * 2000 + b"\1y\0\0")], kind=SIGNAL),
        frame([Field(SIGNATURE, "g", "ss")], marshal("s", "short"), kind=METHOD_RETURN),
        frame([Field(SIGNATURE, "g", "s")], b"\4\0\0\0\xff\xff\xff\xff\0", kind=METHOD_RETURN),
        frame([Field(SIGNATURE, "g", "((")], b"", kind=ERROR),
        frame([Field(PATH, "o", "/")], kind=METHOD_CALL),
        frame([Field(UNIX_FDS, "u", 3)], kind=SIGNAL),
    ],
    ids=["kind", "type", "nesting", "body", "text", "signature", "call", "descriptors"],
)
def test_what_cannot_be_read_is_passed_over(data: bytes) -> None:
    assert _parsed(data + ANSWER)[-1].body == ("yes",)


def test_the_body_of_a_signal_waits_until_somebody_looks() -> None:
    """This one is a list without end, to the library."""
    data = frame([Field(SIGNATURE, "g", "v")], b"\3a()\0\0\0\0\1\0\0\0\0\0\0\0\0", kind=SIGNAL)
    signal, answer = _parsed(data + ANSWER)
    assert signal.header.fields == {HeaderFields.signature: "v"}
    assert answer.body == ("yes",)


def test_only_an_answer_answers() -> None:
    """Jeepney takes the first message with the serial of a call for the answer to it."""
    data = frame([Field(REPLY_SERIAL, "u", 1), Field(SIGNATURE, "g", "s")], marshal("s", "no"), kind=SIGNAL)
    forged, real = _parsed(data + frame([Field(REPLY_SERIAL, "u", 1)], kind=METHOD_RETURN, serial=2))
    assert HeaderFields.reply_serial not in forged.header.fields
    assert real.header.fields[HeaderFields.reply_serial] == 1


def test_descriptors_of_what_cannot_be_read_are_closed() -> None:
    reading, writing = os.pipe()
    sent = FileDescriptor(writing)
    assert _parsed(frame([Field(PATH, "o", "/"), Field(UNIX_FDS, "u", 2)], kind=SIGNAL), fds=(sent,)) == []
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_what_is_not_d_bus() -> None:
    with pytest.raises(KeyError):
        _parsed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
