# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a pin is what it seems to be: statfs, NS_GET_NSTYPE and the inode have to agree.

Sources: statfs(2), ioctl_ns(2).
"""

import os

from mountnsd import syscalls
from mountnsd.place import NO_ANSWER

_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_pin(directory: int, name: str, inode: int | None = None) -> int | None:
    """A descriptor of the mount namespace that is pinned in `directory` under `name`; None where something else is.

    First by O_PATH: opening a device or a fifo that was mounted there could block or do something.

    Arguments: inode: which mount namespace it has to be, or None for any.
    Raises: OSError where it could not be looked at, as without descriptors or memory.
    """
    path = fd = -1
    try:
        path = os.open(name, _PATH_FLAGS, dir_fd=directory)
        there = os.fstat(path).st_ino
        if syscalls.fstatfs_type(path) == syscalls.NSFS_MAGIC and inode in (None, there):
            fd = os.open(f"/proc/self/fd/{path}", os.O_RDONLY | os.O_CLOEXEC)
            if syscalls.ns_type(fd) == syscalls.CLONE_NEWNS and os.fstat(fd).st_ino == there:
                witnessed, fd = fd, -1
                return witnessed
    except OSError as error:
        if error.errno in NO_ANSWER:
            raise
    finally:
        for opened in (path, fd):
            if opened >= 0:
                syscalls.close(opened)
    return None
