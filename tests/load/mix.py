# SPDX-License-Identifier: LGPL-2.1-or-later
"""What callers do: every method there is, with what each answer must be."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from support import contract
from support.client import MANAGER, NAMESPACE, PATH, PROPERTIES
from support.contract import CLD_EXITED, INTROSPECTABLE, OBJECT_MANAGER, PEER, path_of

from .caller import GONE, NOTHING, SHARED, Caller, Lost, Refused
from .model import Fate, Known
from .tally import Method

Deed = Callable[[Caller], Awaitable[None]]

_MOST_RESIDENTS = 2  # of one caller
_STAYS = ("sleep", "900")


# Create and Destroy


async def _create(caller: Caller) -> None:
    if caller.random.random() < 0.15:
        await _create_shared(caller)
        return
    known = caller.mine(Fate.ABSENT, Fate.UNKNOWN)
    options: dict[str, tuple[str, Any]] = {}
    if caller.random.random() < 0.3:
        options["propagation"] = ("s", caller.random.choice(("slave", "private", "unchanged")))
    if caller.random.random() < 0.3:
        options["description"] = ("s", "one of many")
        options["labels"] = ("a{ss}", {"load": str(caller.random.randrange(100))})
    if caller.random.random() < 0.3:
        options["if_not_exists"] = ("b", True)
    there = [one for one in caller.own if one.fate is Fate.PRESENT and one is not known]
    if there and caller.random.random() < 0.2:
        options["from"] = ("s", caller.random.choice(there).name)
        options.pop("propagation", None)
    await _create_own(caller, known, options)


async def _create_own(caller: Caller, known: Known, options: dict[str, tuple[str, Any]]) -> None:
    before, world = known.fate, caller.world
    anew = "if_not_exists" not in options
    may = frozenset({contract.EXISTS}) if anew and before is not Fate.ABSENT else NOTHING
    try:
        await caller.ask((MANAGER, "Create"), PATH, "sa{sv}", known.name, options, may=may)
    except Lost as lost:
        if lost.reached and before is Fate.ABSENT:
            known.fate = Fate.UNKNOWN
        raise
    except Refused as refused:
        if refused.name == contract.EXISTS and before is Fate.UNKNOWN:
            known.fate = Fate.PRESENT
        raise
    if before is Fate.PRESENT:
        if anew:
            world.complain(f"{known.name} was created though it was there")
        return
    try:
        inode = os.stat(world.pin(known.name)).st_ino
    except OSError as error:
        world.complain(f"{known.name} was acknowledged, and has no pin: {error}")
        return
    world.model.created(known, inode)


async def _create_shared(caller: Caller) -> None:
    name = caller.random.choice(SHARED)
    may = frozenset({contract.EXISTS})
    await caller.ask((MANAGER, "Create"), PATH, "sa{sv}", name, {}, may=may)


async def _destroy(method: Method, caller: Caller) -> None:
    if caller.random.random() < 0.15:
        kill = {"kill": ("b", True)} if caller.random.random() < 0.5 else {}
        may = GONE | {contract.BUSY}
        await caller.about(method, caller.random.choice(SHARED), "a{sv}", kill, may=may)
        return
    known = caller.mine(Fate.PRESENT, Fate.UNKNOWN)
    how = caller.random.choice(("", "kill", "kill", "lazy"))
    if how == "lazy":
        if not known.inode:  # whether it is there is not known: nobody could say later who may stay
            return
        caller.world.model.lazy.add(known.inode)
    await _destroy_own(method, caller, known, how)


async def _destroy_own(method: Method, caller: Caller, known: Known, how: str) -> None:
    before, world = known.fate, caller.world
    inside = [one for one in world.residents if one.inode == known.inode]
    may = (NOTHING if before is Fate.PRESENT else GONE) | (NOTHING if how else {contract.BUSY})
    try:
        await caller.about(method, known.name, "a{sv}", {how: ("b", True)} if how else {}, may=may)
    except Lost as lost:
        if lost.reached and before is Fate.PRESENT:
            known.fate = Fate.UNKNOWN
        raise
    except Refused as refused:
        if refused.name in GONE and before is Fate.UNKNOWN:
            world.model.destroyed(known)
        raise
    if before is Fate.ABSENT:
        world.complain(f"{known.name} was destroyed though it was not there")
    if world.has_pin(known.name):
        world.complain(f"{known.name} was destroyed, and its pin is there")
    if how == "kill" and before is Fate.PRESENT:
        left = [one.pid for one in inside if one in world.residents and not one.ended]
        if left:
            world.complain(f"{known.name} was cleared, and {left} live on")
    world.model.destroyed(known)


# Enter, and who is inside


async def _enter(method: Method, caller: Caller) -> None:
    name, may = caller.any_name()
    own = may is NOTHING
    if not own:  # others may be clearing it
        may |= {contract.BUSY, contract.ENTER_FAILED}
    life = caller.world.life if caller.world.up else -1
    options: dict[str, tuple[str, Any]] = {}
    if caller.random.random() < 0.2:
        options["env"] = ("a{ss}", {"LOAD": "heavy"})
    if caller.random.random() < 0.2:
        options["cwd"] = ("s", "/")
    dice = caller.random.random()
    caller.residents = [one for one in caller.residents if one in caller.world.residents]
    if dice < 0.1:
        may |= {contract.ENTER_FAILED}
        await caller.about(method, name, "asa{uh}a{sv}", ["/no/such/program"], {}, options, may=may)
        caller.world.complain("a program that is not there was entered")
    elif dice < 0.4 and len(caller.residents) < _MOST_RESIDENTS:
        leaves = caller.random.random() < 0.5
        options["kill_on_disconnect"] = ("b", leaves)
        pid, pidfd = await caller.about(method, name, "asa{uh}a{sv}", list(_STAYS), {}, options, may=may)
        caller.keep(pid, pidfd, name, life, leaves)
    else:
        await _pass_through(method, caller, name, own, life, options, may)


async def _pass_through(
    method: Method,
    caller: Caller,
    name: str,
    own: bool,
    life: int,
    options: dict[str, tuple[str, Any]],
    may: frozenset[str],
) -> None:
    """Run a command to its end, with a descriptor or with what the daemon gives for one."""
    argv = caller.random.choice((["true"], ["sleep", "0.05"], ["echo", "said under load"]))
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        fds = {1: sink, 2: sink} if caller.random.random() < 0.7 else {}
        pid, pidfd = await caller.about(method, name, "asa{uh}a{sv}", argv, fds, options, may=may)
    finally:
        os.close(sink)
    pidfd.close()
    how = await caller.ended(pid, life)
    if how is not None and own and how != (CLD_EXITED, 0):
        caller.world.complain(f"{argv} in {name} ended with {how}")


async def _get_processes(caller: Caller) -> None:
    name, may = caller.any_name()
    await caller.about((NAMESPACE, "GetProcesses"), name, "", may=may)


async def _get_namespace_by_pid(caller: Caller) -> None:
    may = frozenset({contract.NO_NAMESPACE_FOR_PID})
    residents = [one for one in caller.residents if one in caller.world.residents]
    resident = caller.random.choice(residents) if residents and caller.random.random() < 0.8 else None
    pid = 0 if resident is None else resident.pid
    method = (MANAGER, "GetNamespaceByPID")
    (path,) = await caller.ask(method, PATH, "u", pid, may=may)
    if resident is None or path != path_of(resident.name):
        caller.world.complain(f"{path} was said of a process that is in {resident and resident.name}")


# Looking


async def _open(method: Method, caller: Caller) -> None:
    name, may = caller.any_name()
    known = caller.world.model.names.get(name)
    (fd,) = await caller.about(method, name, "", may=may)
    with fd.to_file("rb", buffering=0) as file:
        inode = os.fstat(file.fileno()).st_ino
    if may is NOTHING and known is not None and known.inode not in (0, inode):
        caller.world.complain(f"Open of {name} gave mnt:[{inode}], not mnt:[{known.inode}]")


async def _list(caller: Caller) -> None:
    (rows,) = await caller.ask((MANAGER, "List"), PATH, "")
    inodes = {row[0]: row[2] for row in rows}
    for known in caller.own:
        if known.fate is Fate.PRESENT and inodes.get(known.name) is None:
            caller.world.complain(f"List lacks {known.name}")
        if known.fate is Fate.PRESENT and known.inode not in (0, inodes.get(known.name)):
            caller.world.complain(f"List has another {known.name}")
        if known.fate is Fate.ABSENT and known.name in inodes:
            caller.world.complain(f"List has {known.name}, which was destroyed")


async def _get_namespace(caller: Caller) -> None:
    name, may = caller.any_name()
    (path,) = await caller.about((MANAGER, "GetNamespace"), name, "", may=may)
    if path != path_of(name):
        caller.world.complain(f"GetNamespace of {name} gave {path}")


async def _get_mounts(caller: Caller) -> None:
    name, may = caller.any_name()
    await caller.about((NAMESPACE, "GetMounts"), name, "", may=may)


async def _get_changes(caller: Caller) -> None:
    name, may = caller.any_name()
    await caller.about((NAMESPACE, "GetChanges"), name, "", may=may)


async def _introspect(caller: Caller) -> None:
    name, may = caller.any_name()
    path = caller.random.choice(("/", PATH, f"{PATH}/namespace", path_of(name)))
    await caller.ask((INTROSPECTABLE, "Introspect"), path, "", may=may)


async def _get_managed_objects(caller: Caller) -> None:
    (objects,) = await caller.ask((OBJECT_MANAGER, "GetManagedObjects"), PATH, "")
    for known in caller.own:
        if known.fate is Fate.PRESENT and path_of(known.name) not in objects:
            caller.world.complain(f"GetManagedObjects lacks {known.name}")


async def _ping(caller: Caller) -> None:
    await caller.ask((PEER, "Ping"), PATH, "")


async def _get_machine_id(caller: Caller) -> None:
    await caller.ask((PEER, "GetMachineId"), PATH, "", may=frozenset({contract.FAILED}))


# Properties


async def _get(caller: Caller) -> None:
    key = caller.random.choice(("Version", "Count", "MaxNamespaces", "NoSuchProperty"))
    may = frozenset({contract.UNKNOWN_PROPERTY}) if key == "NoSuchProperty" else NOTHING
    await caller.ask((PROPERTIES, "Get"), PATH, "ss", MANAGER, key, may=may)


async def _get_all(caller: Caller) -> None:
    known = caller.mine(Fate.PRESENT)
    may = NOTHING if known.fate is Fate.PRESENT else GONE
    (values,) = await caller.ask((PROPERTIES, "GetAll"), path_of(known.name), "s", NAMESPACE, may=may)
    if known.fate is not Fate.PRESENT:
        return
    inode, number = values["Inode"][1], values["NamespaceID"][1]
    if known.inode not in (0, inode) or known.id not in (0, number):
        caller.world.complain(f"the object of {known.name} is another namespace's")
    known.inode, known.id = inode, number


async def _set(caller: Caller) -> None:
    may = frozenset({contract.READ_ONLY if caller.uid == 0 else contract.DENIED})
    await caller.ask((PROPERTIES, "Set"), PATH, "ssv", MANAGER, "MaxNamespaces", ("u", 1), may=may)
    caller.world.complain("a property was set")


# Mounts inside


async def _mount(caller: Caller) -> None:
    name, may = caller.any_name()
    where = "/mnt" if caller.random.random() < 0.8 else "/no/such/place"
    if where != "/mnt" or may is not NOTHING:
        may |= {contract.MOUNT_FAILED}
    await caller.about(
        (NAMESPACE, "Mount"), name, "ssss", "tmpfs", where, "tmpfs", "size=64k,mode=755", may=may
    )


async def _unmount(caller: Caller) -> None:
    name, may = caller.any_name()
    options = {"lazy": ("b", True)} if caller.random.random() < 0.5 else {}
    may |= {contract.MOUNT_FAILED}  # nothing may be mounted there
    await caller.about((NAMESPACE, "Unmount"), name, "sa{sv}", "/mnt", options, may=may)


# Each method with how often it is called, against the others.
MIX: dict[Method, tuple[int, Deed]] = {
    (MANAGER, "Create"): (12, _create),
    (MANAGER, "Destroy"): (4, partial(_destroy, (MANAGER, "Destroy"))),
    (NAMESPACE, "Destroy"): (4, partial(_destroy, (NAMESPACE, "Destroy"))),
    (MANAGER, "Enter"): (4, partial(_enter, (MANAGER, "Enter"))),
    (NAMESPACE, "Enter"): (4, partial(_enter, (NAMESPACE, "Enter"))),
    (MANAGER, "Open"): (4, partial(_open, (MANAGER, "Open"))),
    (NAMESPACE, "Open"): (4, partial(_open, (NAMESPACE, "Open"))),
    (MANAGER, "List"): (6, _list),
    (MANAGER, "GetNamespace"): (4, _get_namespace),
    (MANAGER, "GetNamespaceByPID"): (4, _get_namespace_by_pid),
    (NAMESPACE, "GetProcesses"): (4, _get_processes),
    (NAMESPACE, "GetMounts"): (4, _get_mounts),
    (NAMESPACE, "GetChanges"): (4, _get_changes),
    (NAMESPACE, "Mount"): (4, _mount),
    (NAMESPACE, "Unmount"): (4, _unmount),
    (PEER, "Ping"): (3, _ping),
    (PEER, "GetMachineId"): (2, _get_machine_id),
    (INTROSPECTABLE, "Introspect"): (3, _introspect),
    (PROPERTIES, "Get"): (3, _get),
    (PROPERTIES, "GetAll"): (4, _get_all),
    (PROPERTIES, "Set"): (1, _set),
    (OBJECT_MANAGER, "GetManagedObjects"): (1, _get_managed_objects),
}
HANG_UP = 0.01  # how often a caller leaves the bus instead, and comes back
