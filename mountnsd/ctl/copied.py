# SPDX-License-Identifier: LGPL-2.1-or-later
"""Output that is copied to our terminal, for a command that must not have the terminal itself.

Who has a terminal open can have characters typed into it: ioctl_tty(2), TIOCSTI.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_REST_SECONDS = 2.0  # what the command has left behind may keep the pipe open for ever
_READ = 1 << 16


@contextlib.contextmanager
def copied(terminal: int) -> Iterator[int]:
    """A pipe whose other end is copied to the terminal, until the writers are gone or at the end."""
    reading, writing = os.pipe()
    copying = threading.Thread(target=_copy, args=(reading, terminal), daemon=True)
    copying.start()
    try:
        yield writing
    finally:
        os.close(writing)
        copying.join(_REST_SECONDS)


def _copy(source: int, target: int) -> None:
    try:
        while data := os.read(source, _READ):
            while data:
                data = data[os.write(target, data) :]
    except OSError:  # the terminal is gone; who writes gets EPIPE
        pass
    finally:
        os.close(source)
