# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon as on a kernel before Linux 6.11, which has no 64-bit id of a mount namespace."""

from .daemon import Daemon

_PROGRAM = """
import sys
from mountnsd import syscalls
syscalls.mntns_id = lambda fd: 0
from mountnsd.daemon import main
sys.exit(main())
"""


class DaemonWithoutIds(Daemon):
    """As Daemon."""

    def command(self) -> list[str]:
        command = super().command()
        at = command.index("-m")
        return [*command[:at], "-c", _PROGRAM, *command[at + 2 :]]
