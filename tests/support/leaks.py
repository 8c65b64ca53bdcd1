# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a test left behind: mounts, descriptors, processes.

Everything is read from /proc, so that the code under test has no say in it.
"""

import ctypes
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import hidden

_PR_SET_CHILD_SUBREAPER = 36
_MNT_DETACH = 2
_MS_PRIVATE = 1 << 18
_UMOUNT_NOFOLLOW = 8
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class MountPoint:
    """One line of mountinfo."""

    mount_id: int
    parent_id: int
    root: str
    point: str
    fstype: str
    source: str


def _unescape(field: bytes) -> str:
    return os.fsdecode(field.decode("unicode_escape").encode("latin-1"))


def mounts(pid: int | str = "self") -> list[MountPoint]:
    """Every mount that a process sees, in the kernel's order."""
    return _parsed(Path(f"/proc/{pid}/mountinfo").read_bytes())


def _parsed(table: bytes) -> list[MountPoint]:
    found = []
    for line in table.splitlines():
        before, _, after = line.partition(b" - ")
        fields, tail = before.split(b" "), after.split(b" ")
        root, point = _unescape(fields[3]), _unescape(fields[4])
        found.append(
            MountPoint(int(fields[0]), int(fields[1]), root, point, tail[0].decode(), _unescape(tail[1]))
        )
    return found


def mounts_below(directory: Path | str) -> list[MountPoint]:
    """Every mount at or below a directory, which may be of a hidden holder."""
    own = hidden.own_path(directory)
    if own is None:
        prefix, table = str(Path(directory).resolve()), mounts()
    else:
        prefix = str(own[1])
        command = hidden.beside(directory, "cat", "/proc/self/mountinfo")
        table = _parsed(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=30).stdout)
    return [mount for mount in table if mount.point == prefix or mount.point.startswith(prefix + "/")]


def detach(mount: MountPoint) -> None:
    """Detach one mount, now; made private first, so that no peer elsewhere loses what is mounted on it.

    Raises: OSError if the kernel refuses.
    """
    point = os.fsencode(mount.point)
    _LIBC.mount(None, point, None, ctypes.c_ulong(_MS_PRIVATE), None)
    if _LIBC.umount2(point, _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), mount.point)


def fds_of(pid: int) -> dict[int, str]:
    """The open descriptors of a process, and what they lead to."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue
    return found


def signals(mask: str) -> int:
    """A signal mask of /proc/PID/status, without what the C library keeps to itself.

    Those are the signals 32 and 33, which no program can change by it and which make(1) leaves ignored.
    """
    return int(mask, 16) & ~(0b11 << 31)


def rss_kib(pid: int) -> int:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def become_subreaper() -> None:
    """Let every orphan below us become our child, so that none is lost."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads; without what has vanished."""
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return found
    for task in tasks:
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def descendants(pid: int | None = None) -> list[int]:
    """Every process below one, by default below ourselves."""
    found = []
    for child in children(os.getpid() if pid is None else pid):
        found += [child, *descendants(child)]
    return found


def running(timeout: float = 2.0) -> list[int]:
    """Every process below us that runs, once those that are about to end have had some time for it."""
    deadline = time.monotonic() + timeout
    while left := [pid for pid in descendants() if not is_zombie(pid)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return left


def describe(pid: int) -> str:
    """A process in words: pid, state and command line."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid} (gone)"
    return f"{pid} [{state}] {command.strip() or Path(f'/proc/{pid}/comm').read_text().strip()}"


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    return Path(f"/proc/{pid}").exists() and not is_zombie(pid)


def wait_gone(pid: int, timeout: float = 5.0) -> bool:
    """Wait until a process has ended, and collect it if it is our child.  False: it has not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        deadline = time.monotonic() + timeout
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        os.close(descriptor)
    reap(pid)
    return not alive(pid)


def reap(pid: int) -> None:
    """Collect a child that has ended; nothing if it is no child of ours or runs still."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def end(pid: int) -> None:
    """Kill a process that the tests started, through a pidfd, and see it gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
    wait_gone(pid)


def processes_in(inodes: set[int]) -> list[int]:
    """The processes that are in one of these mount namespaces."""
    wanted = {f"mnt:[{inode}]" for inode in inodes}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.readlink(entry / "ns" / "mnt") in wanted:
                found.append(int(entry.name))
        except OSError:
            continue
    return found
