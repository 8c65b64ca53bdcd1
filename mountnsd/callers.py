# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who calls: identity as the bus reports it, never as a caller says it.

A unique name is given to one connection in a bus's whole life, and a
connection's credentials do not change, so what was learned once stays true.

Source: D-Bus specification, org.freedesktop.DBus.GetConnectionCredentials.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from mountnsd import cgroup
from mountnsd.bus import Bus, CallError, Variant
from mountnsd.errors import AccessDenied

_REMEMBERED = 512


@dataclass(frozen=True, slots=True)
class Caller:
    name: str  # the unique name
    uid: int
    pid: int  # 0 where the bus does not tell; for information, never for a decision
    groups: tuple[int, ...] | None  # None where the bus does not tell

    def fields(self) -> dict[str, object]:
        """Who it is, for the log."""
        fields: dict[str, object] = {"caller_uid": self.uid}
        if self.pid:
            fields["caller_pid"] = self.pid
            unit = cgroup.unit_of(self.pid)
            if unit:
                fields["caller_unit"] = unit
        return fields


class Callers:
    """The callers of one bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: OrderedDict[str, asyncio.Future[Caller]] = OrderedDict()

    def known(self, sender: str) -> Caller | None:
        """The caller behind a unique name, if the bus was asked before and could tell."""
        known = self._known.get(sender)
        if known is None or not known.done() or known.cancelled() or known.exception() is not None:
            return None
        self._known.move_to_end(sender)
        return known.result()

    async def identify(self, sender: str) -> Caller:
        """The caller behind a unique name.

        Raises: AccessDenied where the bus cannot tell (it has left, say); bus.Disconnected.
        """
        known = self._known.get(sender)
        if known is not None:
            self._known.move_to_end(sender)
        else:
            known = asyncio.ensure_future(self._ask(sender))
            self._known[sender] = known
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        try:
            return await asyncio.shield(known)
        except AccessDenied:
            self._known.pop(sender, None)
            raise

    async def _ask(self, sender: str) -> Caller:
        if not sender.startswith(":"):
            raise AccessDenied("Only a connection with a unique name can be told apart; connect to the bus.")
        try:
            (credentials,) = await self._bus.call_driver("GetConnectionCredentials", "s", sender)
        except CallError:
            raise AccessDenied("The bus cannot tell who you are.") from None
        uid = _value(credentials, "UnixUserID", "u")
        if not isinstance(uid, int):
            raise AccessDenied("The bus cannot tell your uid.")
        pid = _value(credentials, "ProcessID", "u")
        groups = _value(credentials, "UnixGroupIDs", "au")
        return Caller(
            name=sender,
            uid=uid,
            pid=pid if isinstance(pid, int) else 0,
            groups=tuple(groups) if isinstance(groups, list) else None,
        )


def _value(credentials: dict[str, Variant], key: str, signature: str) -> object:
    variant = credentials.get(key)
    return variant.value if variant is not None and variant.signature == signature else None
