# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernel threads, which nobody need look for in a mount namespace: most processes of a host are some.

They are children of kthreadd, and stay in the mount namespace that they began in, which is its own but for that of
devtmpfs.  So are the programs that the kernel runs, as for a core dump, and these may go anywhere: /proc/PID/status
tells the two apart, since Linux 6.8.  One that it was told of is known as long as kthreadd has a child of that pid at
each look, and its directory in /proc the same inode, of which the kernel gives out 2^32 before one comes again: for
another one to be taken for it, it would have to be a program of the kernel's that comes by the same two numbers.

In a pid namespace of one's own there are none; nor are they known by an older kernel, or one without
CONFIG_PROC_CHILDREN.  Sources: proc_pid_status(5), proc_tid_children(5), the kernel's kernel/kthread.c, kernel/umh.c,
drivers/base/devtmpfs.c and fs/proc/base.c.
"""

import os
from collections.abc import Mapping, Set

from mountnsd import syscalls

_KTHREADD = "2"  # in the initial pid namespace, from the start of the system to its end
_SAYS_SO = b"\nKthread:\t1\n"
_PIECE = 1 << 16


class KernelThreads:
    """The kernel threads in the mount namespace of kthreadd."""

    def __init__(self) -> None:
        self._home = ""
        self._known: dict[str, int] = {}

    def among(self, there: Mapping[str, int], namespace: str) -> Set[str]:
        """Those of some processes that are kernel threads, and so are not in a mount namespace.

        Arguments: there: the inode of the directory of each, by pid, read before this; namespace: as /proc/PID/ns/mnt
            names it.
        """
        try:
            self._home = self._home or _namespace(_KTHREADD)
            if self._home in ("", namespace):
                return frozenset()
            place = f"/proc/{_KTHREADD}/task/{_KTHREADD}/children"
            children = syscalls.beginning(place, _PIECE).decode().split()
        except OSError:
            return frozenset()
        found = {pid: there[pid] for pid in children if pid in there}
        self._known = {
            pid: at for pid, at in found.items() if self._known.get(pid) == at or self._is_one(pid)
        }
        return self._known.keys()

    def _is_one(self, pid: str) -> bool:
        try:
            return _namespace(pid) == self._home
        except OSError:
            return False


def _namespace(pid: str) -> str:
    """The mount namespace of a kernel thread; empty where it is none, or is not known to be.  Raises OSError."""
    is_one = _SAYS_SO in syscalls.beginning(f"/proc/{pid}/status", _PIECE)
    return os.readlink(f"/proc/{pid}/ns/mnt") if is_one else ""
