# SPDX-License-Identifier: LGPL-2.1-or-later
"""Work that is killed before each single call that it makes of the system."""

import mmap
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from mountnsd import syscalls

Killable = Mapping[ModuleType, Sequence[str]]
KILLABLE: Killable = {
    os: ("open", "close", "unlink", "rename", "fstat", "mkdir", "listdir"),
    syscalls: ("open_tree", "move_mount", "umount2", "mntns_id", "fstatfs_type", "ns_type"),
}


def killed_at(
    step: int, work: Callable[[Callable[[], None]], None], killable: Killable = KILLABLE
) -> tuple[list[str], bool]:
    """Do work in a child that is killed before a call of the system, counted from when it says so.

    Arguments: step: before which call; work: gets what says so; killable: the calls that count.
    Returns: the calls that were made, and whether the work came to its end.
    """
    record = mmap.mmap(-1, 1 << 16)  # and no pipe: a thread may have closed all descriptors
    pid = os.fork()
    if pid == 0:
        made = 0
        armed = False

        def arm() -> None:
            nonlocal armed
            armed = True

        kill = os.kill

        def mortal(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def body(*arguments: Any, **options: Any) -> Any:
                nonlocal made
                if armed:
                    if made == step:
                        kill(os.getpid(), signal.SIGKILL)
                    made += 1
                result = function(*arguments, **options)
                if armed:
                    record.write(f"{name}\n".encode())
                return result

            return body

        try:
            for module, functions in killable.items():
                for name in functions:
                    setattr(module, name, mortal(name, getattr(module, name)))
            work(arm)
            armed = False
            record.write(b"acknowledged\n")
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    calls = record[:].rstrip(b"\0").decode().split()
    record.close()
    acknowledged = calls[-1:] == ["acknowledged"]
    assert acknowledged or os.WIFSIGNALED(status), f"the work failed after {calls}"
    return calls[: len(calls) - acknowledged], acknowledged
