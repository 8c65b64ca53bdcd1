# SPDX-License-Identifier: LGPL-2.1-or-later
"""Escaping, tables and aligned lists."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountnsd.ctl import text
from mountnsd.ctl.table import Table, aligned

ANY_TEXT = st.text(st.characters())
PATHS = st.binary(max_size=40).map(os.fsdecode)


@given(st.one_of(ANY_TEXT, PATHS))
def test_what_is_shown_cannot_steer_a_terminal(value: str) -> None:
    assert text.plain(value).isprintable()
    assert text.cell(value).isprintable()
    text.cell(value).encode()


@given(st.one_of(ANY_TEXT, PATHS), st.one_of(ANY_TEXT, PATHS))
def test_two_values_never_look_the_same(one: str, other: str) -> None:
    assert (text.cell(one) == text.cell(other)) == (one == other)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain äöü 漢字", "plain äöü 漢字"),
        ("a\nb\tc\x1b[31m\x7f", r"a\x0ab\x09c\x1b[31m\x7f"),
        ("\x9b\u202e\u2028", r"\u009b\u202e\u2028"),
        (os.fsdecode(b"\xff\x9b"), r"\xff\x9b"),
        ("\U000e0001", r"\U000e0001"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_escapes(value: str, shown: str) -> None:
    assert text.cell(value) == shown


def test_messages_keep_their_backslashes() -> None:
    assert text.plain("'a\\x1b' \x1b") == "'a\\x1b' \\x1b"


def test_width() -> None:
    assert text.width("abc") == 3
    assert text.width("漢字") == 4
    assert text.width("e\u0301") == 1


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT, st.integers())), st.booleans())
def test_a_row_is_a_line(rows: list[tuple[str, str, int]], legend: bool) -> None:
    table = Table(("A", "B", "N"), "things", numbers=("N",))
    for row in rows:
        table.add(*row)
    shown = table.render(legend, False)
    lines = shown.split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    if not rows:
        assert lines == (["No things."] if legend else [])
        return
    body = lines[1:-2] if legend else lines
    assert len(body) == len(rows)
    # Numbers end where the column ends, and begin in the same column as each other's padding.
    assert len({text.width(line) for line in body}) == 1


def test_table() -> None:
    table = Table(("NAME", "SIZE", "NOTE"), "things", numbers=("SIZE",))
    table.add("a", 7, "")
    table.add("longer", 12345, "x y")
    assert table.render(True, False) == (
        "NAME    SIZE NOTE\na          7 -\nlonger 12345 x y\n\n2 things listed.\n"
    )
    assert table.render(False, False) == "a          7 -\nlonger 12345 x y\n"
    assert table.render(True, True).startswith("\x1b[4mNAME    SIZE NOTE\x1b[0m\n")


def test_empty_table() -> None:
    assert Table(("A",), "things").render(True, True) == "No things.\n"
    assert Table(("A",), "things").render(False, True) == ""


def test_a_row_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="one value a heading"):
        Table(("A",), "things").add(1, 2)


def test_aligned() -> None:
    shown = aligned("title\x1b", [("Key", ["a"]), ("Longer", ["b", "c"]), ("None", [])], False)
    assert shown == "title\\x1b\n       Key: a\n    Longer: b\n            c\n"
    assert aligned("only", [], True) == "\x1b[1monly\x1b[0m\n"


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    read, write = os.pipe()
    try:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert text.colours(slave)
        assert not text.colours(write)
        monkeypatch.setenv("NO_COLOR", "1")
        assert not text.colours(slave)
        monkeypatch.setenv("NO_COLOR", "")
        assert text.colours(slave)
        monkeypatch.setenv("TERM", "dumb")
        assert not text.colours(slave)
    finally:
        for fd in (master, slave, read, write):
            os.close(fd)
