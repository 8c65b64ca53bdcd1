# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each event has an id, fields, an explanation in the message catalogue and a line in the manual, which all agree."""

import logging
import re
import uuid
from pathlib import Path

import pytest

from mountnsd.events import Event, tell

TREE = Path(__file__).resolve().parents[2]
CATALOG = (TREE / "systemd" / "mountnsd.catalog").read_text()
MANUAL = (TREE / "docs" / "mountnsd.8.md").read_text()
ALWAYS = {"MOUNTNS_NAME", "MOUNTNS_INODE"}


def entries() -> dict[str, str]:
    """The entries of the catalogue by id."""
    _, *parts = re.split(r"^-- ([0-9a-f]{32})$", CATALOG, flags=re.MULTILINE)
    assert len(set(parts[::2])) == len(parts[::2])
    return dict(zip(parts[::2], parts[1::2], strict=True))


def rows() -> dict[str, tuple[str, set[str]]]:
    """The events of the manual: name and fields by id."""
    found = re.findall(
        r"^(\w+), `MESSAGE_ID=([0-9a-f]{32})`\n: {3}(.*(?:\n {4}.*)*)$", MANUAL, flags=re.MULTILINE
    )
    return {number: (name, set(re.findall(r"`([A-Z_]+\*?)=`", fields))) for name, number, fields in found}


def test_the_ids_are_random_ones_and_each_is_used_once() -> None:
    for event in Event:
        assert uuid.UUID(event.value).version == 4
    assert len({event.value for event in Event}) == len(Event)


def test_the_catalogue_explains_all_and_nothing_else() -> None:
    assert entries().keys() == {event.value for event in Event}


def test_the_manual_lists_all_and_nothing_else() -> None:
    assert {number: name for number, (name, _) in rows().items()} == {
        event.value: event.name.lower() for event in Event
    }


@pytest.mark.parametrize("event", Event)
class TestEntry:
    """An entry of the catalogue."""

    def test_has_a_subject_and_says_whose_it_is(self, event: Event) -> None:
        header, _, text = entries()[event].strip().partition("\n\n")
        fields = dict(line.split(": ", 1) for line in header.splitlines())
        assert fields.keys() == {"Subject", "Defined-By", "Documentation"}
        assert fields["Defined-By"] == "mountnsd"
        assert text
        assert all(len(line) <= 80 for line in text.splitlines())

    def test_names_fields_that_the_manual_has(self, event: Event) -> None:
        named = set(re.findall(r"@([A-Z_]+)@", entries()[event]))
        known = rows()[event][1]
        if "CALLER_*" in known:
            known |= {"CALLER_UID"}
        assert named <= known | ALWAYS
        assert "MOUNTNS_NAME" in named


def test_an_event_is_a_record_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell(Event.CREATED, "build", 7, "Namespace %s is created", "build", mountns_owner=5)
    tell(Event.LOST, "build", 7, "Namespace %s is lost", "build")
    first, second = caplog.records
    told = {key: value for key, value in vars(first).items() if key.startswith(("mountns_", "message_id"))}
    assert told == {
        "message_id": Event.CREATED.value,
        "mountns_name": "build",
        "mountns_inode": 7,
        "mountns_owner": 5,
    }
    assert first.getMessage() == "Namespace build is created"
    assert (first.levelname, second.levelname) == ("INFO", "WARNING")
