# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that Enter started: waiting for its end and learning its exit status.

The daemon says how the process ended, with the signal Exited.  The pidfd says that it has ended even if the daemon
is gone by then; and then the kernel knows how, since Linux 6.15 (pidfd_open(2), PIDFD_GET_INFO), or the next daemon,
which is woken for it.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

from mountnsd.ctl.connection import Connection
from mountnsd.ctl.problem import Problem
from mountnsd.ctl.terminal import Relay

_SIGNAL_SECONDS = 2.0  # how long the daemon's word may lag behind the end of the process

# linux/pidfd.h: _IOWR(0xFF, 11, struct pidfd_info), of which the first version has 64 bytes
_PIDFD_GET_INFO = 3 << 30 | 64 << 16 | 0xFF << 8 | 11
_PIDFD_INFO_EXIT = 1 << 3
_SIZE, _EXIT_CODE = 64, 60


class Left(Exception):
    """The user left the process behind, or the terminal is gone."""


class Process:
    """A process inside a namespace.

    Arguments: connection: the one that Enter was called on; pid, pidfd: what Enter returned; the pidfd is ours.
    """

    def __init__(self, connection: Connection, pid: int, pidfd: int) -> None:
        self._connection = connection
        self._pid = pid
        self._pidfd = pidfd
        self._connected = True
        self._running = True
        self._woken = False

    def wait(self, relay: Relay | None = None) -> int:
        """Wait for the end, relaying a terminal meanwhile; returns the exit status, 128+n for a signal's death.

        Raises: Left; Problem where the status cannot be known.
        """
        deadline = 0.0
        while (status := self._told()) is None:
            if not self._running and (not self._connected or time.monotonic() >= deadline):
                if not self._may_hear_more():
                    break
                deadline = time.monotonic() + _SIGNAL_SECONDS
            self._poll(relay, None if self._running else max(deadline - time.monotonic(), 0))
            if self._running and self._has_ended():
                self._running = False
                deadline = time.monotonic() + _SIGNAL_SECONDS
            if relay is not None and relay.left:
                raise Left
        if relay is not None:
            relay.drain()
        if status is None:
            status = exit_status(self._pidfd)
        if status is None:
            raise Problem(
                "The command has ended, but mountnsd went away before it could say how: "
                "its exit status is unknown."
            )
        return status

    def _may_hear_more(self) -> bool:
        """Whether a daemon that was not running, and is now, may tell what it finds: of a process in a unit."""
        if self._woken or not self._connected or exit_status(self._pidfd) is not None:
            return False
        self._woken = True
        self._connection.wake()
        return True

    def _poll(self, relay: Relay | None, seconds: float | None) -> None:
        poll = select.poll()
        if self._connected:
            poll.register(self._connection.fileno(), select.POLLIN)
        if self._running:
            poll.register(self._pidfd, select.POLLIN)
        if relay is not None:
            for fd, mask in relay.interests().items():
                poll.register(fd, mask)
        for fd, events in poll.poll(None if seconds is None else seconds * 1000):
            if self._connected and fd == self._connection.fileno():
                self._connected = self._connection.receive()
            elif relay is not None and fd != self._pidfd:
                relay.handle(fd, events)

    def _has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _told(self) -> int | None:
        """The exit status that the daemon has told us, None if it has not (yet)."""
        told = self._connection.exits.of(self._pid)
        if told is None:
            return None
        code, status = told
        return status if code == os.CLD_EXITED else 128 + status


def exit_status(pidfd: int) -> int | None:
    """How a process ended, by the kernel's word; None where the kernel does not say or it has not been collected."""
    buffer = bytearray(_SIZE)
    struct.pack_into("=Q", buffer, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer, True)
    except OSError:
        return None
    if not struct.unpack_from("=Q", buffer)[0] & _PIDFD_INFO_EXIT:
        return None
    (code,) = struct.unpack_from("=i", buffer, _EXIT_CODE)
    return os.WEXITSTATUS(code) if os.WIFEXITED(code) else 128 + os.WTERMSIG(code)
