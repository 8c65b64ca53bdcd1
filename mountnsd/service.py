# SPDX-License-Identifier: LGPL-2.1-or-later
"""The D-Bus service: finds what a call is to, has it allowed, and answers it.

Objects are looked up, not exported.  A call passes, in this order: identity,
quota, object, interface and member (against the XML), signature, arguments,
authorization, and only then the method.  What fails on the way is answered
with one error, and nothing has changed.
"""

import asyncio
import errno
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mountnsd import frames, interface, names
from mountnsd.authority import Authority, CallerVanished
from mountnsd.bus import Bus, Call, CallError, Disconnected
from mountnsd.callers import Caller, Callers
from mountnsd.entering import Entering
from mountnsd.errors import (
    AccessDenied,
    Error,
    Failed,
    InvalidArgs,
    LimitsExceeded,
    NoSuchNamespace,
    UnknownInterface,
    UnknownMethod,
    UnknownObject,
)
from mountnsd.garbage import Collector
from mountnsd.interface import MANAGER, NAMESPACE, OBJECT_MANAGER, PEER, PROPERTIES
from mountnsd.lying import in_bus
from mountnsd.methods import Methods
from mountnsd.named import Listener, Namespace
from mountnsd.plan import Answer, Entry, Plan, Request
from mountnsd.quota import Quota
from mountnsd.registry import Registry
from mountnsd.running import Starter
from mountnsd.standard import Standard
from mountnsd.turns import Turns
from mountnsd.unread import MAX_BYTES_PER_USER, MAX_DESCRIPTORS_PER_USER, Unread

log = logging.getLogger(__name__)

BUS_NAME = "org.mountnsd1"
# Methods that do something.  The others only answer, and who wants no answer wants nothing.
ACTING = frozenset({"Create", "Destroy", "Enter", "Mount", "Unmount"})
_NO_ROOM = "mountnsd has no descriptor or memory left for this; try again later."
_FAULT = "mountnsd has a fault; its log says more ('journalctl -u mountnsd')."
_COUNT_DELAY = 0.1  # seconds, for which changes of Count are gathered


