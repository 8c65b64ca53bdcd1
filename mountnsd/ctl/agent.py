# SPDX-License-Identifier: LGPL-2.1-or-later
"""polkit's question for a password, on a terminal: pkttyagent(1) for as long as a call takes."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

_PROGRAM = "pkttyagent"


class Agent:
    """An authentication agent for this process, where one is needed and can be had; a context manager.

    Root needs none, and without a terminal there is nobody to ask.

    Arguments: wanted: whether the user may be asked at all.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted and os.geteuid() != 0 and os.isatty(0)
        self._pid = 0

    @property
    def running(self) -> bool:
        """Whether there is one, so that the terminal may be its."""
        return self._pid > 0

    def __enter__(self) -> Self:
        if self._wanted:
            self._start()
        return self

    def _start(self) -> None:
        """Start it, and return once it is ready or has failed: either way it closes the pipe."""
        ready, notify = os.pipe()
        me = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.set_inheritable(notify, True)
                _die_with_parent(me)
                os.execvp(
                    _PROGRAM, [_PROGRAM, "--process", str(me), "--notify-fd", str(notify), "--fallback"]
                )
            finally:
                os._exit(127)
        os.close(notify)
        with os.fdopen(ready, "rb") as pipe:
            pipe.read()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._pid:
            return
        import signal

        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        self._pid = 0


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process with its parent, prctl(2)."""
    import ctypes
    import signal

    from mountnsd.syscalls import PR_SET_PDEATHSIG

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)
