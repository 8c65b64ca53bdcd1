# SPDX-License-Identifier: LGPL-2.1-or-later
"""What holds a mount namespace on this host: processes, threads, open descriptors, mounts of its nsfs file.

The kernel counts references and does not say whose they are, so /proc is searched.  A descriptor that is on its way
in a message of a socket, and a mount in a namespace that nobody is in, are not to be seen so.

Nothing of a process is touched but what the kernel itself answers: no file is opened by way of /proc/PID/fd, and none
is asked for its status unless fdinfo says that it is the namespace, because its filesystem may hang.

Sources: proc_pid_fd(5), proc_pid_fdinfo(5) (`ino` since Linux 5.14), proc_pid_ns(5), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
from typing import Any

from mountnsd import mountinfo
from mountnsd.ctl import proc


class Search:
    """A search for what holds the namespace `inode`.

    Arguments: pin: where it is pinned under its name, which does not count.

    Attributes: found: the holders, as JSON has them; complete: nothing was kept from us.
    """

    def __init__(self, inode: int, pin: str) -> None:
        self.found: list[dict[str, Any]] = []
        self.complete = False
        self._inode = inode
        self._link = f"mnt:[{inode}]"
        self._pin = pin
        self._inside: set[int] = set()
        self._tables: set[str] = set()

    def add(self, kind: str, pid: int, uid: int, comm: str, unit: str, **more: int | str) -> None:
        """Add a holder.

        Arguments: kind: process, thread, descriptor or mount; more: `thread`, `fd` or `path`.
        """
        if kind == "process":
            self._inside.add(pid)
        which = {"thread": None, "fd": None, "path": None, **more}
        self.found.append({"kind": kind, "pid": pid, "uid": uid, "comm": comm, "unit": unit, **which})

    def run(self) -> None:
        """Search all processes; those that were added as being inside are not looked at for more."""
        self.complete = os.geteuid() == 0
        for pid in proc.pids():
            try:
                self._look(pid)
            except PermissionError:
                self.complete = False
            except OSError:  # it has ended
                continue

    def _look(self, pid: int) -> None:
        """Look at one process.  Raises: OSError, PermissionError where that is not allowed."""
        place = f"/proc/{pid}"
        mounts = _namespace(place)
        if mounts and mounts not in self._tables:
            self._tables.add(mounts)
            self._look_at_mounts(pid)
        if pid in self._inside:
            return
        for thread in os.listdir(f"/proc/{pid}/task"):
            its = f"/proc/{pid}/task/{thread}"
            if int(thread) == pid or not (namespace := _namespace(its)):
                continue
            if namespace == self._link:
                self._add(pid, "thread", thread=int(thread))
            if not mounts:  # the main thread has ended before the others
                place = its
        for fd in os.listdir(f"{place}/fd") if mounts or place != f"/proc/{pid}" else ():
            if self._is_open(place, fd):
                self._add(pid, "descriptor", fd=int(fd))

    def _add(self, pid: int, kind: str, **more: int | str) -> None:
        self.add(kind, pid, proc.owner(pid), proc.command(pid), proc.unit_of(pid), **more)

    def _look_at_mounts(self, pid: int) -> None:
        """Look for more pins in the mount table of a process, which others in its namespace share."""
        try:
            table = mountinfo.read(f"/proc/{pid}/mountinfo")
        except OSError:
            return
        if self._link not in table:
            return
        for mount in mountinfo.parse(table):
            if mount.fstype == "nsfs" and mount.root == self._link and mount.target != self._pin:
                path = os.fsencode(mount.target).decode("utf-8", "replace")
                self._add(pid, "mount", path=path)

    def _is_open(self, process: str, fd: str) -> bool:
        """Whether a descriptor is the namespace: its link says so, or it was opened by a path, and fdinfo does."""
        place = f"{process}/fd/{fd}"
        try:
            link = os.readlink(place)
            if link == self._link or not link.startswith(("/", "(")):
                return link == self._link
            with open(f"{process}/fdinfo/{fd}", encoding="ascii", errors="replace") as file:  # noqa: PTH123
                inodes = [line.split()[1] for line in file if line.startswith("ino:")]
            if inodes != [str(self._inode)] and (inodes or link != self._pin):
                return False
            status = os.stat(place)
            return (status.st_dev, status.st_ino) == (_nsfs(), self._inode)
        except PermissionError:
            raise
        except OSError:  # closed meanwhile
            return False


def _namespace(place: str) -> str:
    """The mount namespace of a process or thread; empty for one that has ended.  Raises: PermissionError."""
    try:
        return os.readlink(f"{place}/ns/mnt")
    except PermissionError:
        if _has_ended(place):
            return ""
        raise
    except OSError:
        return ""


def _has_ended(place: str) -> bool:
    """Whether a process or thread has ended, and waits for its parent or for its threads, proc_pid_stat(5)."""
    try:
        with open(f"{place}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True


def _nsfs() -> int:
    """The device of the filesystem that all namespaces are files of."""
    return os.stat("/proc/self/ns/mnt").st_dev