class Service:
    """Serves one registry on one bus.

    Arguments: starter: what starts the processes of Enter; directories: where namespaces are declared.
    """

    def __init__(
        self, bus: Bus, registry: Registry, starter: Starter, directories: Sequence[Path] = ()
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._callers = Callers(bus)
        self._authority = Authority(bus)
        self._interfaces = interface.load_all()
        self._standard = Standard(registry, self._interfaces)
        methods = Methods(registry, directories)
        self._starter = starter
        self._turns = Turns()
        self.entering = Entering(bus, registry, methods, starter, self._turns)
        self._table: dict[tuple[str, str], Entry] = {
            **self._standard.entries(),
            **methods.entries(),
            **self.entering.entries(),
        }
        self._quota = Quota()
        self._unread_bytes = Unread(MAX_BYTES_PER_USER)
        self._unread_descriptors = Unread(MAX_DESCRIPTORS_PER_USER, partial(in_bus, bus))
        bus.left = self._left
        self._tasks: set[asyncio.Task[None]] = set()
        self._chores: set[asyncio.Task[None]] = set()
        self._count_timer: asyncio.TimerHandle | None = None
        self._garbage = Collector()
        self.last_call = asyncio.get_running_loop().time()
        self.called = asyncio.Event()  # for who waits for the next call
        registry.listener = Listener(
            self._added, self._removed, self._changed, self.entering.entering, self.entering.ending
        )

    def start(self) -> None:
        """Take calls."""
        self._bus.handler = self._begin
        self._garbage.collect_later()

    @property
    def busy(self) -> bool:
        """Whether a call is being answered, or a process that was entered has not ended."""
        return bool(self._tasks or self.entering.running)

    async def close(self) -> None:
        """Answer what is open with an error, and take no more calls."""
        self._bus.handler = self._refuse
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.entering.close()
        for chore in list(self._chores):
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self._starter.close()
        if self._count_timer is not None:
            self._count_timer.cancel()
        self._garbage.close()
        self._registry.listener = Listener()

    # Calls

    def _begin(self, call: Call) -> None:
        self.last_call = asyncio.get_running_loop().time()
        self.called.set()
        self._garbage.collect()
        if call.frame.flags & frames.NO_REPLY_EXPECTED and call.member not in ACTING:
            call.fds.close()
            return
        caller = self._callers.known(call.sender)
        if caller is not None:
            try:
                self._quota.open(caller.uid, len(call.fds))
            except LimitsExceeded as error:  # at once, and for little: he may have sent thousands
                call.fds.close()
                self._bus.error(call, error)
                return
        task = asyncio.ensure_future(self._serve(call, caller))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse(self, call: Call) -> None:
        call.fds.close()
        self._bus.error(call, Failed("mountnsd is stopping; call again."))

    async def _serve(self, call: Call, counted: Caller | None) -> None:
        """Answer one call, whatever happens, and close what came with it.

        Arguments: counted: who calls; None where that is not known yet, and so he was not counted.
        """
        descriptors = len(call.fds)  # of which the process that they are for takes some out
        try:
            if counted is None:
                caller = await self._callers.identify(call.sender)
                self._quota.open(caller.uid, descriptors)
                counted = caller
            await self._turns.run(counted.uid, self._answer(call, counted))
        except Error as error:
            self._bus.error(call, error)
        except (CallerVanished, Disconnected):
            pass  # nobody is there to be answered
        except asyncio.CancelledError:
            self._bus.error(call, Failed("mountnsd is stopping; call again."))
            raise
        except Exception as error:  # nothing of it may reach the caller
            what = f"{names.shown(call.interface)}.{names.shown(call.member)}"
            if _is_exhaustion(error):
                log.error("No room for %s: %s", what, error)
                self._bus.error(call, LimitsExceeded(_NO_ROOM))
            else:
                log.exception("A fault in %s", what)
                self._bus.error(call, Failed(_FAULT))
        finally:
            call.fds.close()
            if counted is not None:
                self._quota.close(counted.uid, descriptors)

    async def _answer(self, call: Call, caller: Caller) -> None:
        """Find what a call is to, have it allowed, and answer it with what it gets."""
        found = self._object(call)
        name = self._interface(call, found)
        entry = self._table.get((name, call.member))
        method = self._interfaces[name].methods.get(call.member)
        if entry is None or method is None:  # not in the table: refused, whatever the XML says
            raise UnknownMethod(f"{name} has no method {names.shown(call.member)}; see 'busctl introspect'.")
        if call.signature != method.takes:
            raise InvalidArgs(
                f"{call.member} takes the signature '{method.takes}', not {names.shown(call.signature)}."
            )
        call.decode()
        plan = entry.prepare(Request(call, caller, found))
        if not isinstance(plan, Plan):
            plan = await plan
        answer = await self._allowed(entry, plan, call, caller, gives_descriptor="h" in method.gives)
        call.frame.forget()  # the answer may have to wait
        call.body.clear()
        try:
            size = await self._bus.reply(call, method.gives, answer.body, answer.fds)
            self._unread_bytes.add(caller.uid, caller.name, size)
            self._unread_descriptors.add(caller.uid, caller.name, len(answer.fds))
            if not self._turns.waiting:  # else with what the others send
                self._bus.flush()
        finally:
            if "h" in method.gives:
                self._unread_descriptors.expect_no_more(caller.uid)
            answer.told()

    async def _allowed(
        self, entry: Entry, plan: Plan, call: Call, caller: Caller, gives_descriptor: bool = False
    ) -> Answer:
        """Run a plan once its action is allowed, and the caller has not too much unread."""
        if entry.actions:
            action = plan.action or entry.actions[0]
            if action not in entry.actions:
                raise AccessDenied(f"{call.member} is not guarded by {action}.")
            asked = await self._authority.check(caller, action, plan.details, call.interactive)
            if asked and plan.again is not None:
                await plan.again()
        await self._unread_bytes.room(caller.uid)
        if not gives_descriptor:
            return await plan.run()
        await self._unread_descriptors.room(caller.uid)
        self._unread_descriptors.expect(caller.uid)
        try:
            return await plan.run()
        except BaseException:
            self._unread_descriptors.expect_no_more(caller.uid)
            raise

    def _left(self, name: str) -> None:
        """A connection has left the bus."""
        self._unread_bytes.left(name)
        self._unread_descriptors.left(name)

    def _object(self, call: Call) -> Namespace | None:
        """The namespace whose object a call is to; None for the other objects.

        Raises: UnknownObject, NoSuchNamespace.
        """
        path = call.path
        name = names.from_path(path)
        if name is not None:
            found = self._registry.find(name)
            if found is None and call.interface != PEER:
                raise UnknownObject(NoSuchNamespace(name).message)
            return found
        if call.interface != PEER and not self._standard.interfaces_at(path, None):
            raise UnknownObject(f"There is no object {names.shown(path)}; see 'busctl tree {BUS_NAME}'.")
        return None

    def _interface(self, call: Call, found: Namespace | None) -> str:
        """The interface that a call is to; it may leave it out where the member says enough.

        Raises: UnknownInterface, UnknownMethod.
        """
        if call.interface == PEER:
            return PEER  # answered at every path, as the reference implementation does
        served = self._standard.interfaces_at(call.path, found)
        if call.interface:
            if call.interface in served:
                return call.interface
            raise UnknownInterface(
                f"{call.path} has no interface {names.shown(call.interface)}; it has {', '.join(served)}."
            )
        for name in served:
            if call.member in self._interfaces[name].methods:
                return name
        raise UnknownMethod(f"{call.path} has no method {names.shown(call.member)}; see 'busctl introspect'.")

    # Signals

    def _added(self, found: Namespace) -> None:
        path = names.to_path(found.name)
        self._bus.signal(names.ROOT_PATH, MANAGER, "NamespaceNew", "so", found.name, path)
        added = {NAMESPACE: self._standard.namespace_properties(found)}
        self._bus.signal(names.ROOT_PATH, OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", path, added)
        self._count_changed()

    def _removed(self, found: Namespace) -> None:
        path = names.to_path(found.name)
        self._bus.signal(names.ROOT_PATH, MANAGER, "NamespaceRemoved", "so", found.name, path)
        self._bus.signal(names.ROOT_PATH, OBJECT_MANAGER, "InterfacesRemoved", "oas", path, [NAMESPACE])
        self._count_changed()
        chore = asyncio.ensure_future(self._tell_starter(found.name))
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _tell_starter(self, name: str) -> None:
        """Nobody waits for it, so nobody else would hear of a fault."""
        try:
            await self._starter.namespace_gone(name)
        except (CallError, Disconnected) as error:
            log.warning("The units of namespace %s are left as they are: %s", name, error)
        except Exception:
            log.exception("The units of namespace %s could not be looked after", name)

    def _changed(self, found: Namespace) -> None:
        changed = self._standard.namespace_properties(found, ("State",))
        self._properties_changed(names.to_path(found.name), NAMESPACE, changed)

    def limits_changed(self) -> None:
        """Tell everybody of limits that were configured anew."""
        changed = self._standard.manager_properties(("MaxNamespaces",))
        self._properties_changed(names.ROOT_PATH, MANAGER, changed)

    def _count_changed(self) -> None:
        if self._count_timer is None:
            loop = asyncio.get_running_loop()
            self._count_timer = loop.call_later(_COUNT_DELAY, self._tell_count)

    def _tell_count(self) -> None:
        self._count_timer = None
        changed = self._standard.manager_properties(("Count",))
        self._properties_changed(names.ROOT_PATH, MANAGER, changed)

    def _properties_changed(self, path: str, owner: str, changed: dict[str, Any]) -> None:
        self._bus.signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", owner, changed, [])


def _is_exhaustion(error: Exception) -> bool:
    """Whether it is no fault of ours that something has run out."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
