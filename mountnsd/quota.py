# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of the daemon callers may hold at a time, from when it is known who calls until his answer is on its way.

Root is not bounded.  Out of scope: what is held for longer (registry.py, entering.py), and questions (authority.py).
"""

from collections import Counter

from mountnsd.errors import LimitsExceeded

MAX_PENDING_PER_USER = 64  # calls of one user but root that are not answered yet


class Quota:
    """The calls that are open."""

    def __init__(self) -> None:
        self._calls: Counter[int] = Counter()  # by uid

    def open(self, uid: int) -> None:
        """Count a call in.  Raises: LimitsExceeded, with nothing counted."""
        if uid and self._calls[uid] >= MAX_PENDING_PER_USER:
            raise LimitsExceeded(
                f"You have {MAX_PENDING_PER_USER} calls that are not answered yet; wait for their answers."
            )
        self._calls[uid] += 1

    def close(self, uid: int) -> None:
        """Count a call out."""
        self._calls[uid] -= 1
        if not self._calls[uid]:
            del self._calls[uid]
