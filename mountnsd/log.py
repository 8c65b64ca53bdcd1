# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the daemon's log goes: the journal, with fields, or standard error.

No text that came from a caller can forge a line or a field: control
characters are escaped on the way out, whoever wrote them.

Source: systemd.journal-fields(7), sd-daemon(3).
"""

import logging
import re
import sys
from pathlib import Path

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "mountnsd"

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def escape(text: str) -> str:
    r"""Text with every control character but the tab as `\\xNN`."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class _OneLine(logging.Formatter):
    """One record is one line, with a traceback folded into it."""

    def format(self, record: logging.LogRecord) -> str:
        return escape(super().format(record))


def to_stderr(level: int = logging.INFO) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    _install(handler, level)


def to_journal(level: int = logging.INFO) -> None:
    """Log to the journal; the keys of `extra` become fields in capitals."""
    from systemd.journal import JournalHandler

    class Handler(JournalHandler):  # type: ignore[misc]
        def format(self, record: logging.LogRecord) -> str:
            return escape(super().format(record))

        def emit(self, record: logging.LogRecord) -> None:
            extra = {
                key: value
                for key, value in record.__dict__.items()
                if key.startswith(("mountns_", "caller_")) or key == "message_id"
            }
            for key, value in extra.items():
                record.__dict__[key.upper()] = escape(str(value))
            super().emit(record)

    _install(Handler(SYSLOG_IDENTIFIER=IDENTIFIER), level)


def set_up(target: str) -> None:
    """Log to `target`: journal, stderr, or auto (the journal where it is)."""
    if target == "journal" or (target == "auto" and JOURNAL_SOCKET.exists()):
        to_journal()
    else:
        to_stderr()


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
