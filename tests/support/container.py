# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs systemd-nspawn(1) with a machine that boots from a root tree; itself run in a mount namespace of its own.

What is mounted here is seen by nobody else and gone with the machine. It works without a systemd that runs, and where
the host has control groups of version 1.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_PR_SET_PDEATHSIG = 1
_REBOOT = 133  # what systemd-nspawn ends with so that its service starts it again
_LIBC = ctypes.CDLL(None)


def _run(*command: str) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=30, check=True)


def _end_with(parent: int) -> None:
    """Have the kernel end this process with its parent."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main(root: str, directory: str, name: str, parent: str) -> int:
    """Boot an overlay over ROOT, below DIRECTORY, in the new control group NAME, and again when it reboots.

    Returns: the exit status of systemd-nspawn.

    Raises: OSError, subprocess.SubprocessError.
    """
    _end_with(int(parent))
    resolver = Path("/etc/resolv.conf").read_text()

    if not (CGROUPS / "cgroup.controllers").exists():
        if os.path.ismount(CGROUPS):
            _run("umount", "--recursive", str(CGROUPS))
        _run("mount", "-t", "cgroup2", "cgroup2", str(CGROUPS))
    cgroup = CGROUPS / name
    cgroup.mkdir()

    # systemd-nspawn keeps notes and locks in /run: not in the host's.
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    disk = Path(directory)
    _run("mount", "-t", "tmpfs", "-o", "mode=755,size=3g", "tmpfs", str(disk))
    layers = [disk / layer for layer in ("upper", "work", "root")]
    for layer in layers:
        layer.mkdir()
    upper, work, merged = layers
    upper.chmod(0o755)
    _run(
        "mount",
        "-t",
        "overlay",
        "-o",
        f"lowerdir={root},upperdir={upper},workdir={work}",
        "overlay",
        str(merged),
    )
    (merged / "etc" / "resolv.conf").write_text(resolver)

    nspawn = [
        "systemd-nspawn",
        "--boot",
        f"--directory={merged}",
        f"--machine={name}",
        "--register=no",
        "--keep-unit",
        "--console=pipe",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
    ]
    status = _REBOOT
    while status == _REBOOT:
        status = _run_in(cgroup, nspawn)
    return status


def _run_in(cgroup: Path, command: list[str]) -> int:
    """Run a command in a control group; returns its exit status."""
    us = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _end_with(us)
            (cgroup / "cgroup.procs").write_text("0")
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
