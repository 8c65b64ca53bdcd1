# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our terminal, a pseudoterminal for a command, and the relay between them.

Out of scope: the command.  Sources: pty(7), ioctl_tty(2), termios(3), and what machinectl's shell does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import termios
import time
import tty
from types import FrameType, TracebackType
from typing import Self

STDIN, STDOUT = 0, 1

_ESCAPE = 0x1D  # ^]
_ESCAPE_TIMES = 3
_ESCAPE_SECONDS = 1.0
_ROOM = 1 << 16
_READ = 1 << 14
_WRITE = 1 << 10  # what a terminal that polls as writable takes without making us wait for long
_QUIET_SECONDS = 0.1
_DRAIN_SECONDS = 2.0


class Signalled(BaseException):
    """A signal asks us to end; raised so that the terminal is restored on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def open_pair() -> tuple[int, int]:
    """A pseudoterminal, set as our terminal is: the descriptors of its master and its slave."""
    master, slave = os.openpty()
    with contextlib.suppress(termios.error):
        termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(STDIN))
    copy_size(master)
    os.set_blocking(master, False)
    return master, slave


def copy_size(master: int) -> None:
    """Give the pseudoterminal our terminal's size."""
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(STDOUT, termios.TIOCGWINSZ, b"\0" * 8)
        if size[:4] != b"\0" * 4:
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)


class Raw:
    """Our terminal in raw mode, its size followed; a context manager that restores it whatever happens.

    SIGTERM, SIGHUP and SIGQUIT become `Signalled`; after SIGCONT, the mode and the size are set again.

    Arguments: master: the pseudoterminal that shall have our terminal's size.
    """

    def __init__(self, master: int) -> None:
        self._master = master
        self._before = termios.tcgetattr(STDIN)
        self._handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number, handler in (
            (signal.SIGTERM, _end),
            (signal.SIGHUP, _end),
            (signal.SIGQUIT, _end),
            (signal.SIGWINCH, self._resize),
            (signal.SIGCONT, self._resume),
        ):
            self._handlers[number] = signal.signal(number, handler)
        try:
            self._set()
            copy_size(self._master)  # it may have changed before we listened
        except BaseException:
            self._restore()
            raise
        return self

    def _set(self) -> None:
        tty.setraw(STDIN, termios.TCSADRAIN)

    def _resize(self, _number: int, _frame: FrameType | None) -> None:
        copy_size(self._master)

    def _resume(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(termios.error):
            self._set()
        copy_size(self._master)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(STDIN, termios.TCSADRAIN, self._before)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()


def _end(number: int, _frame: FrameType | None) -> None:
    raise Signalled(number)


class EscapeSequence:
    """Watches what is typed for ^] three times within a second."""

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0

    def typed(self, data: bytes, now: float) -> bool:
        """Whether the sequence is complete with these bytes."""
        for byte in data:
            if byte != _ESCAPE:
                self._count = 0
                continue
            if self._count == 0 or now - self._since > _ESCAPE_SECONDS:
                self._count, self._since = 0, now
            self._count += 1
            if self._count == _ESCAPE_TIMES:
                return True
        return False


class Relay:
    """Carries bytes between our terminal and the master of a pseudoterminal, never waiting for either alone.

    Attributes: left: the user typed the escape sequence, or our terminal has hung up.
    """

    def __init__(self, master: int) -> None:
        self._master = master
        self._open = True
        self._typed = bytearray()
        self._shown = bytearray()
        self._escape = EscapeSequence()
        self.left = False

    def interests(self) -> dict[int, int]:
        """What to poll for, by descriptor."""
        wanted = {STDIN: 0, STDOUT: 0, self._master: 0}
        if self._open and len(self._shown) < _ROOM:
            wanted[self._master] |= select.POLLIN
        if self._open and self._typed:
            wanted[self._master] |= select.POLLOUT
        if self._shown:
            wanted[STDOUT] |= select.POLLOUT
        if len(self._typed) < _ROOM:
            wanted[STDIN] |= select.POLLIN
        return {fd: mask for fd, mask in wanted.items() if mask}

    def handle(self, fd: int, events: int) -> None:
        """Act on what poll said of one of our descriptors."""
        if fd == STDIN:
            self._read_terminal()
        elif fd == STDOUT:
            self._write_terminal()
        elif fd == self._master:
            if events & select.POLLOUT:
                self._write_master()
            if events & ~select.POLLOUT:
                self._read_master()

    def drain(self) -> None:
        """Show what the command has written and we have not read yet.

        The kernel hands the last output on some time after the command's end.  The end of it shows if nobody
        else has the pseudoterminal open; otherwise it is taken to have come when nothing comes for a while.
        """
        deadline = time.monotonic() + _DRAIN_SECONDS
        while (self._open or self._shown) and not self.left and time.monotonic() < deadline:
            poll = select.poll()
            for fd, mask in self.interests().items():
                if fd != STDIN:
                    poll.register(fd, mask & ~select.POLLOUT if fd == self._master else mask)
            events = poll.poll(_QUIET_SECONDS * 1000)
            if not events:
                return
            for fd, event in events:
                self.handle(fd, event)

    def _read_terminal(self) -> None:
        try:
            data = os.read(STDIN, _READ)
        except OSError:
            data = b""
        if not data or self._escape.typed(data, time.monotonic()):
            self.left = True
        elif self._open:
            self._typed += data

    def _write_terminal(self) -> None:
        try:
            del self._shown[: os.write(STDOUT, self._shown[:_WRITE])]
        except BlockingIOError:
            pass
        except OSError:
            self.left = True

    def _read_master(self) -> None:
        try:
            data = os.read(self._master, _READ)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the slave open any more
            data = b""
        if data:
            self._shown += data
        else:
            self._open = False

    def _write_master(self) -> None:
        try:
            del self._typed[: os.write(self._master, self._typed)]
        except BlockingIOError:
            pass
        except OSError:
            self._typed.clear()
