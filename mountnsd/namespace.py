# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mount namespaces themselves: make one, look into one.

Everything here that leaves the host's mount namespace is meant for a helper
thread (helper.py) that ends afterwards.  Out of scope: names and pins.

Sources: mount_namespaces(7), unshare(2), setns(2), openat2(2), ioctl_ns(2),
and for the numbering the kernel's kernel/nstree.c and fs/namespace.c
(mnt_ns_loop).
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from mountnsd import mountinfo, syscalls
from mountnsd.errors import MountFailed

T = TypeVar("T")

# The kernel hands out namespace ids to each CPU in batches of this size (Linux 6.18, include/linux/cookie.h).
_ID_BATCH = 4096
_TRIES = 50
MAX_TABLE = 8 << 20  # bytes of a namespace's mountinfo; some 50,000 ordinary mounts


class Propagation(StrEnum):
    """How mounts travel between the host and a new namespace, mount_namespaces(7)."""

    SLAVE = "slave"
    PRIVATE = "private"
    SHARED = "shared"
    UNCHANGED = "unchanged"


_FLAGS = {
    Propagation.SLAVE: syscalls.MS_SLAVE,
    Propagation.PRIVATE: syscalls.MS_PRIVATE,
    Propagation.SHARED: syscalls.MS_SHARED,
}


@dataclass(frozen=True, slots=True)
class Host:
    """What a helper thread needs of the host, opened before it leaves.

    proc: descriptor of the host's /proc, because a namespace may hold another or a forged one;
    holder, device: path and st_dev of the pins' tmpfs; id: the kernel's id of the host's mount namespace,
    0 where it has none.
    """

    proc: int
    holder: str
    device: int
    id: int


def join(fd: int) -> None:
    """Move the calling thread into the mount namespace `fd`.  Raises OSError, setns(2)."""
    syscalls.unshare(syscalls.CLONE_FS)
    syscalls.setns(fd, syscalls.CLONE_NEWNS)


def inside(fd: int, work: Callable[[], T]) -> Callable[[], T]:
    """`work` wrapped so that a helper thread does it inside the namespace `fd`."""

    def body() -> T:
        join(fd)
        return work()

    return body


def mounts_here(host: Host) -> list[mountinfo.Mount]:
    """The mounts of the namespace that the calling thread is in.  Raises OSError; EFBIG where they are too many."""
    return list(mountinfo.parse(mountinfo.read("thread-self/mountinfo", dir_fd=host.proc, most=MAX_TABLE)))


def make(host: Host, propagation: Propagation, source: int | None = None) -> int:
    """Make a mount namespace and return a descriptor of it.  For a helper thread.

    The namespace is a copy of the calling thread's, or of `source`.  The holder is detached inside (a file
    removed in a copy of it would take the pin over it away in the host), and its id is above the host's, so
    that the host can bind it.  The private bind below the holder stays: without a mount there, the holder's
    directory could be removed inside, and with it all that is mounted on it in the host.

    Arguments: host: see there; propagation: of all mounts inside; source: descriptor of the namespace to copy.
    Raises: MountFailed, with the step and the errno.
    """
    step = "unshare"
    hint = ""
    apart = propagation in (Propagation.SLAVE, Propagation.PRIVATE)
    fd = -1
    try:
        origin = own(host) if source is None else os.dup(source)
        try:
            fd = copy_above(host, origin, there=source is None)
        finally:
            syscalls.close(origin)
        step = "set the propagation"
        if apart:
            _set_propagation(propagation)  # first: what happens inside from here on stays inside
        step = "detach the holder inside"
        hint = (
            f"See 'findmnt --output +PROPAGATION {host.holder}': it has to lie uncovered, on a private mount."
        )
        if apart and source is None:
            _detach_holder(host)
        else:
            _detach_holders(host, apart)
        step, hint = "set the propagation", ""
        if propagation is Propagation.SHARED:
            _set_propagation(propagation)
    except OSError as error:
        if fd >= 0:
            syscalls.close(fd)
        raise MountFailed("Cannot make the namespace", step, error.errno or errno.EIO, hint) from error
    return fd


