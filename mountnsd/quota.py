# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of the daemon callers may hold at a time, from when it is known who calls until his answer is on its way.

Root is not bounded.  Out of scope: what is held for longer (registry.py, entering.py), and questions (authority.py).

Source: unix(7), ETOOMANYREFS: descriptors that lie in a socket, as those of a call do (descriptors.py), count against
who put them there, which is root, and keep other services of root from passing any.
"""

from collections import Counter
from dataclasses import dataclass, field

from mountnsd.errors import LimitsExceeded
from mountnsd.passing import MAX_FDS

MAX_PENDING_PER_USER = 64  # calls of one user but root that are not answered yet
MAX_PENDING = 1024  # calls of all users but root: a user with subordinate uids can be thousands of users
MAX_WAITING_DESCRIPTORS_PER_USER = MAX_FDS  # that came with these calls
MAX_WAITING_DESCRIPTORS = 512  # of all users but root together: most services may have 1024


@dataclass(slots=True)
class _Held:
    """What is held of one kind, by uid."""

    by_user: Counter[int] = field(default_factory=Counter)

    def of(self, uid: int) -> int:
        return self.by_user[uid]  # of a Counter, which adds nothing by that

    @property
    def of_users(self) -> int:
        """Of all users but root."""
        return self.by_user.total() - self.of(0)

    def add(self, uid: int, count: int) -> None:
        self.by_user[uid] += count
        if not self.by_user[uid]:
            del self.by_user[uid]


class Quota:
    """The calls that are open, and their descriptors."""

    def __init__(self) -> None:
        self._calls = _Held()
        self._descriptors = _Held()

    def open(self, uid: int, descriptors: int) -> None:
        """Count a call in.  Raises: LimitsExceeded, with nothing counted."""
        if uid:
            self._check(uid, descriptors)
        self._calls.add(uid, 1)
        self._descriptors.add(uid, descriptors)

    def close(self, uid: int, descriptors: int) -> None:
        """Count a call out."""
        self._calls.add(uid, -1)
        self._descriptors.add(uid, -descriptors)

    def _check(self, uid: int, descriptors: int) -> None:
        if self._calls.of(uid) >= MAX_PENDING_PER_USER:
            raise LimitsExceeded(
                f"You have {MAX_PENDING_PER_USER} calls that are not answered yet; wait for their answers."
            )
        if self._calls.of_users >= MAX_PENDING:
            raise LimitsExceeded(
                f"Users have {MAX_PENDING} calls that are not answered yet, as many as all may have; try again later."
            )
        if not descriptors:
            return
        if self._descriptors.of(uid) + descriptors > MAX_WAITING_DESCRIPTORS_PER_USER:
            raise LimitsExceeded(
                f"Your calls that are not answered yet may have {MAX_WAITING_DESCRIPTORS_PER_USER} file "
                "descriptors together; wait for their answers."
            )
        if self._descriptors.of_users + descriptors > MAX_WAITING_DESCRIPTORS:
            raise LimitsExceeded(
                f"All users together may have {MAX_WAITING_DESCRIPTORS} file descriptors in calls that are not "
                "answered yet; try again later."
            )
