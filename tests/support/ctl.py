# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl as its users run it: with pipes, on a terminal, and as somebody else."""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from .buses import PrivateBus
from .daemon import Daemon, copy_program

Result = subprocess.CompletedProcess[str]
TIMEOUT = 20.0
PROGRAM = (sys.executable, "-m", "mountnsd.ctl")


class Program(Protocol):
    """What can be run on a terminal: the words it begins with, and its environment."""

    @property
    def command(self) -> Sequence[str]:
        """The words."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment."""


class Ctl:
    """Runs mountnsctl on a bus, from a copy that every user can read, as he can where it is installed."""

    def __init__(self, bus: PrivateBus, daemon: Daemon | None) -> None:
        self.command: Sequence[str] = PROGRAM
        self.environment: Mapping[str, str] = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(copy_program(bus.directory)),
            "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
            "MOUNTNSD_RUNTIME_DIRECTORY": str(daemon.runtime) if daemon else "/nowhere",
            "TERM": "xterm",
            "TZ": "UTC",
        }

    def start(self, *words: str, **more: Any) -> "subprocess.Popen[str]":
        """Start a command line, with pipes; `more` is for Popen."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environment = {**self.environment, **more.pop("env", {})}
        return subprocess.Popen([*PROGRAM, *words], **{"text": True, **pipes, "env": environment, **more})

    def __call__(self, *words: str, input: str = "", uid: int = 0, **more: Any) -> Result:  # noqa: A002
        """Run a command line to its end."""
        identity = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
        process = self.start(*words, **identity, **more)
        try:
            out, err = process.communicate(input, TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{words} hangs after {out!r}, {err!r}") from None
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def ok(self, *words: str, **more: Any) -> str:
        """Run a command line that must succeed and say nothing on standard error; returns its output."""
        result = self(*words, **more)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def still(self, name: str) -> None:
        """Create a namespace whose mounts stay as they are, whatever others test on this host meanwhile.

        Nothing travels into it; and there is nothing in it that ends with a directory of others' tests.
        """
        self.ok("create", name, "--propagation=private")
        below = f"{tempfile.gettempdir()}/"
        targets = [found["target"] for found in self.json("mounts", name)]
        passing = [target for target in targets if target.startswith(below)]
        if passing:
            self("umount", name, "--lazy", *reversed(passing))  # some may have gone by now

    def json(self, *words: str) -> Any:
        """What a command line prints with --json=short."""
        return json.loads(self.ok(*words, "--json=short"))


class Terminal:
    """mountnsctl, or another program, on a terminal of its own, whose user we are; a context manager that ends it."""

    def __init__(self, ctl: Program, *words: str, uid: int = 0, env: Mapping[str, str] | None = None) -> None:
        self.pid, self._master = os.forkpty()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))
                if uid:
                    os.setgroups([])
                    os.setresgid(uid, uid, uid)
                    os.setresuid(uid, uid, uid)
                os.execvpe(ctl.command[0], [*ctl.command, *words], {**ctl.environment, **(env or {})})
            finally:
                os._exit(99)
        self.seen = ""
        self._status: int | None = None

    def modes(self) -> list[Any]:
        """The terminal's settings."""
        return termios.tcgetattr(self._master)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, as a terminal emulator does."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def press(self, text: str) -> None:
        """Type something."""
        os.write(self._master, text.encode())

    def _read(self, deadline: float) -> bool:
        if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0]:
            raise AssertionError(f"nothing came after {self.seen!r}")
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return True

    def expect(self, pattern: str) -> "re.Match[str]":
        """Wait until the terminal shows what matches; forgets all up to there."""
        deadline = time.monotonic() + TIMEOUT
        while (match := re.search(pattern, self.seen)) is None:
            assert self._read(deadline), f"it ended after {self.seen!r}, without {pattern!r}"
        self.seen = self.seen[match.end() :]
        return match

    def end(self) -> int:
        """Read to the end and wait; returns the exit status as Popen has it."""
        deadline = time.monotonic() + TIMEOUT
        while self._status is None and self._read(deadline):
            pass
        return self._wait()

    def _wait(self) -> int:
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def hang_up(self) -> int:
        """Close the terminal's window; returns the exit status."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        return self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.hang_up()


def wait_until(condition: Callable[[], bool], timeout: float = TIMEOUT) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
