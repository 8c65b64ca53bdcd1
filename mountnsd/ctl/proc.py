# SPDX-License-Identifier: LGPL-2.1-or-later
"""What /proc says of the processes of this host, as far as the user may read it.

Sources: proc_pid_cgroup(5), proc_pid_comm(5), proc_pid_ns(5), systemd's cg_path_get_unit().
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_ROOT = "/proc"
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")


def pids() -> Iterator[int]:
    """All processes that are to be seen, by pid."""
    yield from sorted(int(entry) for entry in os.listdir(_ROOT) if entry.isdigit())


def unit_of(pid: int) -> str:
    """The system unit that a process belongs to, empty where it is in none or that cannot be known."""
    try:
        with open(f"{_ROOT}/{pid}/cgroup", "rb") as file:  # noqa: PTH123
            return unit_in(os.fsdecode(file.read()))
    except OSError:
        return ""


def unit_in(cgroups: str) -> str:
    """The unit that the control groups of a process tell: of the unified hierarchy, else of systemd's own old one."""
    paths = {}
    for line in cgroups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths[controllers or number] = path
    return _unit_of_group(paths.get("0", "")) or _unit_of_group(paths.get("name=systemd", ""))


def _unit_of_group(path: str) -> str:
    """The first unit below the slices, or the last slice; empty where systemd did not make the group."""
    found = ""
    for part in path.strip("/").split("/"):
        name = part.removeprefix("_")  # how systemd escapes what the kernel could take for a file of its own
        if name.endswith(_UNITS):
            return name
        if not name.endswith(".slice"):
            break
        found = name
    return found


def owner(pid: int) -> int:
    """The uid of a process.  Raises: OSError."""
    return os.stat(f"{_ROOT}/{pid}").st_uid


def command(pid: int) -> str:
    """What a process calls itself.  Raises: OSError."""
    with open(f"{_ROOT}/{pid}/comm", "rb") as file:  # noqa: PTH123
        return file.read(64).rstrip(b"\n").decode("utf-8", "replace")
