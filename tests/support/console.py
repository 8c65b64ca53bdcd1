# SPDX-License-Identifier: LGPL-2.1-or-later
"""Somebody at a terminal of a machine: what he types, what he sees, and how large his window is.

A user logs in, with a session of his own: without one, polkit asks him nothing.
"""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time

from .closing import Closing
from .machine import Failed, Machine, end

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_PAINT = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\r")


class Console(Closing):
    """The shell of a user, on a pseudoterminal of a machine; a context manager.

    Attributes: seen: all that was to be seen, without colours.
    """

    def __init__(self, machine: Machine, user: str = "root") -> None:
        devices = f"/proc/{machine.pid}/root/dev/pts"
        self._master = os.open(f"{devices}/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(self._master, _TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("I", fcntl.ioctl(self._master, _TIOCGPTN, b"\0" * 4))
        slave = os.open(f"{devices}/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            self.resize(24, 80)
            self._process = subprocess.Popen(
                machine.command("setsid", "--ctty", "--wait", "su", "--login", user),
                env=machine.environment(env={"TERM": "vt100"}),
                cwd="/",
                stdin=slave,
                stdout=slave,
                stderr=slave,
            )
        finally:
            os.close(slave)
        self.seen = ""
        self._read_to = 0
        try:
            self.enter("PS1='ready> '\r")
            self.expect("^ready> ")
        except BaseException:
            self.close()
            raise

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def enter(self, text: str) -> None:
        """Type something; a line ends with a carriage return."""
        os.write(self._master, text.encode())

    def enter_unseen(self, text: str, timeout: float = 15.0) -> None:
        """Type something once the terminal does not show it any more: what is typed before is thrown away.

        Raises: Failed if it goes on showing it.
        """
        deadline = time.monotonic() + timeout
        while termios.tcgetattr(self._master)[3] & termios.ECHO:
            if time.monotonic() > deadline:
                raise Failed(f"the terminal shows what is typed:\n{self.seen}")
            time.sleep(0.01)
        self.enter(text)

    def expect(self, pattern: str, timeout: float = 15.0) -> re.Match[str]:
        """Wait until something is to be seen that was not expected yet.

        Raises: Failed with what was seen.
        """
        deadline = time.monotonic() + timeout
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.seen, self._read_to)
            if match:
                self._read_to = match.end()
                return match
            if not self._more(deadline):
                raise Failed(f"{pattern!r} was never to be seen, but:\n{self.seen}")

    def _more(self, deadline: float) -> bool:
        if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.seen += _PAINT.sub("", data.decode(errors="replace"))
        return bool(data)

    def status(self, timeout: float = 15.0) -> int:
        """The exit status, once it has ended.

        Raises: Failed with what was seen if it does not end.
        """
        deadline = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < deadline:
            if not self._more(min(deadline, time.monotonic() + 0.1)):
                time.sleep(0.01)
        while self._more(time.monotonic()):
            pass
        if self._process.poll() is None:
            raise Failed(f"it does not end; to be seen is:\n{self.seen}")
        return self._process.returncode

    def close(self) -> None:
        """Hang up, if that was not done."""
        if self._master < 0:
            return
        os.close(self._master)
        self._master = -1
        end(self._process)
