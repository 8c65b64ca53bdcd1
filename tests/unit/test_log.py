# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log: whatever is written, one record is one line, and none can pass for another."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd import log

nasty = st.one_of(
    st.text(max_size=100),
    st.text("a\n\r\x0b\x0c\x1b\x1c\x85\u2028\u2029\ud800\x9b\x00\t", max_size=50),
)
BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """The root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(level: int, message: str, *arguments: object, fault: Exception | None = None) -> str:
    """What a record of the daemon looks like on standard error, where everything must be UTF-8."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    before, sys.stderr = sys.stderr, stream
    try:
        log.to_stderr()
        logging.getLogger("mountnsd.test").log(level, message, *arguments, exc_info=fault)
        stream.flush()
        raw = stream.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode()
    finally:
        sys.stderr = before


class TestOneLine:
    """Nobody's text can forge a line."""

    @settings(max_examples=200, deadline=None, database=None)
    @given(nasty)
    def test_a_record_is_one_line(self, text: str) -> None:
        line = written(logging.WARNING, "Left alone: %s", text)
        assert line.startswith("WARNING: Left alone: ")
        assert line.endswith("\n")
        assert not any(character in line[:-1] for character in BREAKS)
        assert "\x1b" not in line
        assert "\x9b" not in line

    @settings(max_examples=100, deadline=None, database=None)
    @given(nasty)
    def test_a_traceback_is_folded_in(self, text: str) -> None:
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            line = written(logging.ERROR, "A fault", fault=error)
        assert line.count("\n") == 1
        assert "RuntimeError" in line

    @settings(max_examples=200, deadline=None, database=None)
    @given(nasty)
    def test_escaping_keeps_what_is_harmless(self, text: str) -> None:
        escaped = log.escape(text)
        assert escaped.encode().decode() == escaped
        assert log.escape(escaped) == escaped
        if text.isprintable():
            assert escaped == text

    def test_a_tab_stays(self) -> None:
        assert log.escape("a\tb\nc\x1b[2J") == "a\tb\\nc\\x1b[2J"


class TestJournal:
    """The same with fields."""

    def emitted(self, monkeypatch: pytest.MonkeyPatch, text: str) -> dict[str, str]:
        """What a record with a field is sent to the journal as."""
        from systemd import journal

        sent: list[dict[str, str]] = []

        def send(text: str, **fields: str) -> None:
            sent.append({"MESSAGE": text, **fields})

        monkeypatch.setattr(journal, "send", send)
        log.to_journal()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, journal.JournalHandler):
                monkeypatch.setattr(handler, "send", send, raising=False)
        logging.getLogger("mountnsd.test").warning("Is %s", text, extra={"mountns_name": text})
        assert len(sent) == 1
        return sent[0]

    @pytest.mark.parametrize("text", ["a\nPRIORITY=0", "a\x1b[2Jb", "a\u2028b", "\ud800"])
    def test_neither_message_nor_field_breaks(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        fields = self.emitted(monkeypatch, text)
        assert fields["SYSLOG_IDENTIFIER"] == "mountnsd"
        assert fields["MESSAGE"] == "Is " + log.escape(text)
        assert fields["MOUNTNS_NAME"] == log.escape(text)
        for value in (fields["MESSAGE"], fields["MOUNTNS_NAME"]):
            assert "\n" not in value
            assert value.encode()


class TestTarget:
    """Where it goes."""

    def handlers(self, target: str) -> list[str]:
        """The kinds of handlers that a target sets up."""
        log.set_up(target)
        return [type(handler).__mro__[1].__name__ for handler in logging.getLogger().handlers]

    def test_stderr(self) -> None:
        assert self.handlers("stderr") == ["Handler"]

    def test_journal(self) -> None:
        assert self.handlers("journal") == ["JournalHandler"]

    @pytest.mark.parametrize("there", [True, False])
    def test_auto_is_the_journal_where_it_is(self, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
        class Socket:
            @staticmethod
            def exists() -> bool:
                return there

        monkeypatch.setattr(log, "JOURNAL_SOCKET", Socket)
        assert self.handlers("auto") == ["JournalHandler" if there else "Handler"]
