# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is mounted in the holder, kept as mounts come and go.

To read and compare all mounts costs more the more there are, and each
operation of ours changes them.  So where the kernel tells of single mounts
(Linux 6.15), only those are looked at; else all are read, and only the lines
of mountinfo that changed are.  Both come to the same.

Out of scope: whether a mount is what it looks like (holder.py).
Sources: fanotify(7), statmount(2), proc_pid_mountinfo(5).
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, KeysView
from dataclasses import dataclass
from typing import Protocol

from mountnsd import mountevents, mountinfo, syscalls
from mountnsd.mountevents import Event, Events, Told

_NSFS_ROOT = re.compile(r"mnt:\[([0-9]{1,19})\]", re.ASCII)


Seen = Told | mountinfo.Mount  # a mount in the holder, or on a mount in it


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed.

    Attributes: gone: ids of mounts that are not where they were; come: mounts that are there now; moved: ids of those
    of `come` that may have brought along what is mounted on them.
    """

    gone: Collection[int]
    come: Collection[Seen]
    moved: Collection[int]


class Source(Protocol):
    """Where the word of the kernel comes from."""

    holder: int  # the id of the holder's mount

    def fileno(self) -> int:
        """What is readable while there are changes that were not taken, or -1."""

    def target(self) -> str:
        """Where the holder is mounted.  Raises OSError."""

    def all(self) -> Iterable[Seen]:
        """All mounts in the holder, and what is mounted on those; changes before this are not told of any more.

        They may be looked at one by one, as they are taken.  Raises OSError, then as well.
        """

    def changes(self) -> Changes | None:
        """What changed since last time; None where only `all` can tell.  Raises OSError."""

    def close(self) -> None:
        """Give up what is open."""


class ByEvents:
    """The kernel tells of each mount."""

    def __init__(self, namespace: int, directory: int) -> None:
        """Arguments: namespace, directory: descriptors of the mount namespace and of the holder, borrowed.

        Raises: OSError: this kernel does not, or not us.
        """
        self.holder = mountevents.id_of(directory)
        self._namespace = syscalls.mntns_id(namespace)
        self._events = Events(namespace)
        try:
            self.target()  # else what a sandbox refuses would be found out too late
            self._below()
        except BaseException:
            self._events.close()
            raise

    def fileno(self) -> int:
        return self._events.fileno()

    def target(self) -> str:
        told = mountevents.look(self.holder, self._namespace)
        return "" if told is None else told.target

    def all(self) -> Iterable[Seen]:
        self._events.take()
        return self._look(self._below())

    def _below(self) -> list[int]:
        try:
            return mountevents.below(self.holder, self._namespace)
        except FileNotFoundError:  # somebody unmounted it
            return []

    def _look(self, mounts: Iterable[int]) -> Iterator[Seen]:
        told = (mountevents.look(mount, self._namespace) for mount in mounts)
        return (one for one in told if one is not None)

    def changes(self) -> Changes | None:
        events = self._events.take()
        if events is None or self.holder in events:
            return None
        come = tuple(self._look(mount for mount, event in events.items() if event is not Event.WENT))
        return Changes(
            events.keys(), come, {mount for mount, event in events.items() if event is Event.MOVED}
        )

    def close(self) -> None:
        self._events.close()


class ByReading:
    """All of mountinfo is read, each time."""

    def __init__(self, holder: int, read: Callable[[], str]) -> None:
        """Arguments: holder: the id of its mount; read: gives the mountinfo of its mount namespace."""
        self.holder = holder
        self._read = read
        self._lines: frozenset[str] = frozenset()
        self._target = ""

    def fileno(self) -> int:
        return -1

    def target(self) -> str:
        return self._target

    def all(self) -> Iterable[Seen]:
        lines = self._read().split("\n")
        # Most lines on a host with thousands of mounts concern us, or none does: look before parsing.
        heads = [line.split(" ", 2)[:2] for line in lines]
        own = str(self.holder)
        inside = {head[0] for head in heads if head[-1] == own and len(head) == 2}
        self._lines = frozenset(lines)
        self._target = ""
        found = []
        for head, line in zip(heads, lines, strict=True):
            if head[-1] == own or head[-1] in inside:
                found += _seen((line,))
            elif head[0] == own:
                self._target = "".join(seen.target for seen in _seen((line,)))
        return found

    def changes(self) -> Changes | None:
        before, self._lines = self._lines, frozenset(self._read().split("\n"))
        gone = {seen.id: seen for seen in _seen(before - self._lines)}
        come = _seen(self._lines - before)
        moved = {seen.id for seen in come if seen.id in gone and _is_same(seen, gone[seen.id])}
        return None if self.holder in gone else Changes(gone.keys(), come, moved)

    def close(self) -> None:
        self._lines = frozenset()


def _is_same(one: Seen, other: Seen) -> bool:
    """Whether this can be the same mount: the id of one that is gone is soon used for another one."""
    return (one.root, one.fstype) == (other.root, other.fstype)


def _seen(lines: Iterable[str]) -> list[Seen]:
    return [mount for mount in map(mountinfo.parse_line, lines) if mount is not None]


class Inventory:
    """The mounts directly in the holder, by name.  No object is kept for each, beyond names and numbers."""

    def __init__(self, source: Source) -> None:
        """Arguments: source: which this owns from now on."""
        self._source = source
        self._entries: dict[
            int, tuple[str, int | None]
        ] = {}  # name and inode by id; None: no mount namespace
        self._names: dict[str, int] = {}
        self._above: dict[int, set[int]] = {}  # what is mounted on an entry, where anything is
        self._on: dict[int, int] = {}  # the same, from there
        self._unheard: set[int] = set()  # those that are not believed yet: few, but for a moment
        self._prefix = ""

    def fileno(self) -> int:
        """What is readable while there are changes that were not taken in, or -1."""
        return self._source.fileno()

    def close(self) -> None:
        self._source.close()

    def names(self) -> KeysView[str]:
        """The names that something is mounted on."""
        return self._names.keys()

    def inode(self, name: str) -> int | None:
        """The inode of the mount namespace that is mounted there; None where it is none, or nothing is there."""
        return self._entries[self._names[name]][1] if name in self._names else None

    def is_covered(self, name: str) -> bool:
        """Whether something is mounted on what is mounted there."""
        return self._names.get(name, -1) in self._above

    def is_believed(self, name: str) -> bool:
        """Whether `believe` was called since that mount is there."""
        return name in self._names and self._names[name] not in self._unheard

    def believe(self, name: str) -> None:
        """The other witnesses were heard."""
        self._unheard.discard(self._names[name])
        if not self._unheard:
            self._unheard = set()  # one that has had thousands would stay as large

    def fill(self) -> None:
        """Look at everything.  Raises OSError."""
        known, self._entries, self._names, self._above, self._on = self._entries, {}, {}, {}, {}
        unheard, self._unheard = self._unheard, set()
        seen = self._source.all()
        self._prefix = self._source.target().rstrip("/") + "/"
        others = []
        for one in seen:
            if one.parent == self._source.holder:
                self._add(one)
            else:
                others.append(one)
        heard = (
            one for one, entry in known.items() if one not in unheard and self._entries.get(one) == entry
        )
        self._unheard.difference_update(heard)
        for one in others:
            self._put_on(one)

    def update(self) -> set[str] | None:
        """Take in what changed.

        Returns: the names that this was about, or None where `fill` has to be called.
        Raises: OSError; `fill` has to be called, too.
        """
        changes = self._source.changes()
        if changes is None:
            return None
        touched: set[str] = set()
        for number in changes.gone:
            self._remove(number, touched)
        for seen in changes.come:
            if seen.parent == self._source.holder:
                name = None if seen.id in changes.moved else self._add(seen)
                if name is None:
                    return None
                touched.add(name)
        for seen in changes.come:
            if seen.parent in self._entries:
                if seen.parent in self._above:  # one of the two may lie on the other now
                    return None
                self._put_on(seen)
                touched.add(self._entries[seen.parent][0])
        return touched

    def _add(self, seen: Seen) -> str | None:
        """Take in a mount in the holder; None where another one has its name: it may lie beneath that now."""
        name = seen.target.removeprefix(self._prefix)
        if name in self._names or not seen.target.startswith(self._prefix):
            return None
        match = _NSFS_ROOT.fullmatch(seen.root) if seen.fstype == "nsfs" else None
        self._entries[seen.id] = name, int(match[1]) if match else None
        self._names[name] = seen.id
        self._unheard.add(seen.id)
        return name

    def _put_on(self, seen: Seen) -> None:
        if seen.parent in self._entries:
            self._above.setdefault(seen.parent, set()).add(seen.id)
            self._on[seen.id] = seen.parent
            self._unheard.add(seen.parent)

    def _remove(self, number: int, touched: set[str]) -> None:
        if number in self._entries:
            name, _ = self._entries.pop(number)
            del self._names[name]
            touched.add(name)
            for above in self._above.pop(number, ()):
                self._on.pop(above, None)
            self._unheard.discard(number)
        below = self._on.pop(number, None)
        if below is not None:
            self._above[below].discard(number)
            if not self._above[below]:
                del self._above[below]
            touched.add(self._entries[below][0])
