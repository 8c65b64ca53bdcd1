# SPDX-License-Identifier: LGPL-2.1-or-later
"""A filesystem in a namespace that does not answer: who asks it for something waits in the kernel."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mountnsd import syscalls

from . import leaks
from .contract import wait_until
from .ground import enter, forked


class Silent:
    """The server's end.  Attributes: place: where it is mounted inside."""

    def __init__(self, pin: Path, place: str) -> None:
        self.place = place
        self._server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)

        def mount() -> None:
            enter(pin)
            Path(place).mkdir(parents=True, exist_ok=True)
            options = f"fd={self._server},rootmode=40755,user_id=0,group_id=0,allow_other"
            syscalls.mount("silent", place, "fuse", 0, options)

        forked(mount)

    def fileno(self) -> int:
        """The descriptor of the server."""
        return self._server

    def end(self) -> None:
        """Let everybody go who waits: with an error."""
        server, self._server = self._server, -1
        if server >= 0:
            os.close(server)


@contextmanager
def silent(pin: Path, place: str) -> Iterator[Silent]:
    """Mount one inside for a while."""
    made = Silent(pin, place)
    try:
        yield made
    finally:
        made.end()


def waiting_for_it(pid: int) -> bool:
    """Whether a thread of a process waits for such a filesystem."""
    with suppress(OSError):
        return any("fuse" in (task / "stack").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    return False


def the_one_that_waits(inode: int, timeout: float = 10.0) -> int:
    """The process in the mount namespace `inode` that waits for such a filesystem."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [pid for pid in leaks.processes_in({inode}) if waiting_for_it(pid)]
        return bool(found)

    wait_until(look, timeout)
    return found[0]
