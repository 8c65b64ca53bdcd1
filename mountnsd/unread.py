# SPDX-License-Identifier: LGPL-2.1-or-later
"""What users were answered, and may not have read.

dbus-daemon takes nothing more from us while 64 descriptors or 127 MiB of what we sent lie unread in it, whoever does
not read them.  So who may have much unread has to wait before he gets more.  Of descriptors one can see whether they
lie in the bus (lying.py).  Of bytes nothing tells: they count for a while, or until their receiver has left.

Root is not bounded.  Out of scope: what happens when that is not enough (stall.py).

Source: dbus-daemon(1), max_incoming_bytes and max_incoming_unix_fds.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from mountnsd import waiting

# For one user but root.  A quarter and an eighth of what dbus-daemon allows us.
MAX_DESCRIPTORS_PER_USER = 16
MAX_BYTES_PER_USER = 16 << 20
SECONDS = 20.0  # at least so long, and at most twice, something counts of which nothing tells
_PAUSE = 0.25  # seconds between two looks, at most


class _Account:
    """Of one user: by connection, what counts since the last turn, and since the one before; and what is coming."""

    def __init__(self, now: float) -> None:
        self.turned = now
        self.new: Counter[str] = Counter()
        self.old: Counter[str] = Counter()
        self.coming = 0

    def turn(self, now: float) -> None:
        """Forget what has counted for long enough."""
        turns = int((now - self.turned) // SECONDS)
        if turns:
            self.old, self.new = self.new if turns == 1 else Counter(), Counter()
            self.turned += turns * SECONDS

    def forget(self) -> None:
        """Forget all that was sent."""
        self.new.clear()
        self.old.clear()

    @property
    def total(self) -> int:
        return self.new.total() + self.old.total() + self.coming


class Unread:
    """One kind of thing, of which a user may have so many unread.

    Arguments: look: tells how many of them lie in the bus, None if it cannot.
    """

    def __init__(self, most: int, look: Callable[[], Awaitable[int | None]] | None = None) -> None:
        self._most = most
        self._look = look
        self._looking = asyncio.Lock()
        self._accounts: dict[int, _Account] = {}
        self._loop = asyncio.get_running_loop()

    async def room(self, uid: int) -> None:
        """Wait until the user has less unread than he may."""
        if self._fits(uid):
            return
        async for _ in waiting.patience(_PAUSE):
            async with self._looking:  # what one look has found is for one of those who wait
                if self._fits(uid) or await self._read(uid):
                    return

    def expect(self, uid: int) -> None:
        """Count one thing that is to be sent."""
        if uid:
            self._account(uid).coming += 1

    def expect_no_more(self, uid: int) -> None:
        """It has been sent, and added, or is not sent after all."""
        if uid:
            self._account(uid).coming -= 1
            self._drop_empty(uid)

    def add(self, uid: int, name: str, amount: int = 1) -> None:
        """Count something that the connection `name` of a user was sent."""
        if uid and amount:
            self._account(uid).new[name] += amount

    def left(self, name: str) -> None:
        """A connection has left the bus, which has dropped what it had for it."""
        for uid, account in list(self._accounts.items()):
            if name in account.new or name in account.old:
                account.new.pop(name, None)
                account.old.pop(name, None)
                self._drop_empty(uid)

    def _fits(self, uid: int) -> bool:
        return uid not in self._accounts or self._accounts[uid].total < self._most

    async def _read(self, uid: int) -> bool:
        """Whether he has room after all: what he was sent was read, as far as can be told."""
        lying = await self._look() if self._look is not None else None
        account = self._account(uid)
        if lying is None:
            account.turn(self._loop.time())
        elif lying < self._most:
            account.forget()
        fits = account.total < self._most
        self._drop_empty(uid)
        return fits

    def _account(self, uid: int) -> _Account:
        now = self._loop.time()
        account = self._accounts.setdefault(uid, _Account(now))
        if self._look is None:
            account.turn(now)
        return account

    def _drop_empty(self, uid: int) -> None:
        if not self._accounts[uid].total:
            del self._accounts[uid]
