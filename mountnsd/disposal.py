# SPDX-License-Identifier: LGPL-2.1-or-later
"""Closing descriptors that somebody else sent, where it can hold up nobody.

close(2) of a file on FUSE asks the file's server, which may never answer; that
of a socket may linger.  So it is done in threads that end with their work.  A
number is free as soon as its close(2) begins, however long that takes.

Out of scope: our own descriptors, which are closed where they are used.
Sources: close(2), socket(7) (SO_LINGER), the kernel's fs/fuse/file.c (fuse_flush).
"""

import asyncio
import os
import threading
from collections import deque
from contextlib import suppress

MOST_THREADS = 256  # so many closings can hang before the next ones wait

_waiting: deque[int] = deque()
_lock = threading.Lock()
_threads = 0


def dispose(fds: list[int]) -> None:
    """Close descriptors soon.  They are ours no more."""
    _waiting.extend(fds)
    _start_thread()


async def begun(patience: float = 0.1) -> bool:
    """Wait until the closing of all that was disposed of has begun, so that a child inherits none of it.

    Arguments: patience: seconds.  Returns: whether it has.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while _waiting and loop.time() < end:
        _start_thread()
        await asyncio.sleep(0.0005)
    return not _waiting


def _start_thread() -> None:
    global _threads  # noqa: PLW0603 - guarded by the lock
    with _lock:
        if not _waiting or _threads >= MOST_THREADS:
            return
        _threads += 1
    try:
        threading.Thread(target=_work, name="mountnsd-disposal", daemon=True).start()
    except RuntimeError:  # no thread can be had: the next one to be started does it
        with _lock:
            _threads -= 1


def _work() -> None:
    """Close what waits; before each that could hang, see that somebody else can go on with the rest."""
    global _threads  # noqa: PLW0603 - guarded by the lock
    while True:
        try:
            fd = _waiting.popleft()
        except IndexError:
            break
        _start_thread()
        with suppress(OSError):
            os.close(fd)
    with _lock:
        _threads -= 1
