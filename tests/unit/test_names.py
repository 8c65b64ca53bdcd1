# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names and the object paths made of them: nothing else is a name, and no two names share a path."""

import ctypes
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mountnsd import names
from mountnsd.errors import InvalidArgs

ALPHABET = string.ascii_letters + string.digits + "_.-"
FIRST = string.ascii_letters + string.digits + "_"

valid = st.builds(str.__add__, st.sampled_from(FIRST), st.text(ALPHABET, max_size=63)).filter(
    lambda name: ".." not in name
)
anything = st.one_of(st.text(max_size=80), st.text(ALPHABET + "/\n é", max_size=80), valid)
quick = settings(max_examples=300, deadline=None, database=None)


def by_the_book(name: str) -> bool:
    """The contract's sentence, word by word."""
    return (
        1 <= len(name) <= 64
        and all(character in ALPHABET for character in name)
        and name[0] not in ".-"
        and ".." not in name
    )


def encode_as_systemd(prefix: str, name: str) -> str:
    """sd_bus_path_encode(3) itself."""
    systemd = ctypes.CDLL("libsystemd.so.0")
    libc = ctypes.CDLL(None)
    libc.free.argtypes = (ctypes.c_void_p,)
    path = ctypes.c_void_p()
    result = systemd.sd_bus_path_encode(prefix.encode(), name.encode(), ctypes.byref(path))
    assert result >= 0
    try:
        return (ctypes.string_at(path) if path.value else b"").decode()
    finally:
        libc.free(path)


class TestValid:
    """What a name is."""

    @quick
    @given(anything)
    def test_exactly_what_the_contract_says(self, name: str) -> None:
        assert names.is_valid(name) == by_the_book(name)

    @quick
    @given(anything)
    def test_what_is_no_name_is_refused_in_one_safe_line(self, name: str) -> None:
        if by_the_book(name):
            assert names.check(name) == name
            return
        with pytest.raises(InvalidArgs) as refusal:
            names.check(name)
        assert refusal.value.message.isprintable()
        assert refusal.value.message.isascii() or "…" in refusal.value.message
        assert "A-Z a-z 0-9 _ . -" in refusal.value.message

    @pytest.mark.parametrize("name", ["a\n", "a\0", "ａ", "a/b", "", ".a", "-a", "a..b", "a" * 65, "٣"])
    def test_names_that_are_none(self, name: str) -> None:
        assert not names.is_valid(name)

    @pytest.mark.parametrize("name", ["a", "_", "0", "a.b-c_d", "a" * 64, "a.", "a-", "9.9"])
    def test_names_that_are_some(self, name: str) -> None:
        assert names.is_valid(name)


class TestPaths:
    """Each name has one path and each path one name."""

    @quick
    @given(valid)
    def test_there_and_back(self, name: str) -> None:
        path = names.to_path(name)
        assert path.startswith("/org/mountnsd1/namespace/")
        assert names.from_path(path) == name

    @quick
    @given(valid, valid)
    def test_no_two_names_share_a_path(self, one: str, other: str) -> None:
        assert (names.to_path(one) == names.to_path(other)) == (one == other)

    @quick
    @given(st.one_of(st.text(max_size=40), st.text("abcdef0123456789_AX", max_size=40)))
    def test_no_name_has_two_paths(self, label: str) -> None:
        path = "/org/mountnsd1/namespace/" + label
        name = names.from_path(path)
        assert name is None or names.to_path(name) == path

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.one_of(valid, st.text(max_size=20).filter(lambda text: "\0" not in text)))
    def test_as_systemd_encodes(self, name: str) -> None:
        assert names.to_path(name) == encode_as_systemd("/org/mountnsd1/namespace", name)

    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/org/mountnsd1",
            "/org/mountnsd1/namespace",
            "/org/mountnsd1/namespace/",
            "/org/mountnsd1/namespace/a/b",
            "/org/mountnsd1/namespace/a_2E",  # hexadecimal is small
            "/org/mountnsd1/namespace/_61",  # a needs no escape
            "/org/mountnsd1/namespace/_2ea",  # no name begins so
            "/org/mountnsd1/namespace/a\n",
            "/org/mountnsd1/namespace/" + "a" * 65,
            "/org/mountnsd1/namespace/" + "_41" * 10_000,
        ],
    )
    def test_other_paths_are_no_namespaces(self, path: str) -> None:
        assert names.from_path(path) is None


class TestShown:
    """A caller's text in a message can do no harm and is not long."""

    @quick
    @given(st.text(max_size=300))
    def test_safe_and_short(self, text: str) -> None:
        shown = names.shown(text)
        assert shown.removesuffix("…").isascii()
        assert shown.isprintable()
        assert len(shown) <= 80 * 10 + 3

    @quick
    @given(st.one_of(st.text(max_size=300), st.text(min_size=79, max_size=82)))
    @example("x" * 80)
    @example("x" * 81)
    def test_what_is_cut_says_so(self, text: str) -> None:
        escaped = names.escaped(text)
        assert escaped.endswith("…") == (len(text) > 80)
        assert escaped.removesuffix("…").isascii()
        assert escaped.isprintable()
