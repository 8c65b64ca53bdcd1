# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether any process is left in a control group, waiting until none is, and the unit that a group is of.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst (cgroup.events), cgroups(7) (/proc/PID/cgroup).
"""

import asyncio
import errno
import os
import select
from pathlib import Path

from mountnsd import syscalls

ROOT = Path("/sys/fs/cgroup")
_TABLE = 1 << 16  # bytes: a line for each hierarchy


def populated(group: str) -> bool:
    """Whether processes are in a control group or below it.

    Arguments: group: its path below the root of all, as systemd gives it.
    Raises: OSError, where it cannot be told: EOPNOTSUPP without the unified hierarchy.
    """
    try:
        return _says_populated(_events(group).read_bytes())
    except FileNotFoundError:
        return False


async def emptied(group: str) -> None:
    """Wait until no process is left in a control group.  Raises OSError as `populated`."""
    loop = asyncio.get_running_loop()
    empty: asyncio.Future[None] = loop.create_future()
    try:
        fd = os.open(_events(group), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # The file is always readable; what tells of a change is POLLPRI, which asyncio has not got.
        with select.epoll() as changes:
            changes.register(fd, select.EPOLLPRI)

            def look() -> None:
                changes.poll(0)
                try:
                    gone = not _says_populated(os.pread(fd, 4096, 0))
                except OSError:  # ENODEV: the group itself is gone
                    gone = True
                if gone and not empty.done():
                    empty.set_result(None)

            loop.add_reader(changes.fileno(), look)
            try:
                look()
                await empty
            finally:
                loop.remove_reader(changes.fileno())
    finally:
        syscalls.close(fd)


def own() -> str:
    """Our own control group, as `populated` takes it.  Raises OSError: ENOENT: we are in none that can be seen."""
    table = syscalls.beginning("/proc/self/cgroup", _TABLE).decode("utf-8", "surrogateescape")
    for line in table.splitlines():
        if line.startswith("0::/") and ".." not in line.split("/"):  # those lead out of what is mounted here
            return line.removeprefix("0::")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/proc/self/cgroup")


def unit_of(pid: int) -> str:
    """The systemd unit that a process is in, as sd_pid_get_unit(3) has it; empty where it is in none.

    For information: the process may have ended, and its pid may be another's by now.
    """
    try:
        return unit_in(syscalls.beginning(f"/proc/{pid}/cgroup", _TABLE).decode("utf-8", "replace"))
    except OSError:
        return ""


def unit_in(table: str) -> str:
    """The systemd unit that a /proc/PID/cgroup tells of, empty for none.

    It is the outermost one: what a user makes below his own he names as he likes.
    """
    # Without the unified hierarchy systemd has one of its own, by name.
    paths = [
        line.split(":", 2)[2]
        for line in table.splitlines()
        if line.startswith("0::/") or ":name=systemd:/" in line
    ]
    for part in (part for path in paths for part in path.split("/")):
        name = part.removeprefix("_")  # systemd escapes what could be a file of the kernel's
        if name.endswith((".service", ".scope", ".socket", ".mount", ".swap")):
            return name
    return ""


def _events(group: str) -> Path:
    """The file that tells.  Raises OSError as `path`."""
    return path(group) / "cgroup.events"


def path(group: str) -> Path:
    """Where a control group is.  Raises: OSError: EOPNOTSUPP: what is missing here may be in another hierarchy."""
    fd = os.open(ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syscalls.fstatfs_type(fd) != syscalls.CGROUP2_SUPER_MAGIC:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(ROOT))
    finally:
        syscalls.close(fd)
    return ROOT / group.lstrip("/")


def _says_populated(text: bytes) -> bool:
    return b"populated 1" in text.splitlines()
