# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mounts in a namespace: read them, compare them with the host's, make and remove one.

All of it is done in a helper thread that joins the namespace for the one call,
so that it works with no process inside.  Out of scope: which namespace, and
who may.

Sources: proc_pid_mountinfo(5), openat2(2), open_tree(2), fsopen(2), fsconfig(2),
fsmount(2), move_mount(2), mount_setattr(2), mount(2), umount2(2).
"""

import errno
import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from mountnsd import helper, mountpoint, names, passing, syscalls
from mountnsd.errors import MountFailed
from mountnsd.mountinfo import Mount
from mountnsd.mountrequest import MountRequest, check_target
from mountnsd.namespace import Host, join, mounts_here

_HINTS = {
    ("open", errno.ENOENT): "Make the mount point inside first, or pass the option X-mount.mkdir.",
    ("openat2", errno.ENOENT): "What is bound is looked up in the host.",
    ("openat2", errno.ELOOP): "Links such as /proc/self/fd/0 are not followed; name what they lead to.",
    ("open_tree", errno.EINVAL): "The host's mount there cannot be bound.",
    ("move_mount", errno.EINVAL): "A directory goes over a directory, and a file over a file.",
    ("fsopen", errno.ENODEV): "The kernel knows no such type; see /proc/filesystems.",
    ("mount", errno.ENODEV): "The kernel knows no such type; see /proc/filesystems.",
    ("mount", errno.EINVAL): "The kernel's log may say more ('journalctl -k').",
    ("mount", errno.ELOOP): "The directories of an overlay must not lie in each other.",
}

# What fsmount(2) and mount(2) call the same.
_FLAGS = {
    syscalls.MOUNT_ATTR_RDONLY: syscalls.MS_RDONLY,
    syscalls.MOUNT_ATTR_NOSUID: syscalls.MS_NOSUID,
    syscalls.MOUNT_ATTR_NODEV: syscalls.MS_NODEV,
    syscalls.MOUNT_ATTR_NOEXEC: syscalls.MS_NOEXEC,
    syscalls.MOUNT_ATTR_NOATIME: syscalls.MS_NOATIME,
    syscalls.MOUNT_ATTR_STRICTATIME: syscalls.MS_STRICTATIME,
    syscalls.MOUNT_ATTR_NODIRATIME: syscalls.MS_NODIRATIME,
    syscalls.MOUNT_ATTR_NOSYMFOLLOW: syscalls.MS_NOSYMFOLLOW,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference to the host: `mount` as it is inside, or for a removed one as it is in the host."""

    kind: str  # added, removed, changed
    mount: Mount


def read(host: Host, namespace: int) -> list[Mount]:
    """The mounts inside the namespace `namespace` (a descriptor).  For a helper thread.  Raises MountFailed."""
    try:
        join(namespace)
        return mounts_here(host)
    except OSError as error:
        raise _failed("Cannot read the mounts inside", error) from error


def mount(namespace: int, request: MountRequest) -> None:
    """Mount inside the namespace.  For a helper thread.

    A bind is a slave of what it shows: what the host unmounts there goes inside, too, and nothing of what
    is done inside goes back.
    Raises: MountFailed, with the system call, the errno, and what the filesystem said.
    """
    # Options such as fd=14 name descriptors, and the kernel looks them up in the caller's table: so it is done in
    # a thread whose table has nothing of ours.
    helper.run_blocking(lambda: _mount_alone(namespace, request))


def mount_all(namespace: int, requests: Iterable[MountRequest]) -> None:
    """Mount one after the other inside a new namespace, all or nothing.  For a helper thread.

    Raises: MountFailed of the first that fails.  The others are unmounted then: they would end with the namespace,
        but where its mounts are shared they lie on the host, too.
    """
    done: list[MountRequest] = []
    for request in requests:
        try:
            mount(namespace, request)
        except MountFailed:
            helper.run_blocking(lambda: _undo(namespace, done))
            raise
        done.append(request)


def _undo(namespace: int, done: list[MountRequest]) -> None:
    join(namespace)
    for request in reversed(done):
        with suppress(OSError):
            _umount(request.where, syscalls.MNT_DETACH)


def _mount_alone(namespace: int, request: MountRequest) -> None:
    syscalls.unshare(syscalls.CLONE_FILES)
    passing.close_others({namespace})
    context = tree = target = -1
    try:
        if request.bind is not None:
            tree = _clone(request)
            join(namespace)
        else:
            join(namespace)
            _check_layers(request)
            if not request.is_long:
                context = syscalls.fsopen(request.fstype)
                tree = _make(context, request)
        target = mountpoint.open_target(request.where, request.mkdir)
        if tree >= 0:
            flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
            syscalls.move_mount(tree, "", target, "", flags)
        else:
            _mount_long(target, request)
    except OSError as error:
        what = f"Cannot mount {names.shown(request.what)} on {names.shown(request.where)}"
        origin = f"{request.origin}: " if request.origin else ""
        raise _failed(origin + what, error, _kernel_says(context)) from error
    finally:
        for fd in (context, tree, target):
            if fd >= 0:
                syscalls.close(fd)


def unmount(namespace: int, where: str, lazy: bool) -> None:
    """Unmount inside the namespace.  For a helper thread.  Raises MountFailed, InvalidArgs.

    Never its root: umount2(2) of the caller's own root makes the whole filesystem read-only, the host's, too.
    Nothing of a path that ends in a plain name, and of which no link is followed, leads there.
    """
    where = check_target(where)
    try:
        join(namespace)
        _umount(where, syscalls.MNT_DETACH if lazy else 0)
    except OSError as error:
        hint = ""
        if error.errno == errno.EBUSY:
            hint = "Something inside uses it; pass the option lazy to detach it all the same."
        elif error.errno in (errno.EINVAL, errno.ENOENT):
            hint = "Nothing is mounted there inside; 'mountnsctl mounts NAME' shows what is."
        raise _failed(f"Cannot unmount {names.shown(where)}", error, hint) from error


