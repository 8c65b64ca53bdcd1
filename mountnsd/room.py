# SPDX-License-Identifier: LGPL-2.1-or-later
"""Room for descriptors: the daemon's soft limit, RLIMIT_NOFILE.

A program expects the usual limit, which it has from whoever spawns it
(spawn.py).  So the daemon keeps to that, too, while it needs no more; and
takes as much as it may have before it does.

Sources: getrlimit(2), select(2).
"""

import os
import resource

from mountnsd import child, syscalls

_MOST_CALLS = 64  # being answered at once; each has a few descriptors open at most
_ENOUGH = 512  # numbers in use, from which on the usual limit might be reached

_usual = False


def take_all() -> None:
    """Have as much room as there may be.  Raises: OSError, ValueError."""
    global _usual  # noqa: PLW0603
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _usual = False


def be_usual(fd: int) -> bool:
    """Keep to the usual limit if that is enough.

    Arguments: fd: a descriptor that was opened just now, and so has the lowest number that was free.
    Returns: whether it is the limit now.
    """
    global _usual  # noqa: PLW0603
    if not _usual and fd < _ENOUGH:
        resource.setrlimit(resource.RLIMIT_NOFILE, child.usual_descriptors())
        _usual = True
    return _usual and fd < _ENOUGH


def is_usual() -> bool:
    """Whether the usual limit is what we have."""
    return _usual


def see(calls: int) -> None:
    """Take all there is if more may be needed.

    Arguments: calls: how many are being answered.
    """
    if _usual and (calls > _MOST_CALLS or _lowest_free() >= _ENOUGH):
        take_all()


def _lowest_free() -> int:
    try:
        fd = os.dup(0)
    except OSError:  # none is
        return _ENOUGH
    syscalls.close(fd)
    return fd
