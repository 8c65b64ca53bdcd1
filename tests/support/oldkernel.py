# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon as on older kernels.

Before Linux 6.11 they have no 64-bit id of a mount namespace.  Nor do they tell of single mounts, so that all are
read.  Before Linux 5.17 they do not tell how a process has ended, so that systemd is asked.
"""

from .daemon import Daemon

_WITHOUT_IDS = """
from mountnsd import mountevents, syscalls
syscalls.mntns_id = lambda fd: 0
def refuse(fd):
    raise OSError(38, "Function not implemented")
mountevents.id_of = refuse
"""
_UNTOLD = """
from mountnsd import ended
ended.status = lambda pid, pidfd: None
"""
_PROGRAM = """
import sys
from mountnsd.daemon import main
sys.exit(main())
"""


class _OldDaemon(Daemon):
    """As Daemon.  Attributes: change: what is done before."""

    change = ""

    def command(self) -> list[str]:
        command = super().command()
        at = command.index("-m")
        return [*command[:at], "-c", self.change + _PROGRAM, *command[at + 2 :]]


class DaemonWithoutIds(_OldDaemon):
    """As Daemon."""

    change = _WITHOUT_IDS


class UntoldDaemon(_OldDaemon):
    """As Daemon."""

    change = _UNTOLD
