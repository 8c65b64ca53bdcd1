# SPDX-License-Identifier: LGPL-2.1-or-later
"""The standard interfaces: Peer, Introspectable, Properties, ObjectManager.

Source: D-Bus specification, "Standard Interfaces".
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mountnsd
from mountnsd import interface, names
from mountnsd.authority import Action
from mountnsd.bus import Variant, marshal
from mountnsd.errors import Failed, PropertyReadOnly, UnknownInterface, UnknownProperty
from mountnsd.interface import INTROSPECTABLE, MANAGER, NAMESPACE, OBJECT_MANAGER, PEER, PROPERTIES, Interface
from mountnsd.named import Namespace
from mountnsd.plan import Answer, Entry, Plan, Request
from mountnsd.ready import Ready, element
from mountnsd.registry import Registry

FEATURES = ("declared", "enter", "from", "mounts", "propagation")
_AT_ONCE = 64  # objects that are marshalled before somebody else has a turn
_KEPT = 60.0  # seconds, for which what was marshalled of objects is kept: it takes as much again as all else of them
_COMMON = (PEER, INTROSPECTABLE, PROPERTIES)
_MACHINE_ID = ("/etc/machine-id", "/var/lib/dbus/machine-id")

_MANAGER_PROPERTIES: Mapping[str, Callable[[Registry], Any]] = {
    "Version": lambda _: mountnsd.__version__,
    "Holder": lambda registry: registry.holder.path,
    "Features": lambda registry: sorted((*FEATURES, *registry.holder.features)),
    "Count": len,
    "MaxNamespaces": lambda registry: registry.limits.namespaces,
}
_NAMESPACE_PROPERTIES: Mapping[str, Callable[[Namespace], Any]] = {
    "Name": lambda found: found.name,
    "Path": lambda found: found.path,
    "Inode": lambda found: found.inode,
    "NamespaceID": lambda found: found.id,
    "OwnerUID": lambda found: found.owner,
    "CreatedUSec": lambda found: found.created_usec,
    "Propagation": lambda found: found.propagation,
    "Description": lambda found: found.description,
    "Labels": lambda found: found.labels,
    "State": lambda found: found.state.value,
}


class Standard:
    """The standard interfaces of every object."""

    def __init__(self, registry: Registry, interfaces: dict[str, Interface]) -> None:
        self._registry = registry
        self._interfaces = interfaces
        self._objects: dict[str, tuple[Namespace, bytes]] = {}  # by name: an entry of GetManagedObjects
        self._forgetting: asyncio.TimerHandle | None = None

    def entries(self) -> dict[tuple[str, str], Entry]:
        """This part of the dispatch table."""
        return {
            (PEER, "Ping"): Entry((), self._ping),
            (PEER, "GetMachineId"): Entry((), self._get_machine_id),
            (INTROSPECTABLE, "Introspect"): Entry((Action.LIST,), self._introspect),
            (PROPERTIES, "Get"): Entry((Action.LIST,), self._get),
            (PROPERTIES, "GetAll"): Entry((Action.LIST,), self._get_all),
            (PROPERTIES, "Set"): Entry((Action.LIST,), self._set),
            (OBJECT_MANAGER, "GetManagedObjects"): Entry((Action.LIST,), self._get_managed_objects),
        }

    def interfaces_at(self, path: str, found: Namespace | None) -> tuple[str, ...]:
        """The interfaces of the object at a path; empty where there is none."""
        if found is not None:
            return (*_COMMON, NAMESPACE)
        if path == names.ROOT_PATH:
            return (*_COMMON, OBJECT_MANAGER, MANAGER)
        if path == "/" or names.NAMESPACE_PREFIX.startswith(path + "/"):
            return (PEER, INTROSPECTABLE)
        return ()

    def namespace_properties(self, found: Namespace, only: tuple[str, ...] = ()) -> dict[str, Variant]:
        """The properties of a namespace's object, as an a{sv}."""
        types = self._interfaces[NAMESPACE].properties
        return {
            name: Variant(types[name], read(found))
            for name, read in _NAMESPACE_PROPERTIES.items()
            if not only or name in only
        }

    def manager_properties(self, only: tuple[str, ...] = ()) -> dict[str, Variant]:
        """The properties of the manager, as an a{sv}."""
        types = self._interfaces[MANAGER].properties
        return {
            name: Variant(types[name], read(self._registry))
            for name, read in _MANAGER_PROPERTIES.items()
            if not only or name in only
        }

    def _ping(self, request: Request) -> Plan:  # noqa: ARG002 - takes no argument
        return Plan(_answer([]))

    def _get_machine_id(self, request: Request) -> Plan:  # noqa: ARG002 - takes no argument
        for path in _MACHINE_ID:
            try:
                return Plan(_answer([Path(path).read_text("ascii").strip()]))
            except (OSError, ValueError):
                continue
        raise Failed("This machine has no id; see systemd-machine-id-setup(1).")

    def _introspect(self, request: Request) -> Plan:
        path = request.call.path

        async def run() -> Answer:
            served = [self._interfaces[name] for name in self.interfaces_at(path, request.namespace)]
            return Answer([interface.node(served, self._children(path))])

        return Plan(run)

    def _children(self, path: str) -> list[str]:
        if path + "/" == names.NAMESPACE_PREFIX:
            return [names.to_path(found.name).removeprefix(path + "/") for found in self._registry.all()]
        rest = names.NAMESPACE_PREFIX.removeprefix("/" if path == "/" else path + "/")
        return [rest.split("/", 1)[0]] if rest != names.NAMESPACE_PREFIX else []

    def _own(self, request: Request, name: str) -> Interface:
        """The interface of an object that a call to Properties names.  Raises UnknownInterface."""
        served = self.interfaces_at(request.call.path, request.namespace)
        if name not in served:
            raise UnknownInterface(
                f"{request.call.path} has no interface {names.shown(name)}; it has {', '.join(served)}."
            )
        return self._interfaces[name]

    def _values(self, request: Request, owner: Interface, only: tuple[str, ...] = ()) -> dict[str, Variant]:
        if owner.name == MANAGER:
            self._registry.refresh()
            return self.manager_properties(only)
        if owner.name == NAMESPACE and request.namespace is not None:
            return self.namespace_properties(request.namespace, only)
        return {}

    def _get(self, request: Request) -> Plan:
        name, key = request.arguments
        owner = self._own_property(request, name, key)
        return Plan(_later(lambda: [self._values(request, owner, (key,))[key]]), _name_of(request))

    def _own_property(self, request: Request, name: str, key: str) -> Interface:
        """The interface that has the property; an empty interface name means any.  Raises UnknownProperty."""
        served = self.interfaces_at(request.call.path, request.namespace)
        candidates = [self._own(request, name)] if name else [self._interfaces[one] for one in served]
        for owner in candidates:
            if key in owner.properties:
                return owner
        raise UnknownProperty(f"There is no property {names.shown(key)} at {request.call.path}.")

    def _get_all(self, request: Request) -> Plan:
        (name,) = request.arguments
        served = self.interfaces_at(request.call.path, request.namespace)
        owners = [self._own(request, name)] if name else [self._interfaces[one] for one in served]

        def values() -> list[Any]:
            merged: dict[str, Variant] = {}
            for owner in owners:
                merged |= self._values(request, owner)
            return [merged]

        return Plan(_later(values), _name_of(request))

    def _set(self, request: Request) -> Plan:
        name, key, _ = request.arguments
        self._own_property(request, name, key)
        raise PropertyReadOnly(f"The property {key} cannot be set.")

    def _get_managed_objects(self, request: Request) -> Plan:  # noqa: ARG002 - takes no argument
        """What was marshalled of a namespace is kept: it never changes, and another state is another `Namespace`."""

        async def run() -> Answer:
            self._forget_later()
            there = self._registry.all()
            self._objects = {found.name: kept for found in there if (kept := self._kept(found)) is not None}
            for number, found in enumerate(there):
                self._object(found)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            return Answer(Ready(lambda: map(self._object, self._registry.all())))

        return Plan(run)

    def _forget_later(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(_KEPT, self._objects_forgotten)

    def _objects_forgotten(self) -> None:
        self._forgetting = None
        self._objects = {}

    def _kept(self, found: Namespace) -> tuple[Namespace, bytes] | None:
        kept = self._objects.get(found.name)
        return kept if kept is not None and kept[0] is found else None

    def _object(self, found: Namespace) -> bytes:
        """The entry of GetManagedObjects for a namespace."""
        kept = self._kept(found)
        if kept is None:
            entry = {names.to_path(found.name): {NAMESPACE: self.namespace_properties(found)}}
            kept = found, element(marshal("a{oa{sa{sv}}}", entry))
            self._objects[found.name] = kept
        return kept[1]


def _answer(body: list[Any]) -> Callable[[], Any]:
    return _later(lambda: body)


def _later(body: Callable[[], list[Any]]) -> Callable[[], Any]:
    async def run() -> Answer:
        return Answer(body())

    return run


def _name_of(request: Request) -> dict[str, str]:
    return {} if request.namespace is None else {"name": request.namespace.name}
