# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon as on a kernel before Linux 6.11, which has no 64-bit id of a mount namespace.

Nor does it tell of single mounts, so that all are read.
"""

from .daemon import Daemon

_PROGRAM = """
import sys
from mountnsd import mountevents, syscalls
syscalls.mntns_id = lambda fd: 0
def refuse(fd):
    raise OSError(38, "Function not implemented")
mountevents.id_of = refuse
from mountnsd.daemon import main
sys.exit(main())
"""


class DaemonWithoutIds(Daemon):
    """As Daemon."""

    def command(self) -> list[str]:
        command = super().command()
        at = command.index("-m")
        return [*command[:at], "-c", _PROGRAM, *command[at + 2 :]]
