# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program as it is where it is installed: by the Makefile, with its modules compiled, as packages do."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support import hidden
from support.buses import PrivateBus
from support.daemon import REPOSITORY, Daemon

HOST, HIDDEN = HOLDERS = ("host", "hidden")


@dataclass(frozen=True)
class Program:
    """What was installed.  Attributes: daemon, ctl: the commands; library: what Python imports."""

    daemon: Path
    ctl: Path
    library: Path


def install(directory: Path) -> Program:
    """Install into a directory.  Raises: subprocess.CalledProcessError with what make(1) said."""
    places = {
        "PREFIX": directory,
        "BINDIR": directory / "bin",
        "SBINDIR": directory / "sbin",
        "LIBDIR": directory / "lib",
        "UNITDIR": directory / "units",
        "BASHDIR": directory / "bash",
        "ZSHDIR": directory / "zsh",
        "FISHDIR": directory / "fish",
        "POLICYDIR": directory / "policy",
        "SERVICEDIR": directory / "services",
        "ACTIONSDIR": directory / "actions",
        "CATALOGDIR": directory / "catalog",
        "CONFIGDIR": directory / "etc",
        "DECLAREDDIR": directory / "vendor",
        "PAGES": "",  # the manual pages need pandoc, and nobody reads them here
        "DESTDIR": "",
    }
    command = ["make", "--silent", "--no-print-directory", "install"]
    command += [f"{key}={value}" for key, value in places.items()]
    subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, timeout=120, check=True)
    compile_all = [sys.executable, "-m", "compileall", "-q", str(directory / "lib")]
    subprocess.run(compile_all, timeout=120, check=True)
    return Program(directory / "sbin" / "mountnsd", directory / "bin" / "mountnsctl", directory / "lib")


class Installed(Daemon):
    """The installed daemon, with one kind of holder and without systemd."""

    def __init__(self, program: Program, bus: PrivateBus, directory: Path, disk: Path, holder: str) -> None:
        super().__init__(bus, directory)
        self._program = program
        # /run is a tmpfs, /etc and /usr/lib are not: whether a name is declared there is seen more quickly then.
        self.configuration, self.vendor = disk / "etc", disk / "lib"
        self.configuration.mkdir(exist_ok=True)
        setting = f'holder = "{holder}"\n' if holder != HOST else ""
        (self.configuration / "mountnsd.toml").write_text(setting)

    @property
    def anchor(self) -> Path | None:
        """The pin of the mount namespace that the pins are in, None where that is the host's."""
        return self.holder / hidden.ANCHOR if hidden.anchor_of(self.holder) else None

    def command(self) -> list[str]:
        """The command line."""
        inherited = super().command()
        return [str(self._program.daemon), *inherited[inherited.index("mountnsd") + 1 :], "--launcher=fork"]
