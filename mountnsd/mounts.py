# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mounts in a namespace: read them, compare them with the host's, make and remove one.

All of it is done in a helper thread that joins the namespace for the one call,
so that it works with no process inside.  Out of scope: which namespace, and
who may.

Sources: proc_pid_mountinfo(5), open_tree(2), fsopen(2), fsconfig(2),
fsmount(2), move_mount(2), mount_setattr(2), umount2(2), mount(8).
"""

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from mountnsd import helper, names, passing, syscalls
from mountnsd.errors import InvalidArgs, MountFailed
from mountnsd.mountinfo import Mount
from mountnsd.namespace import Host, join, mounts_here

_MAX_PATH = 4095
_MAX_OPTION = 255  # fsconfig(2) takes no longer key or value

_ATTRIBUTES = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
    "nodiratime": syscalls.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": syscalls.MOUNT_ATTR_NOSYMFOLLOW,
}
_DEFAULTS = {"", "defaults", "rw", "suid", "dev", "exec", "atime", "relatime", "diratime", "symfollow"}
_HINTS = {
    ("open", errno.ENOENT): "Make the mount point inside first.",
    ("open", errno.ELOOP): "The mount point is a symbolic link; name what it leads to.",
    ("open_tree", errno.ENOENT): "What is bound is looked up in the host.",
    ("open_tree", errno.EINVAL): "The host's mount there cannot be bound.",
    ("move_mount", errno.EINVAL): "A directory goes over a directory, and a file over a file.",
    ("fsopen", errno.ENODEV): "The kernel knows no such type; see /proc/filesystems.",
}
_BINDS = {"bind": 0, "rbind": syscalls.AT_RECURSIVE}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference to the host: `mount` as it is inside, or for a removed one as it is in the host."""

    kind: str  # added, removed, changed
    mount: Mount


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What Mount was asked for, checked: `check` makes it."""

    what: str
    where: str
    fstype: str
    attributes: int
    bind: int | None  # None: not a bind; else the flags of open_tree(2)
    parameters: tuple[tuple[str, str | None], ...]


def check(what: str, where: str, fstype: str, options: str) -> MountRequest:
    """Check what a caller asks to be mounted.  Raises InvalidArgs that names the argument."""
    where = check_target(where)
    if len(os.fsencode(what)) > _MAX_PATH or "\0" in what:
        raise InvalidArgs(f"'what' takes at most {_MAX_PATH} bytes without NUL.")
    attributes = 0
    bind = None
    parameters: list[tuple[str, str | None]] = []
    for option in options.split(","):
        key, equals, value = option.partition("=")
        if "\0" in option or max(len(os.fsencode(key)), len(os.fsencode(value))) > _MAX_OPTION:
            raise InvalidArgs(
                f"A mount option takes at most {_MAX_OPTION} bytes without NUL: {names.shown(option)}"
            )
        if option in _BINDS:
            bind = _BINDS[option]
        elif option in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[option]
        elif option not in _DEFAULTS:
            parameters.append((key, value if equals else None))
    if bind is not None:
        if not what.startswith("/"):
            raise InvalidArgs(f"A bind's 'what' is an absolute path in the host, not {names.shown(what)}.")
        if parameters:
            raise InvalidArgs(f"A bind takes no option {names.shown(parameters[0][0])}.")
    elif not fstype or len(fstype) > _MAX_OPTION or "\0" in fstype:
        raise InvalidArgs(
            "'type' is a filesystem type such as tmpfs, or empty with the option bind or rbind."
        )
    return MountRequest(what, where, fstype, attributes, bind, tuple(parameters))


def check_target(where: str) -> str:
    """Return a mount point as a path whose last component is a plain name, so that no link there is followed.

    Raises: InvalidArgs for the root, and for what is not an absolute path without '..'.
    """
    parts = where.split("/")
    if not where.startswith("/") or ".." in parts or "\0" in where or len(os.fsencode(where)) > _MAX_PATH:
        raise InvalidArgs(f"'where' is an absolute path inside, without '..', not {names.shown(where)}.")
    plain = "/" + "/".join(part for part in parts if part not in ("", "."))
    if plain == "/":
        raise InvalidArgs(
            "The root of a namespace is neither mounted over nor unmounted; name what is below it."
        )
    return plain


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


def _mount_alone(namespace: int, request: MountRequest) -> None:
    syscalls.unshare(syscalls.CLONE_FILES)
    passing.close_others({namespace})
    what = f"Cannot mount {names.shown(request.what)} on {names.shown(request.where)}"
    context = tree = target = -1
    try:
        if request.bind is not None:
            tree = _clone(request)
            join(namespace)
        else:
            join(namespace)
            context = syscalls.fsopen(request.fstype)
            tree = _make(context, request)
        target = _open_target(request.where)
        flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
        syscalls.move_mount(tree, "", target, "", flags)
    except OSError as error:
        raise _failed(what, error, _kernel_says(context)) from error
    finally:
        for fd in (context, tree, target):
            if fd >= 0:
                os.close(fd)


def unmount(namespace: int, where: str, lazy: bool) -> None:
    """Unmount inside the namespace.  For a helper thread.  Raises MountFailed, InvalidArgs.

    Never its root: umount2(2) of the caller's own root makes the whole filesystem read-only, the host's, too.
    Nothing of a path whose last component is a plain name, and is not followed, leads there.
    """
    where = check_target(where)
    try:
        join(namespace)
        syscalls.umount2(where, syscalls.UMOUNT_NOFOLLOW | (syscalls.MNT_DETACH if lazy else 0))
    except OSError as error:
        hint = ""
        if error.errno == errno.EBUSY:
            hint = "Something inside uses it; pass the option lazy to detach it all the same."
        elif error.errno == errno.EINVAL:
            hint = "Nothing is mounted there inside; 'mountnsctl mounts NAME' shows what is."
        raise _failed(f"Cannot unmount {names.shown(where)}", error, hint) from error


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
    tree = syscalls.open_tree(syscalls.AT_FDCWD, request.what, syscalls.OPEN_TREE_CLONE | request.bind)
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
        os.close(tree)
        raise
    return tree


def _make(context: int, request: MountRequest) -> int:
    if request.what:
        syscalls.fsconfig_set(context, "source", request.what)
    if request.attributes & syscalls.MOUNT_ATTR_RDONLY:
        syscalls.fsconfig_set(context, "ro")
    for key, value in request.parameters:
        syscalls.fsconfig_set(context, key, value)
    syscalls.fsconfig_create(context)
    return syscalls.fsmount(context, request.attributes)


def _open_target(where: str) -> int:
    fd = os.open(where, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, "the mount point is a symbolic link", where)
    return fd


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
    return MountFailed(what, step, number, hint or _HINTS.get((step, number), ""))
