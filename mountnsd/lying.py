# SPDX-License-Identifier: LGPL-2.1-or-later
"""How many descriptors such as we send lie in the bus, on their way to somebody who does not read.

Source: proc_pid_fd(5), pidfd_open(2), namespaces(7).
"""

import os

from mountnsd.bus import DRIVER, Bus, CallError

_OURS = ("anon_inode:[pidfd]", "pidfd:[", "mnt:[")  # the second since Linux 6.9


async def in_bus(bus: Bus) -> int | None:
    """The number, of ours and of others of that kind; None where it cannot be known.  Raises: Disconnected."""
    try:  # its answer comes after the bus has taken all that we sent before
        (pid,) = await bus.call_driver("GetConnectionUnixProcessID", "s", DRIVER)
        return count(int(pid))
    except (CallError, OSError):
        return None


def count(pid: int) -> int:
    """The number in the table of a process.  Raises: OSError."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith(_OURS)
        except FileNotFoundError:  # closed meanwhile
            continue
    return found
