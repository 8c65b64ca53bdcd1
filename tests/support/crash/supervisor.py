# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who answers for a daemon's system calls: lets them be made, but for the one that is to fail."""

import errno
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum

from support.daemon import REPOSITORY

from .seccomp import Listener, Notice, installed
from .step import Reader, Step

# The program's own files, and what the interpreter looks up for itself.
_LIBRARIES = ("/usr/lib/", "/usr/share/", "/usr/local/", str(REPOSITORY))
_CLOSED = "closed"  # what a descriptor leads to whose closing failed


class Fault(Enum):
    """What happens before a call is made, or instead of it."""

    KILL = "SIGKILL"  # of the daemon
    KILL_CHILD = "SIGKILL of the child"
    EPERM = "EPERM"
    ENOMEM = "ENOMEM"
    ENOSPC = "ENOSPC"
    EMFILE = "EMFILE"
    EINTR = "EINTR"

    @property
    def kills(self) -> bool:
        return self in (Fault.KILL, Fault.KILL_CHILD)


@dataclass(frozen=True, slots=True)
class Trap:
    """Where a fault waits. Arguments: nth: how many of the same step are let pass before."""

    step: Step
    nth: int
    fault: Fault


class Supervisor:
    """Answers in a thread of its own, until nobody asks any more.

    Arguments: pid: the daemon, a child of ours; listener: ours; reader: of its steps.
    """

    def __init__(self, pid: int, listener: Listener, reader: Reader) -> None:
        self._pid = pid
        self._listener = listener
        self._reader = reader
        self._begun = False
        self._armed = False
        self._trap: Trap | None = None
        self._seen: Counter[Step] = Counter()
        self.hit = False
        self._closed = os.memfd_create(_CLOSED)
        self._thread = threading.Thread(target=self._serve, name="supervisor", daemon=True)

    def start(self) -> None:
        """Let it go on."""
        self._thread.start()

    @contextmanager
    def armed(self, trap: Trap | None = None) -> Iterator[Counter[Step]]:
        """Count the steps meanwhile, and let the trap's fail."""
        seen: Counter[Step] = Counter()
        self.arm(trap, seen)
        try:
            yield seen
        finally:
            self.disarm()

    def arm(self, trap: Trap | None, seen: Counter[Step]) -> None:
        """As `armed`, until `disarm`."""
        self._reader.begin()
        self._seen, self._trap, self.hit, self._armed = seen, trap, False, True

    def disarm(self) -> None:
        """Let all calls be made."""
        self._armed = False

    def join(self) -> None:
        """Wait until nobody asks any more."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "somebody still runs that the daemon started"

    def _serve(self) -> None:
        try:
            while True:
                notice = self._listener.receive(1000)
                if notice is not None:
                    self._answer(notice)
        except EOFError:
            self._listener.close()
            os.close(self._closed)

    def _answer(self, notice: Notice) -> None:
        if not self._begun:
            self._begun = installed(notice)
        elif self._armed and self._reader.concerns(notice):
            step = self._reader.step(notice)
            if step.what.removeprefix("TCGETS ").startswith(_LIBRARIES):
                self._listener.proceed(notice)
                return
            nth = self._seen[step]
            self._seen[step] += 1
            trap = self._trap
            if trap is not None and not self.hit and trap.step == step and trap.nth == nth:
                self.hit = True
                if self._fail(notice, trap):
                    return
        self._listener.proceed(notice)

    def _fail(self, notice: Notice, trap: Trap) -> bool:
        """Let it happen. Returns: whether the call has been answered."""
        if trap.fault is Fault.KILL:
            os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):  # whoever started it has seen its end already
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        elif trap.fault is Fault.KILL_CHILD:
            os.kill(notice.tid, signal.SIGKILL)
        else:
            if trap.step.call == "close":  # close(2) takes the descriptor away, also when it fails
                self._listener.put(notice, self._closed, notice.arguments[0])
            self._listener.fail(notice, getattr(errno, trap.fault.value))
            return True
        return False
