# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who had which process entered: kept for the next daemon."""

import errno
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mountnsd.named import Namespace
from mountnsd.records import Origin, Records

ORIGIN = Origin("build", 4026532187, 1000, ":1.42", 77, 1_700_000_000_000_000, "0123abc", True)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    made = Records(str(tmp_path))
    yield made
    made.close()


def test_what_is_written_is_there_for_the_next_daemon(records: Records, tmp_path: Path) -> None:
    number = records.write(ORIGIN)
    other = records.write(replace(ORIGIN, namespace="other", kill_on_disconnect=False))
    assert number != other
    again = Records(str(tmp_path))
    assert again.all() == {
        number: ORIGIN,
        other: replace(ORIGIN, namespace="other", kill_on_disconnect=False),
    }
    again.remove(number)
    again.remove(number)
    assert again.all().keys() == {other}
    again.close()


def test_that_the_caller_was_told_is_kept(records: Records) -> None:
    number = records.write(ORIGIN)
    records.mark_told(number, ORIGIN)
    assert records.all() == {number: replace(ORIGIN, told=True)}


def test_which_namespace_it_is_in() -> None:
    """An earlier one may have had the name and the inode, on a kernel without ids."""
    found = Namespace(
        name=ORIGIN.namespace,
        holder="/run/mountnsd/ns",
        inode=ORIGIN.inode,
        id=ORIGIN.id,
        owner=0,
        created_usec=ORIGIN.created_usec,
        propagation="slave",
        description="",
        labels={},
        generation=0,
    )
    assert ORIGIN.is_in(found)
    assert ORIGIN.is_in(replace(found, created_usec=0)), "its metadata was lost"
    later = found.created_usec + 1
    for other in ({"name": "b"}, {"inode": 1}, {"id": 1}, {"created_usec": later}):
        assert not ORIGIN.is_in(replace(found, **other)), other


def test_what_a_later_version_knows_is_passed_over(records: Records, tmp_path: Path) -> None:
    path = tmp_path / "entered" / "0123456789abcdef.json"
    path.write_text(json.dumps(asdict(ORIGIN) | {"more": 1}))
    assert records.all() == {"0123456789abcdef": ORIGIN}


def test_what_cannot_be_read_now_is_kept(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live process would be nobody's for want of a descriptor."""
    number = records.write(ORIGIN)

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("mountnsd.rootfile.read", refuse)
        assert records.all() == {}
    assert records.all() == {number: ORIGIN}


def test_nobody_else_can_look(records: Records, tmp_path: Path) -> None:
    number = records.write(ORIGIN)
    assert (tmp_path / "entered").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "entered" / f"{number}.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": "../etc"},
        {"namespace": 7},
        {"inode": -1},
        {"inode": "1"},
        {"uid": 1 << 32},
        {"caller": "org.example"},
        {"bus": None},
        {"kill_on_disconnect": 1},
        {"id": -1},
        {"created_usec": "now"},
        {"told": "yes"},
    ],
)
def test_what_cannot_be_believed_is_dropped(
    records: Records, tmp_path: Path, changes: dict[str, object]
) -> None:
    path = tmp_path / "entered" / "0123456789abcdef.json"
    path.write_text(json.dumps(asdict(ORIGIN) | changes))
    assert records.all() == {}
    assert not path.exists()


def test_what_is_no_file_of_ours_is_dropped_or_left_alone(records: Records, tmp_path: Path) -> None:
    directory = tmp_path / "entered"
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(asdict(ORIGIN)))
    (directory / "0123456789abcde0.json").symlink_to(secret)
    (directory / "0123456789abcde1.json").mkdir()
    (directory / ".0123456789abcde2.new").write_text("{")  # a daemon was killed while it wrote
    (directory / "0123456789abcde3.json").write_text(json.dumps(asdict(ORIGIN)))
    (directory / "0123456789abcde3.json").chmod(0o666)
    assert records.all() == {}
    assert [entry.name for entry in directory.iterdir()] == ["0123456789abcde1.json"]
    assert secret.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_garbage_is_never_a_fault(records: Records, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "entered" / "0123456789abcdef.json").write_bytes(text)
    assert records.all() == {}
