# SPDX-License-Identifier: LGPL-2.1-or-later
"""A holder out of sight: in a mount namespace of its own, which one pin in the visible holder keeps, the anchor.

PID 1 makes a unit of each mount that it sees, and looks at all of them when one changes.  It sees the visible holder
and the anchor then, however many pins there are.

The hidden namespace is a copy of the host's, so that nsenter(1) is found in it, and a slave of that, so that it keeps
no filesystem of the host from being unmounted.  What is mounted and unmounted there is done by a helper thread that
has joined it; to look, no one has to.

Sources: mount_namespaces(7), setns(2); for the ids kernel/nstree.c and fs/namespace.c (mnt_ns_loop).
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from mountnsd import foundation, helper, mountinfo, namespace, syscalls
from mountnsd.namespace import Host
from mountnsd.place import Place, T
from mountnsd.witness import open_pin

log = logging.getLogger(__name__)

NAME = ".anchor"  # no namespace can have this name
_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Anchored(Place):
    """The holder in the namespace that the anchor keeps.

    It must not keep that namespace itself once the anchor is gone: so this opens the anchor anew each time.
    """

    hidden = True

    def __init__(self, visible: Place, inode: int, inner: Place, root: int, mounts: int) -> None:
        """Take over all of them.

        Arguments: visible: the holder with the anchor; inode: of the hidden namespace; inner: the hidden holder;
            root, mounts: descriptors of / and of mountinfo, opened there.
        """
        super().__init__(inner.path, inner.directory)
        self.pins = f"/proc/{os.getpid()}/fd/{inner.directory}"
        self.visible = visible
        self._inode = inode
        self._root = root
        self._mounts = mounts

    def close(self) -> None:
        """Close what is open; all mounts stay."""
        super().close()
        self.visible.close()
        syscalls.close(self._root)
        syscalls.close(self._mounts)

    @property
    def device(self) -> int:
        """Of the visible one: a new namespace is a copy of the host's, and never of this one."""
        return self.visible.device

    def inside(self, work: Callable[[], T]) -> T:
        """Do something there, in a helper thread.  Raises what it raises; OSError ESTALE where the anchor is gone."""
        anchor = self.open_namespace()
        try:
            return helper.run_blocking(namespace.inside(anchor, work))
        finally:
            syscalls.close(anchor)

    def open_namespace(self) -> int:
        """A descriptor of the hidden namespace, by the anchor.  Raises OSError: ESTALE where that is gone."""
        fd = self._open_anchor()
        if fd is None:
            raise OSError(errno.ESTALE, "the anchor of the holder is gone", self.visible.pin_path(NAME))
        return fd

    def mountinfo(self) -> str:
        """The mounts there.  Raises OSError."""
        return mountinfo.read_again(self._mounts)

    def mountinfos(self) -> list[int]:
        """Descriptors of mountinfo, for the caller to close: of the host, for the anchor, and there."""
        here = self.visible.mountinfos()
        try:
            return [*here, self.inside(mountinfo.open_own)]
        except BaseException:
            for fd in here:
                syscalls.close(fd)
            raise

    def command(self, text: str) -> str:
        """A command for a shell, so that it works there."""
        return f"nsenter --mount={self.visible.pin_path(NAME)} {text}"

    def uncover(self) -> str:
        """The command that unmounts what lies over one of the three."""
        if self.visible.trouble():
            return self.visible.uncover()
        if self._cut_off():
            return f"umount {self.visible.pin_path(NAME)}"
        return self.command(super().uncover())

    def trouble(self) -> str | None:
        """What is wrong: with the visible holder, the anchor, or the hidden holder.  Raises OSError."""
        return self.visible.trouble() or self._cut_off() or super().trouble()

    def _open_anchor(self) -> int | None:
        return open_pin(self.visible.directory, NAME, self._inode)

    def _cut_off(self) -> str | None:
        fd = self._open_anchor()
        if fd is not None:
            syscalls.close(fd)
            return None
        prefix = self.visible.pin_path(NAME)
        there = [mount for mount in mountinfo.parse(self.visible.mountinfo()) if mount.target == prefix]
        return "cut off: something is mounted over its anchor" if there else "unmounted"

    def _look(self) -> int:
        return os.open(self.path.lstrip("/"), _PATH_FLAGS | os.O_DIRECTORY, dir_fd=self._root)