def _set_propagation(propagation: Propagation) -> None:
    syscalls.mount(None, "/", None, syscalls.MS_REC | _FLAGS[propagation])


def own(host: Host) -> int:
    """A descriptor of the mount namespace that the calling thread is in.  Raises OSError."""
    return os.open("thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc)


def copy(host: Host, origin: int | None) -> int:
    """Leave for a copy of `origin`, None for where the thread is.  Returns a descriptor of it.  Raises OSError."""
    if origin is not None:
        join(origin)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    return own(host)


def copy_above(host: Host, origin: int, there: bool = False) -> int:
    """Leave for a copy of `origin` whose id is above the host's.

    Arguments: there: the thread is in it still.

    Since Linux 6.18 each CPU numbers namespaces from a batch of its own, and to bind one whose id is not above
    that of the binder's namespace is EINVAL (it could make a loop of namespaces that keep each other alive).
    """
    for _ in _ways_up():
        fd = copy(host, None if there else origin)
        there = above = False
        try:
            number = syscalls.mntns_id(fd)
            above = number == 0 or number > host.id
        finally:
            if not above:
                syscalls.close(fd)
        if above:
            return fd
    raise OSError(errno.EINVAL, "every new namespace is numbered below the host's")


def _ways_up() -> Iterator[None]:
    """Ready the thread, step by step, to get a higher namespace id: as it is, on each CPU, from a new batch."""
    yield
    for cpu in sorted(os.sched_getaffinity(0)):
        os.sched_setaffinity(0, {cpu})
        yield
    for _ in range(2):  # twice, because others may take the CPU's ids meanwhile
        _use_up_ids()
        yield


def _use_up_ids() -> None:
    """Take a whole batch of ids from this CPU: with UTS namespaces, which cost 3 microseconds instead of 150."""
    flag = syscalls.CLONE_NEWUTS
    for _ in range(_ID_BATCH):
        try:
            syscalls.unshare(flag)
        except OSError:
            if flag == syscalls.CLONE_NEWNS:
                raise
            flag = syscalls.CLONE_NEWNS  # a sandbox may allow no other kind


def part(host: Host) -> None:
    """Make the namespace of this thread, a copy of the host's, a slave of it that has no holder.  Raises OSError."""
    _set_propagation(Propagation.SLAVE)
    _detach_holder(host)


def _detach_holder(host: Host) -> None:
    while _sees_holder(host):
        syscalls.umount2(host.holder, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)


def _sees_holder(host: Host) -> bool:
    try:
        return os.stat(host.holder, follow_symlinks=False).st_dev == host.device
    except OSError:
        return False


def _detach_holders(host: Host, apart: bool) -> None:
    """Detach each copy of the holder that the mount table has, inside and only there.

    What is inside is not to be believed: a copy may have been moved, and a filesystem that never answers may
    lie over its path, or be on it.

    Arguments: apart: nothing here is in a peer group; else a detaching travels where the mount below is in one.
    Raises: OSError; EBUSY where it would travel, or where something lies over the holder.
    """
    mounts = {mount.id: mount for mount in mounts_here(host)}
    device = f"{os.major(host.device)}:{os.minor(host.device)}"
    for mount in reversed(mounts.values()):
        if mount.device != device:
            continue
        below = mounts.get(mount.parent)
        if not apart and (below is None or below.peer_group):
            raise OSError(errno.EBUSY, "what the holder lies on is shared", mount.target)
        fd = _open_cached(mount.target)
        try:
            if syscalls.mount_id(fd) != mount.id:
                raise OSError(errno.EBUSY, "something lies over the holder", mount.target)
            os.fchdir(host.proc)  # this thread's working directory is its own
            syscalls.umount2(f"thread-self/fd/{fd}", syscalls.MNT_DETACH)
        finally:
            syscalls.close(fd)


def _open_cached(path: str) -> int:
    """Open a mount point, which the kernel always has in its cache; a few times, as mounts elsewhere disturb it."""
    for _ in range(_TRIES - 1):
        try:
            return syscalls.open_cached(path)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        time.sleep(0.002)
    return syscalls.open_cached(path)
