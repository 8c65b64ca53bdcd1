# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is written is what the D-Bus library would have written, to the last byte."""

from collections.abc import Callable
from typing import Any

import pytest
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd import frames, writing

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12)
BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "h": st.integers(0, 15),
    "s": TEXT,
    "o": st.sampled_from(["/", "/a", "/org/mountnsd1/namespace/_31"]),
    "g": st.sampled_from(["", "s", "a{sv}"]),
}
Typed = tuple[str, Any]


def _pair(kind: str) -> st.SearchStrategy[Typed]:
    return st.tuples(st.just(kind), BASIC[kind])


def _list(one: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def of(first: Typed) -> st.SearchStrategy[Typed]:
        # Elements of one type: the same value again and again does for the padding between them.
        return st.integers(0, 4).map(lambda count: ("a" + first[0], [first[1]] * count))

    return one.filter(lambda typed: typed[0] != "y").flatmap(of)


def _dictionary(one: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def of(first: Typed) -> st.SearchStrategy[Typed]:
        keys = st.lists(TEXT, max_size=4, unique=True)
        return keys.map(lambda found: (f"a{{s{first[0]}}}", dict.fromkeys(found, first[1])))

    return one.flatmap(of)


def _struct(one: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    members = st.lists(one, min_size=1, max_size=4)
    return members.map(lambda m: (f"({''.join(kind for kind, _ in m)})", [value for _, value in m]))


def _variant(one: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return one.map(lambda typed: ("v", Variant(*typed)))


def _nested(one: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    makers: list[Callable[[st.SearchStrategy[Typed]], st.SearchStrategy[Typed]]] = [
        _list,
        _dictionary,
        _struct,
        _variant,
    ]
    return st.one_of([maker(one) for maker in makers])


VALUES = st.lists(
    st.recursive(st.sampled_from(sorted(BASIC)).flatmap(_pair), _nested, max_leaves=8), max_size=5
)


@settings(deadline=None, max_examples=300)
@given(VALUES, st.sampled_from(["", ":1.7", ":1.12345"]), st.integers(1, (1 << 32) - 1), st.integers(0, 3))
def test_it_is_the_same_to_the_last_byte(values: list[Typed], caller: str, serial: int, fds: int) -> None:
    """Whatever the types and the lengths, and so the padding."""
    signature, body = "".join(kind for kind, _ in values), [value for _, value in values]
    signal = {"path": "/org/mountnsd1", "interface": "org.mountnsd1.Manager", "member": "NamespaceNew"}
    for kind, fields in (
        (MessageType.SIGNAL, signal | ({"destination": caller} if caller else {})),
        (MessageType.METHOD_RETURN, {"reply_serial": serial, "destination": caller or ":1.1"}),
    ):
        theirs = Message(
            message_type=kind,
            flags=MessageFlag.NO_REPLY_EXPECTED,
            serial=serial,
            signature=signature,
            body=body,
            unix_fds=[0] * fds,
            **fields,
        )
        ours = writing.message(
            kind.value,
            serial,
            signature,
            body,
            flags=frames.NO_REPLY_EXPECTED,
            fds=fds,
            **fields,
        )
        assert ours == theirs._marshall(negotiate_unix_fd=True)


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("s", [5]),
        ("u", ["x"]),
        ("u", [-1]),
        ("y", [256]),
        ("s", []),
        ("s", ["a", "b"]),
        ("(ss)", [["a"]]),
        ("a{sv}", [{"a": "b"}]),
        ("s", ["\ud800"]),
        ("z", [1]),
    ],
)
def test_what_is_of_another_type_is_not_written(signature: str, values: list[Any]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - a fault of ours, whichever
        writing.body(signature, values)
