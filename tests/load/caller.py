# SPDX-License-Identifier: LGPL-2.1-or-later
"""One caller: a connection, names of its own, and the answers held against the contract."""

import asyncio
import os
import random
import time
from typing import Any

from jeepney import HeaderFields, Message
from jeepney.fds import FileDescriptor
from support.client import MANAGER, PATH, DBusError
from support.contract import FAILED, NO_SUCH, UNKNOWN_OBJECT, path_of

from .connection import Connection
from .model import Fate, Known
from .tally import Method
from .world import Resident, World

_BUS = "org.freedesktop.DBus.Error."
NOT_REACHED = frozenset({_BUS + "ServiceUnknown", _BUS + "NameHasNoOwner"})
LOST = frozenset({_BUS + "NoReply", _BUS + "Disconnected"})
GONE = frozenset({NO_SUCH, UNKNOWN_OBJECT})
NOTHING: frozenset[str] = frozenset()
_STOPPING = "is stopping"
_OWN_NAMES = 3
SHARED = tuple(f"all-{number}" for number in range(8))


class Lost(Exception):
    """The answer went down with the daemon.  Attributes: reached: whether the call may have been carried out."""

    def __init__(self, reached: bool) -> None:
        super().__init__()
        self.reached = reached


class Refused(Exception):
    """An error that the contract has.  Attributes: name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Caller:
    """One of many.  Attributes: random: seeded; own: the names that are its own."""

    def __init__(self, world: World, number: int, uid: int, everybody: list[Known]) -> None:
        self.world = world
        self.uid = uid
        self.random = random.Random(f"{world.seed}-{number}")
        self.own = [world.model.add(f"c{number}-{index}", uid) for index in range(_OWN_NAMES)]
        everybody += self.own
        self._everybody = everybody
        self._exited: dict[int, tuple[int, int]] = {}
        self._told = asyncio.Event()
        self.residents: list[Resident] = []
        self.connection: Connection

    async def connect(self) -> None:
        """Join the bus; again, if it was there before."""
        self.connection = Connection(self.world.address, self.uid, on_signal=self._heard)
        await self.connection.connect()

    def _heard(self, signal: Message) -> None:
        if signal.header.fields.get(HeaderFields.member) == "Exited":
            pid, _, code, status = signal.body
            self._exited[pid] = (code, status)
            self._told.set()

    # Whom a call is about

    def mine(self, *fates: Fate) -> Known:
        """A name of its own; of these fates where it has one."""
        fitting = [known for known in self.own if known.fate in fates]
        return self.random.choice(fitting or self.own)

    def any_name(self) -> tuple[str, frozenset[str]]:
        """A name, and the errors that may come because others destroy it or it is not there."""
        dice = self.random.random()
        if dice < 0.6:
            known = self.mine(Fate.PRESENT)
            return known.name, NOTHING if known.fate is Fate.PRESENT else GONE
        if dice < 0.9:
            return self.random.choice(self._everybody).name, GONE
        return self.random.choice(SHARED), GONE

    # Calls

    async def ask(
        self, method: Method, path: str, signature: str, *args: Any, may: frozenset[str] = NOTHING
    ) -> tuple[Any, ...]:
        """Call a method.

        Arguments: may: the errors that may come; what else comes is a complaint, unless the daemon went down.
        Raises: Lost, Refused.
        """
        world = self.world
        life = world.life if world.up else -1
        begun = time.monotonic()
        try:
            answer = await self.connection.call(path, *method, signature, *args)
        except DBusError as error:
            world.tally.answered(method, time.monotonic() - begun, error.name)
            if error.name in NOT_REACHED | LOST or (error.name == FAILED and _STOPPING in error.message):
                if self.steady(life):
                    world.complain(f"{method[1]} got {error}, and the daemon was up")
                raise Lost(error.name not in NOT_REACHED) from None
            if error.name not in may:
                world.complain(f"{method[1]} {args[:1]} of {path} by uid {self.uid} got {error}")
            raise Refused(error.name) from None
        except (TimeoutError, ConnectionError) as error:
            world.complain(f"{method[1]} {args[:1]} of {path} got no answer: {error!r}")
            raise Lost(True) from None
        world.tally.answered(method, time.monotonic() - begun)
        return answer

    async def about(
        self, method: Method, name: str, signature: str, *args: Any, may: frozenset[str] = NOTHING
    ) -> tuple[Any, ...]:
        """Call a method about a namespace: of its object, or of the manager with its name."""
        if method[0] == MANAGER:
            return await self.ask(method, PATH, "s" + signature, name, *args, may=may)
        return await self.ask(method, path_of(name), signature, *args, may=may)

    def steady(self, life: int) -> bool:
        """Whether the daemon of that life has been up all the time."""
        return self.world.up and self.world.life == life

    # What was entered

    async def ended(self, pid: int, life: int, seconds: float = 60.0) -> tuple[int, int] | None:
        """How a process ended, as the signal has it; None where the daemon went down meanwhile."""
        deadline = time.monotonic() + seconds
        while pid not in self._exited:
            if not self.steady(life):
                return None
            if time.monotonic() > deadline:
                self.world.complain(f"nobody was told that process {pid} has ended")
                return None
            self._told.clear()
            try:
                await asyncio.wait_for(self._told.wait(), 0.5)
            except TimeoutError:
                continue
        return self._exited.pop(pid)

    def keep(self, pid: int, pidfd: FileDescriptor, name: str, life: int, leaves: bool) -> None:
        """Remember a process that stays inside."""
        raw = pidfd.to_raw_fd()
        try:
            inode = os.stat(f"/proc/{pid}/ns/mnt").st_ino
        except OSError:  # somebody ended it already
            os.close(raw)
            return
        resident = Resident(pid, raw, name, inode, life, leaves)
        self.residents.append(resident)
        self.world.residents.append(resident)

    async def hang_up(self) -> None:
        """Leave the bus and come back: what was to end with this caller ends."""
        life = self.world.life if self.world.up else -1
        self.connection.close()
        self.world.tally.hangups += 1
        leaving = [one for one in self.residents if one.leaves and one.life == life]
        deadline = time.monotonic() + 60
        while self.steady(life) and any(one in self.world.residents and not one.ended for one in leaving):
            if time.monotonic() > deadline:
                self.world.complain(f"processes outlive the caller they were to end with: {leaving}")
                break
            await asyncio.sleep(0.05)
        self.residents = [one for one in self.residents if one not in leaving]
        await self.connect()