def _umount(where: str, flags: int) -> None:
    """Unmount what is topmost at a checked path, of which no symbolic link is followed.

    For a thread that has joined the namespace, and has its working directory for itself.  Raises OSError.
    """
    above, name = os.path.split(where)
    fd = mountpoint.open_target(above)
    try:
        os.fchdir(fd)
    finally:
        syscalls.close(fd)
    syscalls.umount2(name, syscalls.UMOUNT_NOFOLLOW | flags)


def changes(host: Iterable[Mount], inside: Iterable[Mount], holder: str) -> list[Change]:
    """What differs inside from the host, by mount point; the holder and its pins, which are the host's only, apart.

    Mounts that lie over each other on one mount point are compared from the bottom.
    """
    theirs, ours = _by_target(inside, holder), _by_target(host, holder)
    found = []
    for target in dict.fromkeys((*ours, *theirs)):
        there, here = theirs[target], ours[target]
        for index in range(max(len(there), len(here))):
            if index >= len(there):
                found.append(Change("removed", here[index]))
            elif index >= len(here):
                found.append(Change("added", there[index]))
            elif _essence(there[index]) != _essence(here[index]):
                found.append(Change("changed", there[index]))
    return sorted(found, key=lambda change: change.mount.target)


def all_options(mount: Mount) -> str:
    """The options of a mount and then of its filesystem, as findmnt(8) joins them."""
    own = mount.options.split(",")
    return ",".join(
        (*own, *(o for o in mount.super_options.split(",") if o not in ("ro", "rw", "") and o not in own))
    )


def _by_target(mounts: Iterable[Mount], holder: str) -> defaultdict[str, list[Mount]]:
    found: defaultdict[str, list[Mount]] = defaultdict(list)
    for mount in mounts:
        if mount.target != holder and not mount.target.startswith(holder + "/"):
            found[mount.target].append(mount)
    return found


def _essence(mount: Mount) -> tuple[str, ...]:
    return (mount.device, mount.root, mount.fstype, mount.source, all_options(mount))


def _clone(request: MountRequest) -> int:
    assert request.bind is not None  # noqa: S101 - for the type checker
    source = _open_source(request.what)
    try:
        flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | request.bind
        tree = syscalls.open_tree(source, "", flags)
    finally:
        syscalls.close(source)
    try:
        syscalls.mount_setattr(
            tree,
            "",
            syscalls.AT_EMPTY_PATH | request.bind,
            attr_set=request.attributes,
            attr_clr=syscalls.MOUNT_ATTR_ATIME if request.attributes & syscalls.MOUNT_ATTR_ATIME else 0,
            propagation=syscalls.MS_SLAVE,
        )
    except BaseException:
        syscalls.close(tree)
        raise
    return tree


def _open_source(what: str) -> int:
    """Open what is bound.  Symbolic links are followed, but those of /proc that lead by no path: ours are there, too.

    Raises: OSError, openat2(2).
    """
    flags, resolve = os.O_PATH | os.O_CLOEXEC, syscalls.RESOLVE_NO_MAGICLINKS
    try:  # as a directory first, which has an automount point mounted
        return syscalls.openat2(syscalls.AT_FDCWD, what, flags | os.O_DIRECTORY, resolve)
    except NotADirectoryError:
        return syscalls.openat2(syscalls.AT_FDCWD, what, flags, resolve)


def _make(context: int, request: MountRequest) -> int:
    if request.what:
        syscalls.fsconfig_set(context, "source", request.what)
    if request.attributes & syscalls.MOUNT_ATTR_RDONLY:
        syscalls.fsconfig_set(context, "ro")
    for key, value in request.parameters:
        syscalls.fsconfig_set(context, key, value)
    syscalls.fsconfig_create(context)
    return syscalls.fsmount(context, request.attributes)


def _check_layers(request: MountRequest) -> None:
    """Look for links in the directories that an overlay writes to; with X-mount.mkdir, make them if they are missing.

    The kernel looks them up again.  Raises: OSError as mountpoint.open_target.
    """
    for layer in (*request.layers("upperdir"), *request.layers("workdir")):
        syscalls.close(mountpoint.open_target(layer, request.mkdir))


def _mount_long(target: int, request: MountRequest) -> None:
    """Mount what has values that fsconfig(2) does not take, mount(2).

    mount(2) takes a path: it gets the working directory of this thread, because the way by /proc is the namespace's.
    """
    os.fchdir(target)
    flags = sum(flag for attribute, flag in _FLAGS.items() if request.attributes & attribute)
    syscalls.mount(request.what or None, ".", request.fstype, flags, request.data)


def _kernel_says(context: int) -> str:
    """The first message that the filesystem left in its context, fsopen(2); '' where there is none."""
    if context < 0:
        return ""
    try:
        message = os.read(context, 1024).decode("utf-8", "replace")
    except OSError:
        return ""
    return f"The kernel says: {names.shown(message[2:].strip(), 300)}"


def _failed(what: str, error: OSError, hint: str = "") -> MountFailed:
    step = (error.strerror or "").partition(":")[0] if ":" in (error.strerror or "") else "open"
    number = error.errno or errno.EIO
    if (step, number) == ("open", errno.ELOOP) and error.filename:
        hint = f"{names.shown(error.filename)} is a symbolic link; name what it leads to."
    return MountFailed(what, step, number, hint or _HINTS.get((step, number), ""))
