# SPDX-License-Identifier: LGPL-2.1-or-later
"""A line on the terminal that says for what we wait, once that takes over a second; gone when it is done.

On standard error, and only where that is a terminal that can erase a line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mountnsd.ctl import text

if TYPE_CHECKING:
    import threading

_FIRST_SECONDS = 1.0
_NEXT_SECONDS = 1.0
_ERASE = "\r\x1b[K"
_NARROWEST = 20


class Progress:
    """Shows what takes long, counted from the first thing that was waited for.

    Arguments: wanted: not with --quiet.
    """

    def __init__(self, wanted: bool) -> None:
        self._shows = wanted and text.is_terminal(2) and os.environ.get("TERM", "dumb") != "dumb"
        self._start = 0.0

    @contextmanager
    def shown(self, doing: str) -> Iterator[None]:
        """While something is done: show it, and for how long we have waited."""
        if not self._shows:
            yield
            return
        import threading

        self._start = self._start or time.monotonic()
        done = threading.Event()
        thread = threading.Thread(target=_show, args=(doing, self._start, done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _show(doing: str, start: float, done: threading.Event) -> None:
    wait = max(start + _FIRST_SECONDS - time.monotonic(), 0)
    shown = False
    while not done.wait(wait):
        _write(_ERASE + _line(doing, int(time.monotonic() - start)))
        shown = True
        wait = _NEXT_SECONDS
    if shown:
        _write(_ERASE)


def _line(doing: str, seconds: int) -> str:
    """A line that the terminal does not wrap, because only one can be erased."""
    try:
        columns = os.get_terminal_size(2).columns
    except OSError:
        columns = 0
    end = f" ({seconds}s)"
    most = max(columns, _NARROWEST) - 1 - len(end)
    line = text.plain(doing)
    while text.width(line) > most:
        line = line[:-2] + "…"
    return line + end


def _write(data: str) -> None:
    try:
        text.write(data, 2)
    except OSError:
        return
