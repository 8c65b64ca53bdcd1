# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ten thousand namespaces are held: told of, in part destroyed, and found again by another daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client import MANAGER, PATH
from support.contract import path_of

from load import held as held_module
from load.held import MANY, Held, holding
from load.report import held_lines

MOST_EACH = 8 * 1024  # bytes of the daemon's memory for one namespace
FRACTION = 20  # one of so many is destroyed


@pytest.fixture(scope="module")
def held(directory: Path, figures: list[str]) -> Iterator[Held]:
    """A daemon that holds them, with the cost of each operation at few and at many."""
    with holding(directory) as held:
        held_module.story(held)
        yield held
    figures += held_lines(held.figures)


def test_all_are_told_of(held: Held) -> None:
    """By List, GetManagedObjects, Introspect and Count; and each is what the kernel says."""
    pinned = held.pinned()
    assert set(pinned) == set(held.names)
    assert len(pinned) == MANY
    assert held.listed() == pinned
    assert held.children() == {path_of(name) for name in pinned}
    objects = held.objects()
    assert all(path_of(name).encode() + b"\0" in objects for name in held.names[::100])
    assert held.client.get(PATH, MANAGER, "Count") == MANY


def test_memory(held: Held) -> None:
    """The daemon's own memory for each stays small."""
    rss = held.figures.rss
    assert 1024 * (rss[MANY] - rss[0]) / MANY < MOST_EACH


@pytest.mark.parametrize("what", ["Ping", "GetNamespace", "GetAll", "GetMounts", "Open", "Enter of true"])
def test_what_is_about_one_costs_no_more_for_the_others(held: Held, what: str) -> None:
    """However many there are, by far."""
    few, many = held.figures.few[what], held.figures.many[what]
    assert many < 20 * few + 100


def test_some_are_destroyed(held: Held) -> None:
    """Those and no others."""
    held.drop(held.names[::FRACTION])
    assert len(held.names) == MANY - MANY // FRACTION
    assert held.listed() == held.pinned()
    assert set(held.pinned()) == set(held.names)


def test_a_daemon_that_was_killed_leaves_all_to_the_next(held: Held) -> None:
    """Every one with all that is said of it, to the last byte."""
    objects = held.objects()
    held.kill_and_start()
    assert held.objects() == objects
    assert held.listed() == held.pinned()
    assert held.client.get(PATH, MANAGER, "Count") == len(held.names)
    assert held.names
    assert "A fault in" not in held.daemon.log()
