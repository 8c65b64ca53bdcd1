# SPDX-License-Identifier: LGPL-2.1-or-later
"""The methods of org.mountnsd1.Manager and org.mountnsd1.Namespace, but for Enter (entering.py).

A method of the manager takes the name that the same method of a namespace's
object already has: both share one function here.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mountnsd import declaration, helper, mountrequest, mounts, names, options, processes
from mountnsd.authority import Action
from mountnsd.bus import Variant
from mountnsd.callers import Caller
from mountnsd.declaration import Declaration
from mountnsd.errors import Error, Failed, InvalidArgs, NamespaceExists, NoNamespaceForPID
from mountnsd.events import Event, tell
from mountnsd.interface import MANAGER, NAMESPACE
from mountnsd.named import Namespace
from mountnsd.plan import Answer, Entry, Plan, Request
from mountnsd.registry import Registry


def plain_options(given: dict[str, Variant]) -> dict[str, tuple[str, object]]:
    """An a{sv} as option checking takes it: the signature and the value of each."""
    return {key: (variant.signature, variant.value) for key, variant in given.items()}


def details_of(found: Namespace) -> dict[str, str]:
    """What polkit's rules are told of the namespace a call is about."""
    return {"name": found.name, "owner": str(found.owner)}


class Methods:
    """The methods, over one registry.

    Arguments: directories: where namespaces are declared, the first that has a name counts.
    """

    def __init__(self, registry: Registry, directories: Sequence[Path] = ()) -> None:
        self._registry = registry
        self._directories = directories

    def entries(self) -> dict[tuple[str, str], Entry]:
        """This part of the dispatch table: by interface and member."""
        return {
            (MANAGER, "Create"): Entry((Action.CREATE,), self._create),
            (MANAGER, "Open"): Entry((Action.OPEN,), self._open),
            (MANAGER, "Destroy"): Entry((Action.DESTROY,), self._destroy),
            (MANAGER, "List"): Entry((Action.LIST,), self._list),
            (MANAGER, "GetNamespace"): Entry((Action.LIST,), self._get_namespace),
            (MANAGER, "GetNamespaceByPID"): Entry((Action.LIST,), self._get_namespace_by_pid),
            (NAMESPACE, "Open"): Entry((Action.OPEN,), self._open),
            (NAMESPACE, "Destroy"): Entry((Action.DESTROY,), self._destroy),
            (NAMESPACE, "GetProcesses"): Entry((Action.LIST,), self._get_processes),
            (NAMESPACE, "GetMounts"): Entry((Action.LIST,), self._get_mounts),
            (NAMESPACE, "GetChanges"): Entry((Action.LIST,), self._get_changes),
            (NAMESPACE, "Mount"): Entry((Action.MOUNT,), self._mount),
            (NAMESPACE, "Unmount"): Entry((Action.MOUNT,), self._unmount),
        }

    def subject(self, request: Request) -> tuple[Namespace, list[object]]:
        """The namespace that a call is about, and the arguments that follow its name.

        Raises: NoSuchNamespace, InvalidArgs.
        """
        if request.namespace is not None:
            return request.namespace, request.arguments
        name, *rest = request.arguments
        return self._registry.get(names.check(name)), rest

    async def _create(self, request: Request) -> Plan:
        name, given = request.arguments
        names.check(name)
        chosen = options.create(plain_options(given))
        declared = await self._declared(name)
        if declared is not None:
            return self._create_declared(name, declared, given, request.caller)
        source = None if chosen.source is None else self._registry.get(chosen.source)

        async def run() -> Answer:
            made, new = await self._registry.create(name, request.caller.uid, chosen, source)
            return _created(made, new, request.caller)

        details = {"name": name, "owner": str(request.caller.uid), "propagation": chosen.propagation.value}
        if source is not None:
            details["from"] = source.name
        return Plan(run, details, again=partial(self._still, name, None))

    def _create_declared(
        self, name: str, declared: Declaration | Error, given: dict[str, Variant], caller: Caller
    ) -> Plan:
        """Create of a name that is declared.  It is root's, whoever has it made: nobody can take the name before."""
        settled = sorted(given.keys() - {"if_not_exists"})
        if settled and isinstance(declared, Declaration):
            raise InvalidArgs(
                f"The namespace '{name}' is declared in {declared.file}, and that settles {', '.join(settled)}: "
                "create it without that, or one under another name."
            )
        details = {"name": name, "owner": "0", "declared": "yes"}
        if isinstance(declared, Declaration):
            details["propagation"] = declared.options.propagation.value

        async def run() -> Answer:
            if isinstance(declared, Error):  # only now: what a file says is not for everybody
                raise declared
            chosen = replace(
                declared.options, if_not_exists="if_not_exists" in given and given["if_not_exists"].value
            )
            made, new = await self._registry.create(name, 0, chosen)
            if made.owner != 0:
                raise NamespaceExists(
                    name,
                    f"it belongs to the user {made.owner} and is not the one that {declared.file} declares. "
                    "Destroy it, and create it again.",
                )
            return _created(made, new, caller)

        return Plan(run, details, again=partial(self._still, name, declared))

    async def _still(self, name: str, declared: Declaration | Error | None) -> None:
        """Raises Failed unless a name is declared as it was, or still is not."""
        if isinstance(declared, Error):
            return  # which is said, whatever it is by now
        if await self._declared(name) != declared:
            raise Failed(
                f"The declaration of '{name}' was changed while it was asked whether you may; call again."
            )

    async def _declared(self, name: str) -> Declaration | Error | None:
        """The declaration of a name, or why it cannot be used; None where it is not declared."""
        if declaration.is_surely_none(name, self._directories):
            return None
        try:
            work = partial(declaration.load, name, self._directories)
            return await helper.run(work, lane="declaration")
        except Error as error:
            return error

    def _open(self, request: Request) -> Plan:
        found, _ = self.subject(request)

        async def run() -> Answer:
            return Answer([0], [self._registry.open(found)])

        return Plan(run, details_of(found))

    def _destroy(self, request: Request) -> Plan:
        found, (given,) = self.subject(request)
        chosen = options.destroy(plain_options(given))  # type: ignore[arg-type]

        async def run() -> Answer:
            inside = await self._registry.destroy(found, chosen)
            return Answer([inside], told=partial(_tell_destroyed, found, request.caller, len(inside)))

        return Plan(run, details_of(found) | _asked_for(kill=chosen.kill, lazy=chosen.lazy))

    def _list(self, request: Request) -> Plan:  # noqa: ARG002 - takes no argument
        async def run() -> Answer:
            inside = await helper.run(processes.count, lane="processes")
            rows = [
                [found.name, names.to_path(found.name), found.inode, found.owner, inside[found.inode]]
                for found in self._registry.all()
            ]
            return Answer([rows])

        return Plan(run)

    def _get_namespace(self, request: Request) -> Plan:
        found, _ = self.subject(request)

        async def run() -> Answer:
            return Answer([names.to_path(found.name)])

        return Plan(run, details_of(found))

    def _get_namespace_by_pid(self, request: Request) -> Plan:
        (given,) = request.arguments
        pid = given or request.caller.pid
        if not 0 < pid < 1 << 31:
            raise InvalidArgs(f"{given} is no process id.")

        async def run() -> Answer:
            inode = processes.namespace_of_living(pid)
            found = None if inode is None else self._registry.with_inode(inode)
            if found is None:
                why = "is not running" if inode is None else "is in none of the namespaces kept here"
                raise NoNamespaceForPID(f"The process {pid} {why}; see 'lsns -p {pid}'.")
            return Answer([names.to_path(found.name)])

        return Plan(run)

    def _get_processes(self, request: Request) -> Plan:
        found, _ = self.subject(request)

        async def run() -> Answer:
            inside = await helper.run(lambda: self._registry.processes(found), lane="processes")
            return Answer([[[process.pid, process.uid, process.command] for process in inside]])

        return Plan(run, details_of(found))

    def _get_mounts(self, request: Request) -> Plan:
        found, _ = self.subject(request)

        async def run() -> Answer:
            rows = [
                [
                    mount.id,
                    mount.parent,
                    mount.device,
                    _text(mount.root),
                    _text(mount.target),
                    _text(mounts.all_options(mount)),
                    _text(mount.fstype),
                    _text(mount.source),
                ]
                for mount in await self._registry.mounts(found)
            ]
            return Answer([rows])

        return Plan(run, details_of(found))

    def _get_changes(self, request: Request) -> Plan:
        found, _ = self.subject(request)

        async def run() -> Answer:
            rows = [
                [
                    change.kind,
                    _text(change.mount.target),
                    _text(change.mount.fstype),
                    _text(change.mount.source),
                    _text(change.mount.root),
                    _text(mounts.all_options(change.mount)),
                ]
                for change in await self._registry.changes(found)
            ]
            return Answer([rows])

        return Plan(run, details_of(found))

    def _mount(self, request: Request) -> Plan:
        found, arguments = self.subject(request)
        what = mountrequest.check(*arguments)  # type: ignore[arg-type]
        if request.caller.uid:
            mountrequest.check_for_user(what, str(arguments[3]))
        shown = (what.what, what.where, *arguments[2:])
        changed = dict(zip(("what", "where", "type", "options"), map(_detail, shown), strict=True))

        async def run() -> Answer:
            await self._registry.mount(found, what)
            tell(
                Event.MOUNTED,
                found.name,
                found.inode,
                "Mounted in namespace %s by uid %d: %s at %s",
                found.name,
                request.caller.uid,
                changed["what"] or changed["type"],
                changed["where"],
                **{f"mountns_{key}": value for key, value in changed.items()},
                **request.caller.fields(),
            )
            return Answer()

        return Plan(run, details_of(found) | changed)

    def _unmount(self, request: Request) -> Plan:
        found, (where, given) = self.subject(request)
        assert isinstance(where, str)  # noqa: S101 - the signature says so
        target = mountrequest.check_target(where)
        if request.caller.uid:
            mountrequest.check_shown("where", target)
        chosen = options.unmount(plain_options(given))  # type: ignore[arg-type]

        async def run() -> Answer:
            await self._registry.unmount(found, target, chosen.lazy)
            tell(
                Event.UNMOUNTED,
                found.name,
                found.inode,
                "Unmounted in namespace %s by uid %d: %s",
                found.name,
                request.caller.uid,
                _detail(target),
                mountns_where=_detail(target),
                **request.caller.fields(),
            )
            return Answer()

        return Plan(run, details_of(found) | {"where": _detail(target)} | _asked_for(lazy=chosen.lazy))


