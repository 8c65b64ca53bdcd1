# SPDX-License-Identifier: LGPL-2.1-or-later
"""The namespaces: their names, owners, limits and lives.

The kernel is the truth: what is in the holder exists, and metadata only adds
to it.  Out of scope: D-Bus, and who may do what.
"""

import asyncio
import errno
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from mountnsd import helper, mountinfo, names, namespace, processes, syscalls
from mountnsd import mounts as mounts_inside
from mountnsd.errors import (
    Error,
    Failed,
    LimitsExceeded,
    MountFailed,
    NamespaceBusy,
    NamespaceExists,
    NamespaceStale,
    NoSuchNamespace,
)
from mountnsd.events import Event, tell
from mountnsd.holder import Holder, Pin, Survey, close_host
from mountnsd.metadata import Metadata, MetadataStore
from mountnsd.mountrequest import MountRequest
from mountnsd.mounts import Change
from mountnsd.named import Limits, Listener, Namespace, State
from mountnsd.options import CreateOptions, DestroyOptions
from mountnsd.processes import Process
from mountnsd.roster import Roster

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reservation:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Registry:
    """The namespaces of one runtime directory.  `recover` first."""

    def __init__(self, holder: Holder, metadata: MetadataStore, limits: Limits) -> None:
        self.holder = holder
        self.limits = limits
        self.listener = Listener()
        self.host = holder.host()
        self._metadata = metadata
        self._namespaces = Roster()
        self._generations = count()
        self._making: Counter[int] = Counter()  # creations under way, by owner
        self._reservations: dict[str, _Reservation] = {}
        self._look_again = False
        self._names_again: set[str] = set()
        self._recovered = False
        holder.follow()
        self._watch = holder.watch()

    def close(self) -> None:
        """Close what is open; the namespaces stay."""
        self._watch.close()
        close_host(self.host)
        self.holder.close()
        self._metadata.close()

    # Looking

    def __len__(self) -> int:
        return len(self._namespaces)

    def __contains__(self, name: str) -> bool:
        """Whether there is one of that name by what was seen last."""
        return name in self._namespaces

    def get(self, name: str) -> Namespace:
        """As `find`.  Raises NoSuchNamespace, InvalidArgs."""
        found = self.find(name)
        if found is None:
            raise NoSuchNamespace(names.check(name))
        return found

    def find(self, name: str) -> Namespace | None:
        """The namespace of that name, looking again first where the mounts have changed."""
        self.refresh()
        return self._namespaces.get(name)

    def all(self) -> list[Namespace]:
        """All namespaces by name, looking again first where the mounts have changed."""
        self.refresh()
        return self._namespaces.all()

    def with_inode(self, inode: int) -> Namespace | None:
        self.refresh()
        return self._namespaces.with_inode(inode)

    def processes(self, found: Namespace) -> list[Process]:
        return processes.inside(found.inode)

    def open(self, found: Namespace) -> int:
        """A descriptor of the namespace, which the caller closes.

        Raises: NamespaceStale where the pin no longer leads to it; NoSuchNamespace where it was replaced or
            destroyed since `found` was looked up.
        """
        self._check_current(found)
        try:
            return self.holder.open(found.name, found.inode)
        except NamespaceStale:
            self.refresh(always=True)
            self._check_current(found)
            raise

    def _check_current(self, found: Namespace) -> None:
        """Raises NoSuchNamespace unless the name still stands for the namespace that the caller was allowed."""
        now = self._namespaces.get(found.name)
        if now is None or now.key != found.key:
            raise NoSuchNamespace(found.name)

    # Making

    async def create(
        self, name: str, owner: int, options: CreateOptions, source: Namespace | None = None
    ) -> tuple[Namespace, bool]:
        """Make a namespace, or with `if_not_exists` find the one that is there.

        Arguments: name: see names.check; owner: uid; options: checked; source: the very namespace that the
            option `from` was allowed for, else what bears its name now.
        Returns: the namespace and whether it is new.
        Raises: NamespaceExists, NoSuchNamespace (of `from`), NamespaceStale, LimitsExceeded, MountFailed, Failed.
        """
        names.check(name)
        if name in self._namespaces or self.holder.occupied(name):
            self.refresh(again=name)  # it may have been unpinned, or pinned, by hand
        async with self._reserved(name):
            existing = self._namespaces.get(name)
            if existing is not None:
                if options.if_not_exists:
                    return existing, False
                raise NamespaceExists(name)
            self._check_limits(owner)
            self._making[owner] += 1
            try:
                return await self._create(name, owner, options, source), True
            finally:
                self._making[owner] -= 1

    def _check_limits(self, owner: int) -> None:
        if len(self._namespaces) + self._making.total() >= self.limits.namespaces:
            raise LimitsExceeded(
                f"There are {self.limits.namespaces} namespaces, as many as there may be; "
                "destroy one, or raise max_namespaces in mountnsd.toml."
            )
        if owner == 0:
            return
        own = self._namespaces.owned(owner) + self._making[owner]
        if own >= self.limits.per_owner:
            raise LimitsExceeded(
                f"The user {owner} has {own} namespaces, as many as one may have; "
                "destroy one, or raise max_namespaces_per_user in mountnsd.toml."
            )

    async def _create(
        self, name: str, owner: int, options: CreateOptions, source: Namespace | None
    ) -> Namespace:
        trouble = self.holder.trouble()
        if trouble == "unmounted":
            self.refresh(always=True)  # sets it up again
            trouble = self.holder.trouble()
        if trouble is not None:
            raise Failed(
                f"The holder {self.holder.path} is {trouble}, so no namespace can be kept; "
                f"unmount what covers it ('{self.holder.place.uncover()}')."
            )
        host, propagation = self.host, options.propagation
        if options.source is None:
            fd = await helper.run(lambda: namespace.make(host, propagation), discard=syscalls.close)
        else:
            copied = self.open(source or self.get(options.source))
            fd = await helper.run(
                lambda: namespace.make(host, propagation, copied),
                discard=syscalls.close,
                always=lambda: syscalls.close(copied),
                lane="copy",  # what is inside there may hang a look; the others need not wait for that
            )
        try:
            if options.mounts:  # before it has its name: what fails leaves nothing
                inside = os.dup(fd)
                work = partial(mounts_inside.mount_all, inside, options.mounts)
                await helper.run(work, always=partial(syscalls.close, inside), lane="declared")
            return self._keep(name, fd, owner, options)
        finally:
            syscalls.close(fd)

    def _keep(self, name: str, fd: int, owner: int, options: CreateOptions) -> Namespace:
        """Write, pin, make valid: in this order, so that a crash leaves what recovery can tell apart."""
        pinned = False
        try:
            inode = os.fstat(fd).st_ino
            metadata = Metadata(
                inode=inode,
                id=syscalls.mntns_id(fd),
                owner=owner,
                created_usec=max(time.time_ns() // 1000, 0),
                propagation=options.propagation.value,
                description=options.description,
                labels=options.labels,
            )
            self._metadata.prepare(name, metadata)
            self.holder.pin(name, fd)
            pinned = True
            self._metadata.commit(name)
        except (OSError, MountFailed) as error:
            if pinned:
                self.holder.unpin(name, inode)
            self._metadata.discard(name)
            if isinstance(error, MountFailed):
                raise
            raise MountFailed(
                f"Cannot keep the namespace '{name}'", "write its metadata", error.errno or errno.EIO
            ) from error
        made = self._namespace(Pin(name, inode), metadata)
        self._namespaces.add(made)
        self.listener.added(made)
        return made

    # Ending

    async def destroy(self, found: Namespace, options: DestroyOptions) -> list[int]:
        """Drop a name, and with it the namespace unless somebody is inside or holds it open.

        Returns: the pids that were inside.
        Raises: NamespaceBusy, NamespaceStale, NoSuchNamespace, MountFailed.
        """
        async with self._reserved(found.name):
            self._check_current(found)
            inside = processes.inside(found.inode, threads=True)
            if options.kill:
                async with self.listener.ending(found):
                    await processes.end(found.inode)
                    left = processes.inside(found.inode, threads=True)
                    if left:
                        raise NamespaceBusy(_busy(found.name, left, "could not be ended"))
                    self._drop(found)
            elif inside and not options.lazy:
                raise NamespaceBusy(_busy(found.name, inside, "are inside"))
            elif self.listener.entering(found) and not options.lazy:
                raise NamespaceBusy(
                    f"Namespace '{found.name}' is busy: somebody is just entering. Try again."
                )
            else:
                self._drop(found)
            return [process.pid for process in inside]

    def _drop(self, found: Namespace) -> None:
        """Raises NamespaceStale, NoSuchNamespace, MountFailed."""
        self._check_current(found)
        if self.holder.unpin(found.name, found.inode):
            log.info(
                "The pin of namespace %s was held open: the namespace ends when that is closed", found.name
            )
        self._metadata.remove(found.name)
        self._forget(found)

    def _forget(self, found: Namespace) -> None:
        self._namespaces.remove(found)
        self.listener.removed(found)

    # Recovering and noticing

    def recover(self) -> None:
        """Take in what is in the holder, undo creations that were cut short, drop metadata of what is gone.

        Raises: Failed where another daemon keeps the same runtime directory; MountFailed, OSError where something
            cannot be undone or read: nothing of it is taken in then, and the next start tries again.
        """
        self._metadata.lock()
        unfinished = self._metadata.prepared()
        for pin in self.holder.survey().pins if unfinished else ():
            prepared = self._metadata.read_prepared(pin.name) if pin.name in unfinished else None
            if prepared is not None and prepared.inode == pin.inode:  # not one that root made by hand
                said = "The creation of namespace %s was cut short: undone"
                tell(Event.UNDONE, pin.name, pin.inode, said, pin.name)
                with suppress(NamespaceStale):
                    self.holder.unpin(pin.name, pin.inode)
        for name in unfinished:
            self._metadata.discard(name)
        self.refresh(always=True)
        for name in self._metadata.names() - {*self._namespaces}:
            log.warning("Namespace %s is gone: its metadata is dropped", name, extra={"mountns_name": name})
            self._metadata.remove(name)
        self._recovered = True

    def refresh(self, always: bool = False, again: str | None = None) -> None:
        """Take in what changed behind our back, if the mounts of the host have changed at all since last time.

        Arguments: always: look at everything, whether or not; again: a name to look at, whether or not.
        """
        self._metadata.tidy()
        if again is not None:
            self._names_again.add(again)
        if not (self._watch.changed() or self._look_again or self._names_again or always):
            return
        whole, self._look_again = self._look_again or always, True  # a change is told of only once
        if self.holder.trouble() == "unmounted":
            self._replace_holder()
            whole = True
        survey = (None if whole else self.holder.changes(self._names_again)) or self.holder.survey()
        self._names_again = set()
        self._look_again = False  # what follows may ask for another look
        try:
            self._take_in(survey)
        except BaseException:
            self._look_again = True
            raise

    def _take_in(self, survey: Survey) -> None:
        seen = {pin.name: (pin, State.ACTIVE) for pin in survey.pins}
        seen |= {pin.name: (pin, State.STALE) for pin in survey.covered}
        about = [*self._namespaces] if survey.about is None else survey.about
        for found in [found for name in about if (found := self._namespaces.get(name)) is not None]:
            pin, state = seen.get(found.name, (None, State.STALE))
            if pin is None or pin.inode != found.inode:
                self._lose(found)
            elif state is not found.state:
                self._namespaces.replace(changed := replace(found, state=state))
                event = Event.UNCOVERED if state is State.ACTIVE else Event.COVERED
                tell(event, found.name, found.inode, "Namespace %s is %s", found.name, state.value)
                self.listener.changed(changed)
        for pin, state in seen.values():
            if pin.name not in self._namespaces:
                self._adopt(pin, state)
        for name in survey.leftovers:
            if name not in self._reservations:
                try:
                    self.holder.remove_leftover(name)
                    log.warning("Removed what was left of the namespace %s: a file without a pin", name)
                except OSError as error:
                    log.warning("What is left of the namespace %s stays for now: %s", name, error.strerror)
                    self._names_again.add(name)

    def _replace_holder(self) -> None:
        path = self.holder.path
        log.error("The holder %s was unmounted by somebody: set up again, its namespaces are lost", path)
        lost, self.holder = self.holder, self.holder.again()
        self.holder.follow()
        unwatched, self._watch = self._watch, self.holder.watch()
        unwatched.close()
        lost.close()  # it would keep the namespaces that are pinned there, out of sight
        self.host = self.holder.host(self.host.proc)  # /proc stays open: a helper thread may be using it

    def _lose(self, found: Namespace) -> None:
        if found.name in self._reservations:  # we are at it ourselves
            self._names_again.add(found.name)
            return
        tell(Event.LOST, found.name, found.inode, "Namespace %s was unpinned by somebody else", found.name)
        self._metadata.remove(found.name)
        self._forget(found)

    def _adopt(self, pin: Pin, state: State) -> None:
        """Take in a pin that is there: ours from before, or one that root made by hand."""
        if pin.name in self._reservations:
            self._names_again.add(pin.name)
            return
        found = self._namespace(pin, self._metadata_of(pin, state), state)
        self._namespaces.add(found)
        if self._recovered:  # at the start, how many there are is said
            tell(Event.FOUND, found.name, found.inode, "Namespace %s was pinned by somebody else", found.name)
        self.listener.added(found)

    def _metadata_of(self, pin: Pin, state: State) -> Metadata:
        """The metadata of a pin if it is about this very namespace, else next to nothing: root is the owner."""
        number = self.holder.id_of(pin) if state is State.ACTIVE else 0
        metadata = self._metadata.read(pin.name)
        if metadata is not None and metadata.inode == pin.inode and number in (0, metadata.id):
            return metadata
        log.warning("Namespace %s has no metadata: root is its owner", pin.name)
        return Metadata(inode=pin.inode, id=number)

    def _namespace(self, pin: Pin, metadata: Metadata, state: State = State.ACTIVE) -> Namespace:
        return Namespace.described(pin, self.holder.place.pins, metadata, next(self._generations), state)

    @asynccontextmanager
    async def _reserved(self, name: str) -> AsyncIterator[None]:
        """One creation or destruction of a name at a time."""
        reservation = self._reservations.setdefault(name, _Reservation())
        reservation.users += 1
        try:
            async with reservation.lock:
                yield
        finally:
            reservation.users -= 1
            if not reservation.users:
                del self._reservations[name]
                if self._look_again or self._names_again:  # somebody had a hand in it meanwhile
                    with suppress(Error, OSError):
                        self.refresh()

    # Mounts inside

    async def mounts(self, found: Namespace) -> list[mountinfo.Mount]:
        """The mounts inside.  Raises NamespaceStale, NoSuchNamespace, MountFailed."""
        return await self._inside(found, lambda fd: mounts_inside.read(self.host, fd))

    async def changes(self, found: Namespace) -> list[Change]:
        """What differs from the host's mounts.  Raises as `mounts`."""
        here = mountinfo.parse(mountinfo.read())
        return mounts_inside.changes(here, await self.mounts(found), self.holder.path)

    async def mount(self, found: Namespace, request: MountRequest) -> None:
        """Mount inside.  Raises NamespaceStale, NoSuchNamespace, MountFailed."""
        await self._inside(found, lambda fd: mounts_inside.mount(fd, request))

    async def unmount(self, found: Namespace, where: str, lazy: bool) -> None:
        """Unmount inside.  Raises NamespaceStale, NoSuchNamespace, MountFailed."""
        await self._inside(found, lambda fd: mounts_inside.unmount(fd, where, lazy))

    async def _inside(self, found: Namespace, work: Callable[[int], helper.T]) -> helper.T:
        fd = self.open(found)
        return await helper.run(lambda: work(fd), always=lambda: syscalls.close(fd), lane="inside")


def _busy(name: str, inside: list[Process], what: str) -> str:
    shown = ", ".join(f"{process.pid} ({names.escaped(process.command)})" for process in inside[:10])
    more = f" and {len(inside) - 10} more" if len(inside) > 10 else ""
    return (
        f"Namespace '{name}' is busy: {len(inside)} processes {what}: {shown}{more}. "
        f"End them ('mountnsctl busy {name}' shows all that keeps it), pass the option kill to have them ended, "
        "or lazy to drop the name while they stay."
    )
