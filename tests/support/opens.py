# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who opens files of a namespace: each one waits in the kernel until it has been looked at.

Source: fanotify(7) (FAN_OPEN_PERM), which holds an open(2) and an execve(2) until it is answered, and says who it is.
"""

import ctypes
import os
import select
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .ground import call, enter, forked

_LIBC = ctypes.CDLL(None, use_errno=True)
_FAN_CLASS_CONTENT = 0x4
_FAN_CLOEXEC = 0x1
_FAN_MARK_ADD = 0x1
_FAN_MARK_FILESYSTEM = 0x100
_FAN_OPEN_PERM = 0x10000
_FAN_ALLOW = 1
_O_LARGEFILE = 0o100000
_EVENT = struct.Struct("IBBHQii")


@dataclass(frozen=True)
class Opening:
    """An open(2) or execve(2): the file, and who it was by the kernel's word, while he waited."""

    path: str
    pid: int
    uids: frozenset[int]
    effective: int  # capabilities

    @property
    def privileged(self) -> bool:
        """Whether somebody did it who has anything that a user has not."""
        return 0 in self.uids or bool(self.effective)


class Opens:
    """Watches filesystems of a namespace; a context manager.

    Arguments: pin: the namespace; places: paths inside, on filesystems that nobody else sees.
    Attributes: seen: what was opened so far.
    """

    def __init__(self, pin: Path, *places: str) -> None:
        self.seen: list[Opening] = []
        flags = os.O_RDONLY | os.O_CLOEXEC | _O_LARGEFILE
        self._fd = _LIBC.fanotify_init(_FAN_CLASS_CONTENT | _FAN_CLOEXEC, flags)
        call(self._fd)
        self._ending, self._end = os.pipe()

        def mark() -> None:
            enter(pin)
            for place in places:
                how, what = _FAN_MARK_ADD | _FAN_MARK_FILESYSTEM, ctypes.c_uint64(_FAN_OPEN_PERM)
                call(_LIBC.fanotify_mark(self._fd, how, what, -100, os.fsencode(place)))

        try:
            forked(mark)
        except BaseException:
            self._close()
            raise
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._ending], [], [])
            if self._fd not in ready:
                return
            data = os.read(self._fd, 4096)
            while data:
                length, _, _, _, _, fd, pid = _EVENT.unpack_from(data)
                data = data[length:]
                try:
                    self.seen.append(_opening(os.readlink(f"/proc/self/fd/{fd}"), pid))
                finally:
                    os.write(self._fd, struct.pack("iI", fd, _FAN_ALLOW))
                    os.close(fd)

    def privileged(self) -> list[Opening]:
        """What was opened by somebody who has anything that a user has not."""
        return [opening for opening in self.seen if opening.privileged]

    def _close(self) -> None:
        for fd in (self._fd, self._ending, self._end):
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._end, b".")
        self._thread.join(10)
        self._close()


def _opening(path: str, pid: int) -> Opening:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    return Opening(path, pid, frozenset(map(int, status["Uid"])), int(status["CapEff"][0], 16))
