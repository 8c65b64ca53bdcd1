# SPDX-License-Identifier: LGPL-2.1-or-later
"""Garbage is collected in the thread of the event loop, which never leaves the host, and in no other.

What is collected may log and import, and Python collects in whatever thread makes garbage: that may be one that is
inside a namespace.  So it does not collect by itself in the daemon, and this does instead: what is young with the
calls that come, and all of it a while later.  What an answer took besides goes back to the system then, too, and what
a helper thread took: all threads have theirs from one arena, because another would stay as large as it ever was.
While nobody calls nothing is done.

Sources: the documentation of Python's module gc; malloc_trim(3); mallopt(3), M_ARENA_MAX.
"""

import asyncio
import ctypes
import gc

_LATER = 5.0  # seconds

_M_ARENA_MAX = -8  # malloc.h

_libc = ctypes.CDLL(None)


def take_over() -> None:
    """Have Python not collect by itself any more, and all threads take their memory from one place."""
    gc.disable()
    if hasattr(_libc, "mallopt"):  # the GNU C library
        _libc.mallopt(_M_ARENA_MAX, 1)


class Collector:
    """Collects in the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._frozen = False

    def close(self) -> None:
        """Collect no more."""
        if self._timer is not None:
            self._timer.cancel()

    def collect(self) -> None:
        """Collect what is young, if there is as much of it as Python would collect for; and all of it later."""
        young, middle, _ = gc.get_count()
        most_young, most_middle, _ = gc.get_threshold()
        if young > most_young:
            gc.collect(1 if middle > most_middle else 0)
        self.collect_later()

    def collect_later(self) -> None:
        """Collect all in a while."""
        if self._timer is None:
            self._timer = self._loop.call_later(_LATER, self._collect_all)

    def _collect_all(self) -> None:
        self._timer = None
        gc.collect()
        if not self._frozen:  # what was imported stays, and need not be looked through each time
            self._frozen = True
            gc.freeze()
        if hasattr(_libc, "malloc_trim"):  # the GNU C library
            _libc.malloc_trim(0)
