# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd's units, over the bus: start, state, end.

Out of scope: what they are called (names.py), and what is in them (transient.py).

Source: org.freedesktop.systemd1(5).
"""

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import Any

from mountnsd import names, stream, waiting
from mountnsd.bus import Bus, CallError, Variant

log = logging.getLogger(__name__)

SYSTEMD = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_UNIT_PATH = _PATH + "/unit/"
_MANAGER = SYSTEMD + ".Manager"
_UNIT = SYSTEMD + ".Unit"
_SERVICE = SYSTEMD + ".Service"
SLICE = SYSTEMD + ".Slice"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_GONE = (
    SYSTEMD + ".NoSuchUnit",
    SYSTEMD + ".NoSuchProcess",
    SYSTEMD + ".NotReferenced",
    SYSTEMD + ".LoadFailed",
    "org.freedesktop.DBus.Error.UnknownObject",
)

# A bus lets one connection wait for so many answers only (dbus-daemon: 128), those of polkit among them.
_MOST_AT_ONCE = 32
_LONGEST_PAUSE = 10.0  # seconds between two tries of what systemd refuses


@dataclass(frozen=True, slots=True)
class Main:
    """How the main process of a service does: `pid` is 0 before it started, `code` (si_code) until it has ended."""

    pid: int
    code: int
    status: int


class Units:
    """The service manager, as one of its clients.

    What has to be done sooner or later is tried until it is: `stop`, `kill`, `hold`, `release` and `reset` return
    when systemd has taken the order, or there is no such unit.  All raise Disconnected.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)

    async def there(self) -> bool:
        """Whether a service manager is on this bus."""
        (owned,) = await self._bus.call_driver("NameHasOwner", "s", SYSTEMD)
        return bool(owned)

    async def version(self) -> int:
        """The version of the service manager, 0 where it does not say one.  Raises CallError."""
        text = str(await self._property(_PATH, _MANAGER, "Version") or "")
        number = re.match(r"v?(\d{1,4})", text, re.ASCII)
        return int(number[1]) if number else 0

    async def start(self, name: str, properties: dict[str, Variant], fds: list[int]) -> None:
        """Start a transient unit; returns when it is on its way.

        Arguments: fds: what handles in the properties point at; ours no more.
        Raises: CallError.
        """
        settings = [[key, value] for key, value in properties.items()]
        signature = "ssa(sv)a(sa(sv))"
        body: tuple[Any, ...] = (name, "fail", settings, [])
        try:
            await self._slots.acquire()
        except BaseException:
            stream.close_all(fds)
            raise
        try:
            await self._bus.call(SYSTEMD, _PATH, _MANAGER, "StartTransientUnit", signature, body, fds=fds)
        finally:
            self._slots.release()

    async def stop(self, name: str) -> None:
        """Have a unit stopped: SIGTERM, and SIGKILL later."""
        await self._insist("StopUnit", "ss", name, "replace")

    async def kill(self, name: str, number: int) -> None:
        """Send a signal to every process of a unit."""
        await self._insist("KillUnit", "ssi", name, "all", number)

    async def hold(self, name: str) -> None:
        """Keep what systemd knows of a unit, though it ends, until `release` or our end."""
        await self._insist("RefUnit", "s", name)

    async def release(self, name: str) -> None:
        """Take back `hold`, or the property AddRef; harmless without."""
        await self._insist("UnrefUnit", "s", name)

    async def reset(self, name: str) -> None:
        """Forget that a unit has failed."""
        await self._insist("ResetFailedUnit", "s", name)

    async def active(self, name: str) -> bool:
        """Whether a unit is there and neither on its way up nor down.  Raises CallError."""
        try:
            await self._manager("GetUnit", "s", name)  # a look at its properties would load it
        except CallError as error:
            if error.name in _GONE:
                return False
            raise
        return bool(await self._get(name, _UNIT, "ActiveState") == "active")

    async def stop_if_active(self, name: str) -> None:
        """Stop a unit that is active, unless somebody wants something else of it just now.  Raises CallError."""
        if await self.active(name):
            await self._manager("StopUnit", "ss", name, "fail")

    async def sub_state(self, name: str) -> str:
        """What a unit does: running, exited, failed, dead (also where there is none).  Raises CallError."""
        return str(await self._get(name, _UNIT, "SubState") or "dead")

    async def control_group(self, name: str, kind: str = _SERVICE) -> str:
        """The control group of a unit below the root of all, or "" where it has none.  Raises CallError."""
        return str(await self._get(name, kind, "ControlGroup") or "")

    async def main(self, name: str) -> Main:
        """How the main process of a service does.  Raises CallError."""
        # Not of ExecStart, which has it all at once: systemd forgets that when it reads its units again.
        code = int(await self._get(name, _SERVICE, "ExecMainCode") or 0)
        status = int(await self._get(name, _SERVICE, "ExecMainStatus") or 0)
        return Main(int(await self._get(name, _SERVICE, "ExecMainPID") or 0), code, status)

    async def end_of_main(self, name: str) -> tuple[str, int, int]:
        """What a service does, and the si_code (0 until it has ended) and status of its main process, in one go.

        The state is the older of what is told: one of an end, with a code of 0, means that there will be no other.
        Raises CallError.
        """
        # systemd answers one connection in the order it was asked in.
        state, code, status = await asyncio.gather(
            self.sub_state(name),
            self._get(name, _SERVICE, "ExecMainCode"),
            self._get(name, _SERVICE, "ExecMainStatus"),
        )
        return state, int(code or 0), int(status or 0)

    async def _insist(self, member: str, signature: str, *body: Any) -> None:
        complained = False
        async for _ in waiting.patience(_LONGEST_PAUSE):
            try:
                await self._manager(member, signature, *body)
            except CallError as error:
                if error.name in _GONE:
                    return
                if not complained:
                    log.warning("systemd refuses %s of %s: %s", member, body[0], names.shown(str(error), 300))
                    complained = True
            else:
                return

    async def _manager(self, member: str, signature: str, *body: Any) -> None:
        async with self._slots:
            await self._bus.call(SYSTEMD, _PATH, _MANAGER, member, signature, body)

    async def _get(self, name: str, interface: str, key: str) -> Any:
        return await self._property(_UNIT_PATH + names.label(name), interface, key)

    async def _property(self, path: str, interface: str, key: str) -> Any:
        try:
            async with self._slots:
                (value,) = await self._bus.call(SYSTEMD, path, _PROPERTIES, "Get", "ss", (interface, key))
        except CallError as error:
            if error.name in _GONE:
                return None
            raise
        return value.value
