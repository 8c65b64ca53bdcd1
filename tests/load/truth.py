# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon says, against the kernel and the files: while no call is under way."""

import asyncio
import os
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from support import leaks
from support.client import MANAGER, NAMESPACE, PATH, PROPERTIES
from support.contract import INTROSPECTABLE, OBJECT_MANAGER, path_of

from .connection import Connection
from .model import Found
from .world import World

_FAULTS = ("A fault in", "Traceback", "could not be taken", "never retrieved", "could not be looked after")


async def check(world: World, observer: Connection, seconds: float = 20.0) -> None:
    """Hold everything that must be true; what is not after some time, in which processes end, is a complaint."""
    deadline = asyncio.get_running_loop().time() + seconds
    world.tally.checks += 1
    while True:
        world.forget_ended()
        wrong = await _look(world, observer)
        if not wrong or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.1)
    for what in wrong:
        world.complain(what)


async def found(observer: Connection) -> dict[str, Found]:
    """All namespaces, as GetManagedObjects has them."""
    (objects,) = await observer.call(PATH, OBJECT_MANAGER, "GetManagedObjects")
    there = {}
    for interfaces in objects.values():
        values = {key: variant[1] for key, variant in interfaces[NAMESPACE].items()}
        there[values["Name"]] = Found(values["Inode"], values["NamespaceID"], values["OwnerUID"])
    return there


async def _look(world: World, observer: Connection) -> list[str]:
    (rows,) = await observer.call(PATH, MANAGER, "List")
    objects = await found(observer)
    (text,) = await observer.call(f"{PATH}/namespace", INTROSPECTABLE, "Introspect")
    ((_, count),) = await observer.call(PATH, PROPERTIES, "Get", "ss", MANAGER, "Count")
    listed = {row[0]: row[2] for row in rows}
    pins = pinned(world)
    wrong = []
    if listed != pins:
        wrong.append(f"List and mountinfo differ: {sorted(listed.items() ^ pins.items())}")
    if {name: one.inode for name, one in objects.items()} != pins:
        wrong.append("GetManagedObjects and mountinfo differ")
    children = {
        f"{PATH}/namespace/{node.attrib['name']}" for node in ET.fromstring(text).iter("node") if node.attrib
    }
    if children != {path_of(name) for name in pins}:
        wrong.append("Introspect and mountinfo differ")
    if count != len(pins):
        wrong.append(f"Count is {count}, and there are {len(pins)}")
    wrong += _files(world, set(pins))
    inside = _processes()
    differing = {row[0]: (row[4], inside[row[2]]) for row in rows if row[4] != inside[row[2]]}
    if differing:
        wrong.append(f"processes inside, as List has them and as /proc has them: {differing}")
    wrong += world.model.compare(objects)
    wrong += strays(world)
    return wrong + faults(world)


def pinned(world: World) -> dict[str, int]:
    """Name and inode of each pin, by mountinfo."""
    below = leaks.mounts_below(world.daemon.pins)
    return {Path(one.point).name: int(one.root[5:-1]) for one in below if one.fstype == "nsfs"}


def _files(world: World, names: set[str]) -> list[str]:
    """Files beside those that must be there."""
    wrong = []
    if set(os.listdir(world.daemon.pins)) != names:
        wrong.append("the files in the holder are not those of the pins")
    metadata = set(os.listdir(world.daemon.runtime / "meta"))
    expected = {f"{name}.json" for name in names}
    if metadata != expected:
        wrong.append(f"metadata and pins differ: {sorted(metadata ^ expected)}")
    return wrong


def _processes() -> Counter[int]:
    inside: Counter[int] = Counter()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (inode := _namespace_of(int(entry))):
            inside[inode] += 1
    return inside


def _namespace_of(pid: int) -> int:
    """The inode of a process's mount namespace, 0 where it has ended."""
    try:
        return int(os.readlink(f"/proc/{pid}/ns/mnt")[5:-1])
    except OSError:
        return 0


def in_lost_namespaces(world: World) -> dict[int, int]:
    """Processes of the run in mount namespaces that have no name (any more), and the inodes of these."""
    known = {*pinned(world).values(), _namespace_of(os.getpid()), 0}
    bus = {world.daemon.bus.pid, *leaks.descendants(world.daemon.bus.pid)}
    spaces = {pid: _namespace_of(pid) for pid in leaks.descendants() if pid not in bus}
    return {pid: inode for pid, inode in spaces.items() if inode not in known}


def strays(world: World) -> list[str]:
    """Processes that were to end: their namespace is gone, and nobody said that they may stay."""
    lost = {pid for pid, inode in in_lost_namespaces(world).items() if inode not in world.model.lazy}
    return [f"process {leaks.describe(pid)} is in a namespace that is gone" for pid in sorted(lost)]


def faults(world: World) -> list[str]:
    """Faults of the daemon's own, by its log."""
    lines = world.daemon.log().splitlines()
    return [f"the log says: {line}" for line in lines if any(fault in line for fault in _FAULTS)][:5]
