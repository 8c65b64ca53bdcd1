# SPDX-License-Identifier: LGPL-2.1-or-later
"""An error as bytes is what the D-Bus library would have made of it."""

from hypothesis import given, settings
from hypothesis import strategies as st
from jeepney import HeaderFields, MessageType
from jeepney.low_level import Parser

from mountnsd import refusal

NUMBERS = st.integers(1, (1 << 32) - 1)
NAMES = st.from_regex(r"[a-z]{1,9}\.[A-Za-z]{1,60}", fullmatch=True)


@settings(deadline=None)
@given(NUMBERS, NUMBERS, st.from_regex(r":1\.[0-9]{1,9}", fullmatch=True), NAMES, st.text(max_size=300))
def test_it_is_read_as_it_was_meant(serial: int, answers: int, caller: str, name: str, text: str) -> None:
    (message,) = Parser().feed(refusal.marshal(serial, answers, caller, name, text))
    fields = message.header.fields
    assert message.header.message_type is MessageType.error
    assert message.header.serial == serial
    assert fields == {
        HeaderFields.reply_serial: answers,
        HeaderFields.error_name: name,
        HeaderFields.destination: caller,
        HeaderFields.signature: "s",
    }
    assert message.body == (text.replace("\0", "?"),)


def test_what_is_no_unicode_becomes_a_question_mark() -> None:
    (message,) = Parser().feed(refusal.marshal(1, 2, ":1.1", "a.b", "x\ud800y"))
    assert message.body == ("x?y",)
