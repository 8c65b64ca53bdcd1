# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the holder lies: a directory in a mount namespace, and how to work there.

This is the plain one, in the mount namespace of the daemon itself.  Out of
scope: one that lies out of sight (anchor.py), and the pins (holder.py).

Sources: proc_pid_mountinfo(5), move_mount(2).
"""

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from mountnsd import mountinfo, syscalls

T = TypeVar("T")

# What says nothing of a mount: something has run out, or somebody keeps us from looking.
NO_ANSWER = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EINTR, errno.EPERM)
_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """The holder, in our mount namespace.

    Attributes: path: of the holder, as mountinfo spells it; pins: a path of it at which nsenter(1) and mount(8) find
        pins; directory: descriptor of it, ours until `close`; mount_id: of the holder's mount; hidden: whether others
        do not see what is mounted there.
    """

    hidden = False

    def __init__(self, path: str, directory: int) -> None:
        """Take over `directory`.  Raises OSError."""
        self.path = self.pins = path
        self.directory = directory
        self.mount_id = syscalls.mount_id(directory)

    def close(self) -> None:
        """Close what is open; all mounts stay."""
        syscalls.close(self.directory)

    @property
    def device(self) -> int:
        """st_dev of that holder of which a new namespace gets a copy."""
        return os.fstat(self.directory).st_dev

    def inside(self, work: Callable[[], T]) -> T:
        """Do something in the mount namespace that the holder is in.  Raises what it raises."""
        return work()

    def open_namespace(self) -> int:
        """A descriptor of that mount namespace, for the caller to close.  Raises OSError."""
        return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def number(self) -> int:
        """The kernel's id of that mount namespace, 0 where it has none.  Raises OSError."""
        namespace = self.open_namespace()
        try:
            return syscalls.mntns_id(namespace)
        finally:
            syscalls.close(namespace)

    def mountinfo(self) -> str:
        """The mounts of that mount namespace.  Raises OSError."""
        return mountinfo.read()

    def mountinfos(self) -> list[int]:
        """Descriptors of mountinfo that tell of changes, for the caller to close.  Raises OSError."""
        return [mountinfo.open_own()]

    def pin_path(self, name: str) -> str:
        """A path of a pin at which nsenter(1) and mount(8) find it."""
        return f"{self.pins}/{name}"

    def command(self, text: str) -> str:
        """A command for a shell, so that it works where the holder is."""
        return text

    def uncover(self) -> str:
        """The command that unmounts what lies over the holder."""
        return f"umount {self.path}"

    def trouble(self) -> str | None:
        """What is wrong with the holder, or None: 'unmounted', or what it is overmounted with.

        Raises: OSError where it could not be looked at, as without descriptors or memory.
        """
        seen = -1
        try:
            seen = self._look()
            if syscalls.mount_id(seen) == self.mount_id:
                return None
        except OSError as error:
            if error.errno in NO_ANSWER:
                raise
            if self._is_mounted():
                return f"unreachable ({error.strerror})"
        finally:
            if seen >= 0:
                syscalls.close(seen)
        return "overmounted" if self._is_mounted() else "unmounted"

    def _look(self) -> int:
        """A descriptor of what lies at the holder's path.  Raises OSError."""
        return os.open(self.path, _PATH_FLAGS | os.O_DIRECTORY)

    def _is_mounted(self) -> bool:
        return any(mount.id == self.mount_id for mount in mountinfo.parse(self.mountinfo()))
