# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the holder stands on: the runtime directory, a private bind of the holder's directory, and the tmpfs on it.

It is laid once, however many start at once, and found again ever after.  Out of scope: the pins (holder.py).

Sources: mount_namespaces(7), open_tree(2), move_mount(2), flock(2).
"""

import contextlib
import fcntl
import os
import stat
from enum import Enum, auto

from mountnsd import mountinfo, syscalls
from mountnsd.errors import Failed
from mountnsd.place import Place

SOURCE = "mountnsd"
DIRECTORY = "ns"
_INODES = 1 << 17
_SIZE = "1m"  # pins are empty files: nothing is ever written here
_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class _Lies(Enum):
    """What lies on the holder's directory."""

    NOTHING = auto()
    BASE = auto()  # the bind alone: a start was cut short, or somebody unmounted the holder
    HOLDER = auto()


def found(runtime_directory: str) -> Place:
    """The holder below `runtime_directory` in the mount namespace of this thread, unbindable.

    Raises: as `lay`.
    """
    fd = lay(runtime_directory)
    try:
        # Unbindable is private, too: do_make_slave() comes first.
        syscalls.mount_setattr(fd, "", syscalls.AT_EMPTY_PATH, propagation=syscalls.MS_UNBINDABLE)
        return Place(os.path.join(runtime_directory, DIRECTORY), fd)
    except BaseException:
        syscalls.close(fd)
        raise


def lay(runtime_directory: str) -> int:
    """A descriptor of the holder below `runtime_directory`, a real path; it is set up where it is not there.

    Raises: Failed where the directory is not root's own or something else is mounted over the holder; OSError.
    """
    directory = _open_runtime_directory(runtime_directory)
    lock = -1
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(DIRECTORY, 0o700, dir_fd=directory)
        path = os.path.join(runtime_directory, DIRECTORY)
        if _lying(directory, path) is not _Lies.HOLDER:
            lock = _lock(directory)
            there = _lying(directory, path)  # others may have been first
            if there is _Lies.NOTHING:
                _mount_base(directory)
            if there is not _Lies.HOLDER:
                _mount_holder(directory)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(DIRECTORY, flags, dir_fd=directory)
    finally:
        syscalls.close(directory)
        if lock >= 0:
            syscalls.close(lock)


def _open_runtime_directory(path: str) -> int:
    """Make and open the runtime directory.  Raises Failed where somebody else could change what is in it."""
    os.makedirs(path, 0o755, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid != 0 or status.st_mode & 0o022:
        syscalls.close(fd)
        raise Failed(
            f"{path} must belong to root and be writable by nobody else; correct that and start again."
        )
    return fd


def _lock(directory: int) -> int:
    """Lock the holder's directory, which is the same one with and without the bind.

    Not the runtime directory: anybody can open that, and so hold its lock for ever.
    """
    fd = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fchmod(fd, 0o700)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd
    except BaseException:
        syscalls.close(fd)
        raise


def _lying(directory: int, path: str) -> _Lies:
    """What is mounted on the holder's directory.

    Raises Failed where it is something else: that is not ours to remove.
    """
    fd = os.open(DIRECTORY, _PATH_FLAGS | os.O_DIRECTORY, dir_fd=directory)
    try:
        top, around = syscalls.mount_id(fd), syscalls.mount_id(directory)
        if top == around:
            return _Lies.NOTHING
        mounts = {mount.id: mount for mount in mountinfo.parse(mountinfo.read())}
        mount, below = mounts.get(top), mounts.get(around)
        if mount is not None and (mount.fstype, mount.source, mount.root) == ("tmpfs", SOURCE, "/"):
            status = os.fstat(fd)
            if status.st_uid == 0 and stat.S_IMODE(status.st_mode) == 0o700:
                return _Lies.HOLDER
        elif mount is not None and below is not None and mount.device == below.device:
            root = os.path.join(below.root, os.path.relpath(path, below.target))
            if mount.root == os.path.normpath(root):
                return _Lies.BASE
    finally:
        syscalls.close(fd)
    raise Failed(
        f"{path} is covered by a mount that is not mountnsd's; see 'findmnt {path}', "
        f"unmount it with 'umount {path}' and start again."
    )


def _mount_base(directory: int) -> None:
    """Bind the empty directory onto itself.

    Where the runtime directory is on a shared mount, this travels, and there keeps the directory from being
    removed: that would detach what is mounted on it here.
    """
    tree = syscalls.open_tree(directory, DIRECTORY, syscalls.OPEN_TREE_CLONE | syscalls.AT_SYMLINK_NOFOLLOW)
    try:
        # Else it would be in the peer group of the mount around it.
        syscalls.mount_setattr(tree, "", syscalls.AT_EMPTY_PATH, propagation=syscalls.MS_PRIVATE)
        syscalls.move_mount(tree, "", directory, DIRECTORY, syscalls.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        syscalls.close(tree)


def _mount_holder(directory: int) -> None:
    """Mount the holder on the bind, which is made private first: so the holder does not travel."""
    context = syscalls.fsopen("tmpfs")
    try:
        syscalls.fsconfig_set(context, "source", SOURCE)
        syscalls.fsconfig_set(context, "mode", "0700")
        syscalls.fsconfig_set(context, "size", _SIZE)
        syscalls.fsconfig_set(context, "nr_inodes", str(_INODES))
        syscalls.fsconfig_create(context)
        attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
        mount = syscalls.fsmount(context, attributes)
    finally:
        syscalls.close(context)
    base = -1
    try:
        base = os.open(DIRECTORY, _PATH_FLAGS | os.O_DIRECTORY, dir_fd=directory)
        syscalls.mount_setattr(base, "", syscalls.AT_EMPTY_PATH, propagation=syscalls.MS_PRIVATE)
        flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
        syscalls.move_mount(mount, "", base, "", flags)
    finally:
        syscalls.close(mount)
        if base >= 0:
            syscalls.close(base)
