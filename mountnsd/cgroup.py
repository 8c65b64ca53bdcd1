# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether any process is left in a control group, and waiting until none is.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst (cgroup.events).
"""

import asyncio
import os
import select
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def populated(group: str) -> bool:
    """Whether processes are in a control group or below it.

    Arguments: group: its path below the root of all, as systemd gives it.
    Raises: OSError, where it cannot be told (ENOENT: there is no such group, or none of the unified hierarchy).
    """
    return _says_populated((ROOT / group.lstrip("/") / "cgroup.events").read_bytes())


async def emptied(group: str) -> None:
    """Wait until no process is left in a control group.  Raises OSError as `populated`."""
    loop = asyncio.get_running_loop()
    empty: asyncio.Future[None] = loop.create_future()
    fd = os.open(ROOT / group.lstrip("/") / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
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
        os.close(fd)


def _says_populated(text: bytes) -> bool:
    return b"populated 1" in text.splitlines()