def settle(visible: Place, hide: bool) -> Place:
    """Where the pins lie: in the visible holder, which this takes over, or out of sight.

    A holder that has pins stays what it is: they cannot move.  Otherwise it becomes what is asked for.

    Arguments: hide: whether it shall be out of sight.
    Raises: Failed, OSError.
    """
    place = visible
    try:
        anchor = open_pin(visible.directory, NAME)
        if anchor is None:
            if not hide:
                return visible
            if _has_pins(visible):
                log.warning(
                    "The holder stays visible, as it has pins: destroy all namespaces and start again"
                )
                return visible
            anchor = _anchor(visible)
        try:
            place = hidden = _open(visible, anchor)
        finally:
            syscalls.close(anchor)
        if hide:
            return hidden
        if _has_pins(hidden):
            log.warning("The holder stays hidden, as it has pins: destroy all namespaces and start again")
            return hidden
        return _reveal(hidden)
    except BaseException:
        place.close()
        raise


def _anchor(visible: Place) -> int:
    """A descriptor of the hidden namespace, which is made unless others were first.  Raises Failed, OSError."""
    with _locked(visible):
        there = open_pin(visible.directory, NAME)
        return _make(visible) if there is None else there


@contextmanager
def _locked(visible: Place) -> Iterator[None]:
    """Keep others from making an anchor meanwhile.  Nobody but root can open what is locked."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=visible.directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        syscalls.close(fd)


def _has_pins(place: Place) -> bool:
    """Whether anything but the anchor is mounted on the holder."""
    mounts = [mount for mount in mountinfo.parse(place.mountinfo()) if mount.parent == place.mount_id]
    return any(mount.target != f"{place.path}/{NAME}" for mount in mounts)


def _open(visible: Place, anchor: int) -> Anchored:
    """The holder in the namespace `anchor`, set up anew where somebody has unmounted it.  Raises Failed, OSError."""
    inner, root, mounts = helper.run_blocking(namespace.inside(anchor, partial(_lay, visible.path)))
    return Anchored(visible, os.fstat(anchor).st_ino, inner, root, mounts)


def _lay(path: str) -> tuple[Place, int, int]:
    """In the hidden namespace: the holder there, and descriptors of / and of mountinfo."""
    inner = foundation.found(os.path.dirname(path))
    root = -1
    try:
        root = os.open("/", _PATH_FLAGS | os.O_DIRECTORY)
        return inner, root, mountinfo.open_own()
    except BaseException:
        inner.close()
        if root >= 0:
            syscalls.close(root)
        raise


def _make(visible: Place) -> int:
    """Make the hidden namespace and pin it as the anchor; a descriptor of it.

    It is pinned when all is set up, so that what a crash leaves is a plain file at most.  Raises Failed, OSError.
    """
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        host = Host(proc=proc, holder=visible.path, device=visible.device, id=visible.number())
        made = helper.run_blocking(partial(_made, host))
    finally:
        syscalls.close(proc)
    try:
        tree = syscalls.open_tree(made, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        try:
            create = os.O_CREAT | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            syscalls.close(os.open(NAME, create, 0o400, dir_fd=visible.directory))
            syscalls.move_mount(tree, "", visible.directory, NAME, syscalls.MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            syscalls.close(tree)
        return made
    except BaseException:
        syscalls.close(made)
        raise


def _made(host: Host) -> int:
    """In a helper thread: the hidden namespace with a holder in it."""
    fd = _lowest(host)
    try:
        namespace.join(fd)
        namespace.part(host)
        foundation.found(os.path.dirname(host.holder)).close()
        return fd
    except BaseException:
        syscalls.close(fd)
        raise


def _lowest(host: Host) -> int:
    """A copy of the host's mount namespace whose id is above the host's, and below that of all that are made later.

    Only of such can this one bind what is made later.  Each CPU numbers from a batch of its own: so it is the lowest
    of as many as there are CPUs.
    """
    lowest, number = -1, 0
    origin = namespace.own(host)
    try:
        for cpu in sorted(os.sched_getaffinity(0)):
            os.sched_setaffinity(0, {cpu})
            fd = namespace.copy(host, origin)
            found = syscalls.mntns_id(fd)
            if (not found or found > host.id) and (lowest < 0 or found < number):
                fd, lowest, number = lowest, fd, found
            if fd >= 0:
                syscalls.close(fd)
        return lowest if lowest >= 0 else namespace.copy_above(host, origin)
    except BaseException:
        if lowest >= 0:
            syscalls.close(lowest)
        raise
    finally:
        syscalls.close(origin)


def _reveal(hidden: Anchored) -> Place:
    """The visible holder, without the anchor and what it keeps; `hidden` is closed then.  Raises OSError."""
    visible = hidden.visible
    flags = syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH
    syscalls.umount2(f"/proc/self/fd/{visible.directory}/{NAME}", flags)
    with suppress(FileNotFoundError):
        os.unlink(NAME, dir_fd=visible.directory)
    shown = Place(visible.path, os.dup(visible.directory))
    hidden.close()
    return shown
