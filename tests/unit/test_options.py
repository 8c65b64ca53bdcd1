# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options: every one is taken as it should be, and whatever is wrong is named."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd import options
from mountnsd.errors import InvalidArgs
from mountnsd.namespace import Propagation

Check = Callable[[options.Options], object]
KNOWN: dict[Check, dict[str, tuple[str, Any]]] = {
    options.create: {
        "propagation": ("s", "private"),
        "description": ("s", "a build"),
        "labels": ("a{ss}", {"team": "build"}),
        "from": ("s", "other"),
        "if_not_exists": ("b", True),
    },
    options.enter: {
        "user": ("s", "alice"),
        "env": ("a{ss}", {"A": "b"}),
        "cwd": ("s", "/"),
        "tty": ("b", True),
        "kill_on_disconnect": ("b", True),
        "new_privileges": ("b", True),
    },
    options.destroy: {"kill": ("b", True), "lazy": ("b", True)},
    options.unmount: {"lazy": ("b", True)},
}
EVERY = [pytest.param(check, key, id=f"{check.__name__}-{key}") for check in KNOWN for key in KNOWN[check]]
CHECKS = [pytest.param(check, id=check.__name__) for check in KNOWN]


def refusal(check: Check, given: options.Options) -> str:
    """The message with which options are refused: one line."""
    with pytest.raises(InvalidArgs) as error:
        check(given)
    assert error.value.message.isprintable()
    return error.value.message


class TestEvery:
    """Each method's options."""

    @pytest.mark.parametrize("check", CHECKS)
    def test_none_is_fine(self, check: Check) -> None:
        assert check({}) == type(check({}))()

    @pytest.mark.parametrize(("check", "key"), EVERY)
    def test_each_is_taken(self, check: Check, key: str) -> None:
        chosen = check({key: KNOWN[check][key]})
        attribute = {"from": "source"}.get(key, key)
        assert getattr(chosen, attribute) == KNOWN[check][key][1]
        assert chosen != check({})

    @pytest.mark.parametrize(("check", "key"), EVERY)
    def test_the_wrong_type_is_named(self, check: Check, key: str) -> None:
        wanted, value = KNOWN[check][key]
        for signature in ("u", "as", "v", "", "a{sv}", "b" if wanted == "s" else "s"):
            message = refusal(check, {key: (signature, value)})
            assert key in message
            assert f"type {wanted}" in message

    @pytest.mark.parametrize("check", CHECKS)
    @settings(max_examples=50, deadline=None, database=None)
    @given(st.text(max_size=200))
    def test_an_unknown_key_is_named_with_those_there_are(self, check: Check, key: str) -> None:
        if key in KNOWN[check]:
            return
        message = refusal(check, {key: ("s", "x")})
        assert all(known in message for known in KNOWN[check])
        assert ascii(key)[1:-1][:20] in message or ascii(key)[1:20] in message


class TestCreate:
    """What a namespace is made with."""

    @pytest.mark.parametrize("value", list(Propagation))
    def test_propagations(self, value: Propagation) -> None:
        assert options.create({"propagation": ("s", value.value)}).propagation is value

    def test_slave_unless_told(self) -> None:
        assert options.create({}).propagation is Propagation.SLAVE

    @pytest.mark.parametrize("value", ["", "Slave", "rslave", "unbindable", "slave\n"])
    def test_other_propagations_are_none(self, value: str) -> None:
        message = refusal(options.create, {"propagation": ("s", value)})
        assert all(word in message for word in ("propagation", "slave", "private", "shared", "unchanged"))

    @pytest.mark.parametrize("value", ["", "../x", "a" * 65, "a b"])
    def test_from_is_a_name(self, value: str) -> None:
        assert "no name" in refusal(options.create, {"from": ("s", value)})

    def test_a_description_counts_in_bytes(self) -> None:
        assert options.create({"description": ("s", "é" * 128)}).description == "é" * 128
        for text in ("é" * 129, "a" * 257):
            assert "description" in refusal(options.create, {"description": ("s", text)})

    @pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\x7f", "\x9b", "\u2028", "\t"])
    def test_no_control_character_in_a_text(self, text: str) -> None:
        assert "description" in refusal(options.create, {"description": ("s", text)})
        assert "labels" in refusal(options.create, {"labels": ("a{ss}", {"k": text})})
        assert "user" in refusal(options.enter, {"user": ("s", text)})

    def test_as_many_labels_as_there_may_be(self) -> None:
        labels = {f"k{number}": "v" * 256 for number in range(32)}
        assert options.create({"labels": ("a{ss}", labels)}).labels == labels
        assert "32" in refusal(options.create, {"labels": ("a{ss}", {**labels, "one.more": ""})})

    @pytest.mark.parametrize("key", ["a", "a.b/c-d_e", "0", "k" * 64, "org.example/team"])
    def test_keys_of_labels(self, key: str) -> None:
        assert options.create({"labels": ("a{ss}", {key: ""})}).labels == {key: ""}

    @pytest.mark.parametrize("key", ["", "-a", "a-", ".", "a b", "k" * 65, "é", "a\n", "a=b"])
    def test_keys_that_are_none(self, key: str) -> None:
        assert "key for a label" in refusal(options.create, {"labels": ("a{ss}", {key: ""})})

    def test_a_label_that_is_too_long(self) -> None:
        assert "team" in refusal(options.create, {"labels": ("a{ss}", {"team": "v" * 257})})


def test_destroy_is_either_hard_or_lazy() -> None:
    assert "either" in refusal(options.destroy, {"kill": ("b", True), "lazy": ("b", True)})
    assert options.destroy({"kill": ("b", False), "lazy": ("b", True)}).lazy
