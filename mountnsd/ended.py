# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a process has ended that is no child of ours, by the word of the kernel, which has it as long as nobody has
waited for it.

Its parent is told at the same moment as we are.  So this is a race, and whoever loses it asks the parent.

Out of scope: what to do then (unitprocess.py).

Sources: proc_pid_stat(5) (exit_code), wait(2), pidfd_send_signal(2), and fs/proc/array.c of the kernel, do_task_stat.
"""

import os
import signal

from mountnsd import syscalls

# Since then it is what wait(2) says.  Before it was that of the first thread, which may have ended before the others.
_TRUE_SINCE = (5, 17)
_ROOM = 4096  # a line of numbers


def status(pid: int, pidfd: int) -> tuple[int, int] | None:
    """The si_code and si_status of a process that has ended, as of waitid(2); None where the kernel does not tell.

    Arguments: pidfd: of it, borrowed, and readable: it has ended.
    """
    if not _tells():
        return None
    try:
        code = _code(pid)
        # What we may not see is a 0 there.  This asks for the same permission, and fails without.
        if code == 0:
            os.readlink(f"/proc/{pid}/ns/user")
        # It is still there, and so nobody else had its pid meanwhile.
        signal.pidfd_send_signal(pidfd, 0)
    except (OSError, ValueError, IndexError):
        return None
    return _si(code)


def _tells() -> bool:
    version = os.uname().release.split(".")
    try:
        return (int(version[0]), int(version[1].partition("-")[0])) >= _TRUE_SINCE
    except (ValueError, IndexError):
        return False


def _code(pid: int) -> int:
    """What wait(2) would say of a process that has ended.  Raises OSError, ValueError, IndexError."""
    line = syscalls.beginning(f"/proc/{pid}/stat", _ROOM)
    fields = line.rpartition(b") ")[2].split()  # what is before that is the program's own words
    if fields[0] != b"Z":
        raise ValueError("it has not ended")
    return int(fields[49])  # the 52nd of the line


def _si(code: int) -> tuple[int, int]:
    if os.WIFEXITED(code):
        return os.CLD_EXITED, os.WEXITSTATUS(code)
    return os.CLD_DUMPED if os.WCOREDUMP(code) else os.CLD_KILLED, os.WTERMSIG(code)
