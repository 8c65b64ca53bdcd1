# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real daemon, as a fork of the tests' process: all is imported already, so that a start takes no time."""

import os
import select
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mountnsd import daemon as real
from mountnsd import declaration, headstart, notice, service, spawn
from support import hidden

from .seccomp import install, listen
from .step import PASSED_OVER, Reader, Step
from .supervisor import Supervisor, Trap

_PATIENCE = 10.0  # seconds


class Daemon:
    """A mountnsd whose system calls a supervisor answers for.

    Arguments: place: an existing directory; address: of the bus; arguments: more of the command line.

    Attributes: runtime, configuration; pid: 0 while none runs; status: how the last one ended.
    """

    def __init__(self, place: Path, address: str, *arguments: str) -> None:
        self.runtime = place / "mountnsd"
        self.configuration = place / "etc"
        self.configuration.mkdir(exist_ok=True)
        if hidden.HIDE:
            (self.configuration / "mountnsd.toml").write_text('holder = "hidden"\n')
        self._place = place
        self._log = place / "log"
        self._address = address
        self._arguments = arguments
        self.pid = 0
        self.status = 0
        self._supervisor: Supervisor | None = None

    def start(self) -> None:
        """Start it, and return when it is ready; it is supervised from then on.

        Raises: AssertionError with its log if it ends instead.
        """
        self._fork(at_once=False)
        assert self.pid, f"it did not start:\n{self.log()}"

    def start_armed(self, trap: Trap | None = None) -> Counter[Step]:
        """Start it, armed from its first call on; returns its steps until it was ready, or had ended."""
        seen: Counter[Step] = Counter()
        self._fork(at_once=True, trap=trap, seen=seen)
        if self._supervisor is not None:
            self._supervisor.disarm()
        return seen

    @contextmanager
    def armed(self, trap: Trap | None = None) -> Iterator[Counter[Step]]:
        """Count its steps meanwhile, and let the trap's fail."""
        assert self._supervisor is not None
        with self._supervisor.armed(trap) as seen:
            yield seen

    @property
    def hit(self) -> bool:
        """Whether the last trap's step was reached."""
        return self._supervisor is not None and self._supervisor.hit

    def _fork(self, *, at_once: bool, trap: Trap | None = None, seen: Counter[Step] | None = None) -> None:
        assert not self.pid
        address = self._place / "notify"
        address.unlink(missing_ok=True)
        announced, announce = os.pipe()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(address))
            self.pid = pid = os.fork()
            if pid == 0:
                notify.close()
                os.close(announced)
                self._run(announce, at_once)
            os.close(announce)
            places = {f"{self.runtime}/": "", f"{self._place}/": ""}
            try:
                supervisor = Supervisor(pid, listen(pid, announced), Reader(pid, places))
                self._supervisor = supervisor
                if seen is not None:
                    supervisor.arm(trap, seen)
                supervisor.start()
                self._wait(notify)
            except EOFError:
                self.reap()
            finally:
                os.close(announced)

    def _run(self, announce: int, at_once: bool) -> None:
        """Be the daemon; never returns."""
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(120)
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            for number, fd in ((0, null), (1, log), (2, log)):
                os.dup2(fd, number)
            os.closerange(3, announce)
            os.closerange(announce + 1, 1022)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            sys.stdout = sys.stderr
            os.environ["NOTIFY_SOCKET"] = str(self._place / "notify")
            os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = self._address
            # What others change is looked at when somebody asks, and not while something else is counted.
            notice._NOTICE_DELAY = service._COUNT_DELAY = 1000.0
            # What the kernel has in its cache just now depends on the moment; as if it had nothing.
            declaration.is_surely_none = lambda *_: False
            # Whether there is a head start depends on the host, and it is no loss where there is none.
            headstart.HeadStart._give = lambda *_: None  # type: ignore[method-assign]
            # A thread that spawns goes on beside the others, so that steps come in any order; of what fails there the
            # long way is taken, whose steps these are (integration/test_spawn.py has the short one).
            spawn.begin = lambda *_: None
            tell = real._tell_systemd

            def tell_supervised(state: str) -> None:
                if state.startswith("READY=1"):
                    install(announce, PASSED_OVER)
                tell(state)

            if at_once:
                install(announce, PASSED_OVER)
            else:
                real._tell_systemd = tell_supervised
            status = real.main(self._command())
        finally:
            os._exit(status)

    def _command(self) -> list[str]:
        return [
            f"--runtime-directory={self.runtime}",
            f"--config-directory={self.configuration}",
            f"--vendor-directory={self._place / 'vendor'}",
            "--log-target=stderr",
            "--allow-foreign-namespace",
            *self._arguments,
        ]

    def _wait(self, notify: socket.socket) -> None:
        """Wait until it is ready, or has ended."""
        pidfd = os.pidfd_open(self.pid)
        try:
            end = time.monotonic() + _PATIENCE
            while time.monotonic() < end:
                readable, _, _ = select.select([notify.fileno(), pidfd], [], [], 0.2)
                if notify.fileno() in readable and b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
                if pidfd in readable:
                    self.reap()
                    return
                if "could not be told our state" in self.log()[-300:]:
                    return
        finally:
            os.close(pidfd)
        raise TimeoutError(f"it did not become ready:\n{self.log()}")

    def ended(self, patience: float = 0.0) -> bool:
        """Whether it has ended, within so many seconds."""
        if not self.pid:
            return True
        pidfd = os.pidfd_open(self.pid)
        try:
            if not select.select([pidfd], [], [], patience)[0]:
                return False
        finally:
            os.close(pidfd)
        self.reap()
        return True

    def reap(self) -> None:
        """Wait for its end."""
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        self.pid = 0

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            assert self.ended(_PATIENCE), "it does not end"

    def stop(self) -> None:
        """End it as systemd does; its namespaces stay."""
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            assert self.ended(_PATIENCE), "it does not end"

    def log(self) -> str:
        """All that it has said, over all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def forget_log(self) -> None:
        """Begin the log anew."""
        os.truncate(self._log, 0)
