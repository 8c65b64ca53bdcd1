# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers and strings of a body are read as they were written, and what is none is refused."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jeepney.low_level import Endianness, parse_signature

from mountnsd.reading import Reading


def reader(body: bytes, little: bool = True) -> Reading:
    """One that is at the beginning of a body."""
    made = Reading()
    made.begin(body, little)
    made.offset = 0
    return made


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, (1 << 32) - 1), st.text(max_size=9).map(lambda t: t.replace("\0", ""))),
        max_size=9,
    )
)
def test_what_was_written_is_read(values: list[tuple[int, str]]) -> None:
    flat = tuple(item for pair in values for item in pair)
    for order in Endianness:
        body = (
            parse_signature(list("(" + "us" * len(values) + ")")).serialise(flat, 0, order) if values else b""
        )
        made = reader(bytes(body), order is Endianness.little)
        assert [(made.read_uint32(), made.read_string()) for _ in values] == values


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\1\0\0",
        b"\1\0\0\0a",
        b"\1\0\0\0aa",
        b"\3\0\0\0a\0b\0",
        b"\1\0\0\0\xff\0",
        b"\xff\xff\xff\xffa\0",
    ],
)
def test_what_is_none(body: bytes) -> None:
    with pytest.raises((ValueError, struct.error, IndexError)):
        reader(body).read_string()
