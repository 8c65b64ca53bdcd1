# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl exec` as systemd runs it for a service: as another user, with capabilities for the way in."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import leaks
from .daemon import copy_program
from .identity import NOBODY

WAY_IN = ("sys_admin", "sys_chroot", "dac_read_search")
TIMEOUT = 20.0
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C"}
Result = subprocess.CompletedProcess[str]


class Exec:
    """Runs `mountnsctl exec` in a world that has one pinned namespace, `ns`, in a holder as the daemon's."""

    def __init__(self, directory: Path, program: Path) -> None:
        self.run = directory / "run"
        self.program = directory / "mountnsctl"
        self.program.write_text(
            f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(program)!r})\n"
            "from mountnsd.ctl.main import program\nprogram()\n"
        )
        self.program.chmod(0o755)

    def shell(
        self,
        *command: str,
        identity: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        service: bool = True,
    ) -> list[str]:
        """What runs a command inside, by way of setpriv(1) with the arguments `identity`."""
        words = [str(self.program), "exec", f"--runtime-directory={self.run}", *options, "ns", "--", *command]
        if identity:
            words = ["setpriv", *identity, *words]
        # setpriv and sh become the program, so that it has the pid that is said here, as with systemd.
        told = "SYSTEMD_EXEC_PID=$$; export SYSTEMD_EXEC_PID; " if service else ""
        return ["/bin/sh", "-c", f'{told}exec "$@"', "sh", *words]

    def __call__(
        self,
        *command: str,
        identity: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        service: bool = True,
        **more: Any,
    ) -> Result:
        """Run a command inside, as `shell` has it."""
        shell = self.shell(*command, identity=identity, options=options, service=service)
        more = {"env": ENVIRONMENT, **more}
        return subprocess.run(shell, capture_output=True, text=True, check=False, timeout=TIMEOUT, **more)


@contextmanager
def service_world(directory: Path) -> Iterator[Exec]:
    """A holder as the daemon's with one namespace, `ns`, which has a tmpfs on `directory`, and what runs exec."""
    holder = directory / "run" / "ns"
    holder.mkdir(parents=True)
    mounted = ["mount", "-t", "tmpfs", "-o", "mode=0700", "holder", str(holder)]
    subprocess.run(mounted, check=True)
    subprocess.run(["mount", "--make-private", str(holder)], check=True)
    (holder / "ns").touch()
    for _ in range(64):  # where namespaces are numbered per CPU, the bind fails now and then in a container
        inside = f"mount -t tmpfs inside {directory} && mkdir {directory}/stays && touch {directory}/hi-there"
        made = subprocess.run(
            ["unshare", f"--mount={holder}/ns", "sh", "-c", inside], capture_output=True, check=False
        )
        if made.returncode == 0:
            break
    assert made.returncode == 0, made.stderr
    try:
        yield Exec(directory, copy_program(directory))
    finally:
        for mount in leaks.mounts_below(holder)[::-1]:
            leaks.detach(mount)
        shutil.rmtree(directory / "run")


def user(*ambient: str, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The arguments of setpriv(1) for a user with ambient capabilities."""
    raised = ",".join(f"+{name}" for name in ambient) or "-all"
    return (
        *(f"--reuid={NOBODY}", f"--regid={NOBODY}", "--groups=33,44"),
        *(f"--inh-caps={raised}", f"--ambient-caps={raised}", *more),
    )
