# SPDX-License-Identifier: LGPL-2.1-or-later
"""The holder mount and its pins.

The holder is a small tmpfs, private and unbindable; a pin is an empty file in
it with a mount namespace (nsfs) bound over it.  It lies on a private bind of
its own directory, so that it never travels to another mount namespace.  Every
operation on pins is here, and reaches them through one descriptor of the
holder, so that neither a symlink nor a mount over the path can lead it
elsewhere.

Out of scope: what the namespaces are for, and who owns them (registry.py).
Sources: mount_namespaces(7), open_tree(2), move_mount(2), umount2(2),
proc_pid_mountinfo(5).
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from mountnsd import anchor, foundation, names, syscalls
from mountnsd.directorywatch import DirectoryWatch
from mountnsd.errors import MountFailed, NamespaceStale
from mountnsd.inventory import ByEvents, ByReading, Inventory
from mountnsd.namespace import Host
from mountnsd.place import Place, T
from mountnsd.watch import Watch
from mountnsd.witness import open_pin

log = logging.getLogger(__name__)

HIDDEN = "hidden-holder"  # the feature: a pin's path leads through a descriptor of the daemon
_CREATE = "create the pin's file"
_HINTS = {
    (errno.EEXIST, _CREATE): "Something lies there that is no namespace of ours; see '{findmnt}'.",
    (errno.ENOSPC, _CREATE): "The holder is full; see '{df}'.",
    (errno.ENOSPC, "move_mount"): "The mount namespace is full; see 'sysctl fs.mount-max'.",
}


@dataclass(frozen=True, slots=True)
class Pin:
    """A name and the inode of the namespace that is bound there; its 64-bit id, where that was just looked at."""

    name: str
    inode: int
    id: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies in the holder.

    pins: those that all witnesses agree on; covered: pins that something else is mounted over;
    leftovers: names of plain files, which creations that were cut short left; about: the names that were looked at,
    None for all.
    """

    pins: tuple[Pin, ...]
    covered: tuple[Pin, ...]
    leftovers: tuple[str, ...]
    about: frozenset[str] | None = None


