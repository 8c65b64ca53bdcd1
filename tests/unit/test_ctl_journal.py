# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lines of the journal that `mountnsctl status` shows: what is asked of journalctl, and that it may fail."""

import os
from pathlib import Path

import pytest

from mountnsd.ctl import journal


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory that programs are found in."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _journalctl(programs: Path, script: str) -> None:
    (programs / "journalctl").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "journalctl").chmod(0o755)


def test_what_is_asked(programs: Path) -> None:
    _journalctl(programs, 'for word; do echo "$word"; done')
    asked = journal.lines("a-b", 7)
    assert asked[:5] == ["--quiet", "--no-pager", "--no-hostname", "--output=short", "--lines=7"]
    assert asked[5:] == [
        "MOUNTNS_NAME=a-b",
        "+", "UNIT=mountns@a-b.service", "_PID=1",
        "+", "_SYSTEMD_UNIT=mountns@a-b.service",
        "+", r"_SYSTEMD_SLICE=mountns-a\x2db.slice",
    ]  # fmt: skip


def test_no_lines_are_not_asked_for(programs: Path) -> None:
    _journalctl(programs, f"echo > {programs}/asked")
    assert journal.lines("demo", 0) == []
    assert not (programs / "asked").exists()


@pytest.mark.parametrize("script", ["echo half a line; exit 1", "kill -9 $$", "exec 2>&1; exit 127"])
def test_a_journal_that_fails_says_nothing(programs: Path, script: str) -> None:
    _journalctl(programs, script)
    assert journal.lines("demo", 3) == []


def test_no_journal(programs: Path) -> None:
    assert not os.listdir(programs)
    assert journal.lines("demo", 3) == []


def test_a_journal_that_hangs(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _journalctl(programs, "exec /bin/sleep 1000")
    monkeypatch.setattr(journal, "_SECONDS", 0.2)
    assert journal.lines("demo", 3) == []


def test_bytes_that_are_no_text(programs: Path) -> None:
    _journalctl(programs, r"printf 'a\377b\n'")
    assert journal.lines("demo", 3) == ["a\ufffdb"]
