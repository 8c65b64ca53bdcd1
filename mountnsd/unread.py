# SPDX-License-Identifier: LGPL-2.1-or-later
"""What users were answered of late, and may not have read.

dbus-daemon takes nothing more from us while 64 descriptors or 127 MiB of what we sent lie unread in it, whoever does
not read them.  Nothing tells whether an answer was read.  So it counts as unread until its receiver has left the bus,
or for a while; and who has much of that has to wait before he gets more.

Root is not bounded.  Out of scope: what happens when that is not enough (stall.py).

Source: dbus-daemon(1), max_incoming_bytes and max_incoming_unix_fds.
"""

import asyncio
from collections import Counter

from mountnsd import waiting

# For one user but root.  A quarter and an eighth of what dbus-daemon allows us.
MAX_DESCRIPTORS_PER_USER = 16
MAX_BYTES_PER_USER = 16 << 20
SECONDS = 20.0  # at least so long, and at most twice, something counts


class _Account:
    """Of one user: by connection, what counts since the last turn, and since the one before."""

    def __init__(self, now: float) -> None:
        self.turned = now
        self.new: Counter[str] = Counter()
        self.old: Counter[str] = Counter()

    def turn(self, now: float) -> None:
        """Forget what has counted for long enough."""
        turns = int((now - self.turned) // SECONDS)
        if turns:
            self.old, self.new = self.new if turns == 1 else Counter(), Counter()
            self.turned += turns * SECONDS

    @property
    def total(self) -> int:
        return self.new.total() + self.old.total()


class Unread:
    """One kind of thing, of which a user may have so many unread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._accounts: dict[int, _Account] = {}
        self._loop = asyncio.get_running_loop()

    async def room(self, uid: int) -> None:
        """Wait until the user has less unread than he may."""
        if self._total(uid) < self._most:
            return
        async for _ in waiting.patience(0.25):
            if self._total(uid) < self._most:
                break

    def add(self, uid: int, name: str, amount: int) -> None:
        """Count something that the connection `name` of a user is sent."""
        if uid and amount:
            now = self._loop.time()
            account = self._accounts.setdefault(uid, _Account(now))
            account.turn(now)
            account.new[name] += amount

    def take_back(self, uid: int, name: str, amount: int) -> None:
        """Count something no longer that was not sent after all, if it still counts."""
        account = self._accounts.get(uid)
        for counted in (account.new, account.old) if account is not None else ():
            less = min(amount, counted[name])
            counted[name] -= less
            amount -= less

    def left(self, name: str) -> None:
        """A connection has left the bus, which has dropped what it had for it."""
        for account in self._accounts.values():
            account.new.pop(name, None)
            account.old.pop(name, None)

    def _total(self, uid: int) -> int:
        account = self._accounts.get(uid)
        if account is None:
            return 0
        account.turn(self._loop.time())
        total = account.total
        if not total:
            del self._accounts[uid]
        return total