class Holder:
    """The holder of one runtime directory.  `Holder.ensure` makes or finds it."""

    def __init__(self, runtime_directory: str, place: Place, hide: bool) -> None:
        self.runtime_directory = runtime_directory
        self.place = place
        self.path = place.path
        self._fd = place.directory
        self._hide = hide
        self._device = os.fstat(self._fd).st_dev
        self._inventory = Inventory(ByReading(place.mount_id, place.mountinfo))
        self._names: DirectoryWatch | None = None  # None: all names are read, each time
        self._again: set[str] = set()  # to be looked at though nothing may be told of them, see `changes`
        self._reported: set[str] = set()

    @classmethod
    def ensure(cls, runtime_directory: str, hide: bool = False) -> Self:
        """Find the holder below `runtime_directory`, or set it up; once, however many start at once.

        Arguments: hide: set it up out of sight (anchor.py), unless one that has pins is there already.
        Raises: Failed where the directory is not root's own or something else is mounted over the holder;
            MountFailed, OSError.
        """
        runtime_directory = os.path.realpath(runtime_directory)  # as mountinfo will spell it
        try:
            return cls(runtime_directory, anchor.settle(foundation.found(runtime_directory), hide), hide)
        except OSError as error:
            raise MountFailed(
                f"Cannot set up the holder below {runtime_directory}",
                error.strerror or "",
                error.errno or errno.EIO,
            ) from error

    @property
    def features(self) -> tuple[str, ...]:
        """What clients have to know of it."""
        return (HIDDEN,) if self.place.hidden else ()

    def again(self) -> Self:
        """The holder as it is to be found or set up now that this one was lost.  Raises as `ensure`."""
        return self.ensure(self.runtime_directory, self._hide)

    def close(self) -> None:
        """Close what is open; the holder and its pins stay."""
        self._inventory.close()
        if self._names is not None:
            self._names.close()
        self.place.close()

    def follow(self) -> None:
        """Have the kernel tell of changes one by one from now on, where it can; else everything is read, each time.

        To be called once, before the first survey.  Raises OSError.
        """
        namespace = self.place.open_namespace()
        try:
            self._names = DirectoryWatch(self._fd)
            self._inventory = Inventory(ByEvents(namespace, self._fd))
        except OSError as error:
            log.debug("All mounts are read after each change of one: %s", error)
        finally:
            syscalls.close(namespace)

    def host(self, proc: int | None = None) -> Host:
        """What namespace.make needs to know of the host.  The caller closes it with `close_host`.

        Arguments: proc: descriptor of /proc, or None to open it.
        """
        if proc is None:
            proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return Host(proc=proc, holder=self.path, device=self.place.device, id=self.place.number())

    def watch(self) -> Watch:
        """Tells of changes of the mounts that matter to the holder.  The caller closes it."""
        return Watch(self.place.mountinfos(), self._inventory.fileno())

    def trouble(self) -> str | None:
        """What is wrong with the holder, or None: 'unmounted', or what it is overmounted with.

        Raises: OSError where it could not be looked at, as without descriptors or memory.
        """
        return self.place.trouble()

    def pin_path(self, name: str) -> str:
        """The path of a pin, for nsenter(1) and mount(8)."""
        return self.place.pin_path(name)

    def command(self, text: str) -> str:
        """A command for a shell, so that it works in the mount namespace that the holder is in."""
        return self.place.command(text)

    def _findmnt(self, name: str) -> str:
        return self.command(f"findmnt {self.path}/{name}")

    def pin(self, name: str, namespace: int) -> None:
        """Bind the namespace that the descriptor `namespace` refers to under `name`.

        Nothing is left behind when it fails.  Raises: MountFailed; ENOSPC where the holder is full,
        ELOOP where the namespace's id is not above that of this one.
        """
        self._inside(f"Cannot pin the namespace '{name}'", partial(self._pin, name, namespace))

    def _pin(self, name: str, namespace: int) -> None:
        step = "open_tree"
        try:
            flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
            tree = syscalls.open_tree(namespace, "", flags)
            try:
                step = _CREATE
                create = os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                syscalls.close(os.open(name, create, 0o400, dir_fd=self._fd))
                step = "move_mount"
                try:
                    syscalls.move_mount(tree, "", self._fd, name, syscalls.MOVE_MOUNT_F_EMPTY_PATH)
                except OSError:
                    os.unlink(name, dir_fd=self._fd)
                    raise
                self._again.add(name)
            finally:
                syscalls.close(tree)
        except OSError as error:
            code = error.errno or errno.EIO
            hint = _HINTS.get((code, step), "").format(
                findmnt=self._findmnt(name), df=self.command(f"df -i {self.path}")
            )
            raise MountFailed(f"Cannot pin the namespace '{name}'", step, code, hint) from error

    def open(self, name: str, inode: int) -> int:
        """A descriptor of the namespace pinned under `name`, once the witnesses agree that it is `inode`.

        Raises: NamespaceStale where something else is there, or nothing; OSError, see witness.open_pin.
        """
        fd = open_pin(self._fd, name, inode)
        if fd is None:
            raise NamespaceStale(
                f"The pin of namespace '{name}' no longer leads to it: something is mounted over "
                f"{self.path}/{name} or it was unmounted by hand. See '{self._findmnt(name)}'."
            )
        return fd

    def id_of(self, pin: Pin) -> int:
        """The kernel's 64-bit id of a pin's namespace; 0 where it has none, or the pin no longer leads there.

        Raises OSError.
        """
        if pin.id is not None:
            return pin.id
        with contextlib.suppress(NamespaceStale):
            fd = self.open(pin.name, pin.inode)
            try:
                return syscalls.mntns_id(fd)
            finally:
                syscalls.close(fd)
        return 0

    def unpin(self, name: str, inode: int) -> bool:
        """Unmount the pin and remove its file; what is left of that is a leftover of the next survey.

        Returns: whether the pin was held open by somebody, so that the namespace lives on until that is closed.
        Raises: NamespaceStale where something else is there; MountFailed.
        """
        return self._inside(f"Cannot unpin the namespace '{name}'", partial(self._unpin, name, inode))

    def _unpin(self, name: str, inode: int) -> bool:
        target = f"/proc/self/fd/{self._fd}/{name}"
        held_open = False
        step = "open"
        try:
            syscalls.close(self.open(name, inode))
            step = "umount2"
            try:
                syscalls.umount2(target, syscalls.UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                held_open = True
                syscalls.umount2(target, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)
        except OSError as error:
            raise MountFailed(
                f"Cannot unpin the namespace '{name}'", step, error.errno or errno.EIO
            ) from error
        try:
            self._remove(name)
        except OSError as error:
            # The namespace has lost its name all the same; the next survey sees the file.
            log.warning("The file of the pin of %s stays for now: %s", name, error.strerror)
        return held_open

    def occupied(self, name: str) -> bool:
        """Whether anything lies under `name`."""
        return os.access(name, os.F_OK, dir_fd=self._fd, follow_symlinks=False)

    def remove_leftover(self, name: str) -> None:
        """Remove the plain, empty file of a pin that is not (or no longer) mounted.  Raises OSError."""
        self.place.inside(partial(self._remove, name))  # elsewhere it would take a pin over it away

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def _inside(self, what: str, work: Callable[[], T]) -> T:
        """Do something where the holder is.  Raises what it raises; MountFailed where it cannot be done at all."""
        try:
            return self.place.inside(work)
        except OSError as error:
            raise MountFailed(what, "reach the holder", error.errno or errno.EIO) from error

    def survey(self) -> Survey:
        """Look at everything in the holder: the mounts first, then the other three witnesses for each pin.

        These are heard once for each mount. It stays the same namespace's: while it stays where it is, and nothing is
        mounted on it, they could say nothing else.  What is not ours is left alone, and logged once.  Raises OSError.
        """
        self._inventory.fill()
        if self._names is not None:
            self._names.take()
        mounted = self._inventory.names()
        others = set(syscalls.entries(self._fd)) - mounted
        self._again.clear()
        return self._judged((*mounted, *others), None)

    def changes(self, again: Set[str] = frozenset()) -> Survey | None:
        """Look at what changed since the last look.

        Arguments: again: names to look at, too.
        Returns: None where `survey` has to be called: too much has changed, or the holder itself.
        Raises: OSError; `survey` has to be called, too.
        """
        names = self._inventory.update()
        if self._names is not None:
            others = self._names.take()
        else:
            others = set(syscalls.entries(self._fd)) - self._inventory.names()
        if names is None or others is None:
            return None
        # A pin that came and went meanwhile is in no inventory, but its maker knows it; and one that the witnesses
        # did not agree on may have come to be right without a change of the mounts.
        names |= others | again | self._again
        self._again.clear()
        return self._judged(names, frozenset(names))

    def _judged(self, looked_at: Iterable[str], about: frozenset[str] | None) -> Survey:
        pins: list[Pin] = []
        covered: list[Pin] = []
        leftovers: list[str] = []
        foreign: list[str] = []
        known = self._inventory
        for name in looked_at:
            inode = known.inode(name)
            if inode is not None and names.is_valid(name):
                pin = Pin(name, inode)
                if known.is_covered(name):
                    covered.append(pin)
                elif known.is_believed(name):
                    pins.append(pin)
                elif (heard := self._heard(pin, ask=about is None)) is not None:
                    known.believe(name)
                    pins.append(heard)
                else:
                    covered.append(pin)
                    self._again.add(name)
            elif name in known.names():
                foreign.append(name)
            else:
                is_leftover = self._is_leftover(name)
                if is_leftover is not None:
                    (leftovers if is_leftover else foreign).append(name)
        self._report(foreign, about)
        return Survey(tuple(pins), tuple(covered), tuple(sorted(leftovers)), about)

    def _report(self, foreign: Iterable[str], about: frozenset[str] | None) -> None:
        """Log what is not ours, once while it is there."""
        new = {*foreign} - self._reported
        self._reported = {*foreign} | (self._reported - about if about is not None else set())
        for name in sorted(new):
            log.warning("Left alone in %s, not a pin of a namespace: %s", self.path, names.shown(name))

    def _heard(self, pin: Pin, ask: bool) -> Pin | None:
        """The pin, once the other witnesses agree.  Arguments: ask: for its id, which who starts wants of each."""
        fd = open_pin(self._fd, pin.name, pin.inode)
        if fd is None:
            return None
        try:
            return Pin(pin.name, pin.inode, syscalls.mntns_id(fd)) if ask else pin
        finally:
            syscalls.close(fd)

    def _is_leftover(self, name: str) -> bool | None:
        """Whether `name` is what a cut-short creation leaves: root's own empty file, directly in the holder.

        None where nothing has that name.  Raises OSError.
        """
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == 0
            and status.st_uid == 0
            and status.st_dev == self._device
            and names.is_valid(name)
        )


def close_host(host: Host) -> None:
    """Close the descriptor of `Holder.host`."""
    syscalls.close(host.proc)