def _asked_for(**options: bool) -> dict[str, str]:
    """Options that rules may want to know of, as details: `yes` for what is asked for, and nothing for the rest."""
    return {name: "yes" for name, wanted in options.items() if wanted}


def _created(made: Namespace, new: bool, caller: Caller) -> Answer:
    body = [names.to_path(made.name)]
    return Answer(body, told=partial(_tell_created, made, caller)) if new else Answer(body)


def _tell_created(made: Namespace, caller: Caller) -> None:
    tell(
        Event.CREATED,
        made.name,
        made.inode,
        "Namespace %s is created by uid %d: mnt:[%d], owner %d",
        made.name,
        caller.uid,
        made.inode,
        made.owner,
        mountns_owner=made.owner,
        **caller.fields(),
    )


def _tell_destroyed(found: Namespace, caller: Caller, inside: int) -> None:
    tell(
        Event.DESTROYED,
        found.name,
        found.inode,
        "Namespace %s is destroyed by uid %d: mnt:[%d]%s",
        found.name,
        caller.uid,
        found.inode,
        f", with {inside} processes inside" if inside else "",
        **caller.fields(),
    )


def _detail(text: object) -> str:
    """An argument as polkit's rules and questions are given it."""
    return names.escaped(str(text), mountrequest.MAX_SHOWN)


def _text(text: str) -> str:
    """Text from the kernel as a D-Bus string: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(text).decode("utf-8", "replace")
