# SPDX-License-Identifier: LGPL-2.1-or-later
"""Room for descriptors: the daemon's soft limit, RLIMIT_NOFILE.

It is as high as may be.  A program expects the usual one, which it has from
whoever spawns it (spawn.py): so for that moment we have it, too, if we are far
from needing more.

Sources: getrlimit(2), select(2).
"""

import os
import resource

from mountnsd import child

_ENOUGH = 512  # no number from here on may be in use: as many again can be opened in the moment that it takes

_narrow = 0  # how many want the usual limit just now


def take_all() -> None:
    """Have as much room as there may be.  Raises: OSError, ValueError: there may not be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def narrow() -> bool:
    """Keep to the usual limit, until as many calls of `widen`, if that is enough.

    Returns: whether it is, and so what is spawned has it.
    """
    global _narrow  # noqa: PLW0603
    try:
        if max(map(int, os.listdir("/proc/self/fd"))) >= _ENOUGH:
            return False
        if not _narrow:
            resource.setrlimit(resource.RLIMIT_NOFILE, _usual())
    except (OSError, ValueError):
        return False
    _narrow += 1
    return True


def _usual() -> tuple[int, int]:
    """The soft limit that programs are used to, and the hard one that we have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return child.usual_descriptors(hard), hard


def widen() -> None:
    """Have all the room again, if nobody else wants the usual limit."""
    global _narrow  # noqa: PLW0603
    _narrow -= 1
    if not _narrow:
        take_all()


def make_usual(pid: int) -> None:
    """Give a process that has our soft limit the usual one; what it has set itself stays."""
    usual = _usual()
    try:
        if resource.prlimit(pid, resource.RLIMIT_NOFILE) == (usual[1], usual[1]):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    except (OSError, ValueError):  # it has ended, or is another user's by now
        pass
