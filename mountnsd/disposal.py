# SPDX-License-Identifier: LGPL-2.1-or-later
"""Closing descriptors that somebody else sent, where it can hold up nobody.

close(2) of a file on FUSE asks the file's server, which may never answer; that
of a socket may linger.  So it is done in threads that end with their work: one
as long as it gets on, for a thread costs more than most closings, and more
when it hangs.  A number is free as soon as its close(2) begins, however long
that takes.  What certainly hangs on nobody is closed at once.

Out of scope: our own descriptors, which are closed where they are used.
Sources: close(2), socket(7) (SO_LINGER), the kernel's fs/open.c (filp_close),
fs/fuse/file.c (fuse_flush) and Documentation/admin-guide/devices.txt.
"""

import asyncio
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from mountnsd import syscalls

MOST_THREADS = 256  # so many closings can hang before the next ones wait
_PATIENCE = 0.01  # seconds without a closing that has ended, after which those at work are taken to hang

# /dev/null and the like, terminals: /dev/tty, /dev/console, and the slaves of pseudo-terminals.
_HARMLESS_DEVICES = frozenset({1, 5, *range(136, 144)})

_waiting: deque[int] = deque()
_lock = threading.Lock()  # guards all of these
_threads = 0
_relieving = False
_closed = 0


def dispose_shared(fds: list[int]) -> None:
    """Close descriptors of files that somebody else has open, too.  They are ours no more.

    Only the last close(2) of a file releases it; any other one flushes it, which files of some filesystems and
    devices have a word in, and pipes, sockets and terminals do not.
    """
    left = []
    for fd in fds:
        if _has_no_flush(fd):
            with suppress(OSError):
                os.close(fd)
        else:
            left.append(fd)
    if left:
        dispose(left)


def _has_no_flush(fd: int) -> bool:
    try:
        mode, major, _ = syscalls.known_status(fd)
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and major in _HARMLESS_DEVICES)


def dispose(fds: list[int]) -> None:
    """Close descriptors soon.  They are ours no more."""
    global _relieving  # noqa: PLW0603
    with _lock:
        _waiting.extend(fds)
        idle = not _threads
        relief = not _relieving and (len(_waiting) > 1 or not idle)
        _relieving = _relieving or relief
    if idle:
        _start_threads(1)
    if relief and not _start(_relieve):
        _relieving = False


def waiting() -> int:
    """How many descriptors nobody has begun to close yet."""
    return len(_waiting)


async def begun(patience: float = 0.1) -> bool:
    """Wait until the closing of all that was disposed of has begun, so that a child inherits none of it.

    Arguments: patience: seconds.  Returns: whether it has.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while _waiting and loop.time() < end:
        _start_threads(1)
        await asyncio.sleep(0.0005)
    return not _waiting


def _start_threads(count: int) -> None:
    """Start so many more, as far as there may be and there is work for them."""
    global _threads  # noqa: PLW0603
    with _lock:
        count = min(count, MOST_THREADS - _threads, len(_waiting))
        _threads += max(count, 0)
    for _ in range(count):
        if not _start(_work):
            with _lock:
                _threads -= 1


def _start(work: Callable[[], None]) -> bool:
    try:
        threading.Thread(target=work, name="mountnsd-disposal", daemon=True).start()
    except RuntimeError:  # no thread can be had: the next one to be started does it
        return False
    return True


def _work() -> None:
    """Close what waits, one after the other."""
    global _threads, _closed  # noqa: PLW0603
    while True:
        with _lock:
            if not _waiting:
                _threads -= 1
                return
            fd = _waiting.popleft()
        with suppress(OSError):
            os.close(fd)
        with _lock:
            _closed += 1


def _relieve() -> None:
    """While anything waits, see that it goes on: when all who are at work hang, send as many again."""
    global _relieving  # noqa: PLW0603
    while True:
        with _lock:
            if not _waiting:
                _relieving = False
                return
            seen, more = _closed, max(_threads, 1)
        time.sleep(_PATIENCE)
        if _closed == seen:
            _start_threads(more)
