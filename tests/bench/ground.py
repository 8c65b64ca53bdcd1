# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where it is all done: a tmpfs of its own, as /run is one, on which nothing is left at the end.

Out of scope: the daemon, and what it is compared with.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import leaks
from support.buses import PrivateBus

from .floor import Floor, build
from .installed import Program, install

_PREFIX = "mountnsd-bench-"


@dataclass(frozen=True)
class Ground:
    """A place to measure in.

    Attributes: directory: a private tmpfs; disk: one on a disk, as /etc is; pins: the directory for the pins of
        unshare(1); holder: a tmpfs for those of the bare system calls, which is set up as the daemon's; program: the
        installed one; floor.
    """

    directory: Path
    disk: Path
    pins: Path
    holder: Path
    program: Program
    floor: Path

    def room(self, name: str) -> Path:
        """A new directory."""
        path = self.directory / name
        path.mkdir()
        return path

    def environment(self, bus: str, runtime: Path) -> dict[str, str]:
        """What the commands are run with."""
        kept = {key: value for key, value in os.environ.items() if key in ("LANG", "LC_ALL")}
        return {
            **kept,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DBUS_SYSTEM_BUS_ADDRESS": bus,
            "MOUNTNSD_RUNTIME_DIRECTORY": str(runtime),
        }


def _mount_tmpfs(path: Path, propagation: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "mode=0755,nr_inodes=0", "mountnsd-bench", str(path)], check=True
    )
    subprocess.run(["mount", f"--make-{propagation}", str(path)], check=True)


def take_down(directory: Path) -> None:
    """Detach all that is mounted at or below a directory, the lowest first, which takes what is on it along."""
    while mounts := leaks.mounts_below(directory):
        leaks.detach(mounts[0])


def left_behind(ground: Path) -> list[str]:
    """What is left of a run, in words; nothing, if all is well."""
    left = [f"mount {mount.point}" for mount in leaks.mounts_below(ground)]
    left += [f"process {leaks.describe(pid)}" for pid in leaks.running()]
    return left + ([f"directory {ground}"] if ground.exists() else [])


@contextmanager
def ground() -> Iterator[Ground]:
    """A place, for as long as the context lasts.  Raises: AssertionError where something is left behind."""
    leaks.become_subreaper()
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    directory.chmod(0o755)
    disk = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/var/tmp"))
    try:
        _mount_tmpfs(directory, "private")
        for name in ("pins", "holder", "program"):
            (directory / name).mkdir()
        _mount_tmpfs(directory / "holder", "unbindable")
        program = install(directory / "program")
        yield Ground(
            directory, disk, directory / "pins", directory / "holder", program, build(directory / "program")
        )
    except BaseException:
        for pid in leaks.running():  # that was interrupted before anybody knew of it
            leaks.end(pid)
        raise
    finally:
        take_down(directory)
        shutil.rmtree(directory)
        shutil.rmtree(disk)
    left = left_behind(directory)
    assert not left, f"the measurements left behind: {left}"


@contextmanager
def bus(ground: Ground, name: str) -> Iterator[PrivateBus]:
    """A bus in a directory of that name."""
    with PrivateBus("dbus-daemon", ground.room(name)) as running:
        yield running


@contextmanager
def floor(ground: Ground, environment: dict[str, str]) -> Iterator[Floor]:
    """The small process that runs everything else."""
    with Floor(ground.floor, environment) as running:
        yield running
