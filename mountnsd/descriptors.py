# SPDX-License-Identifier: LGPL-2.1-or-later
"""The descriptors that came with one message, kept out of our table of descriptors.

A descriptor of a caller in our table would be inherited by every child, whose
execve(2) closes it and may hang in that; and a caller with many open calls
could fill the table.  So what arrives is sent on at once, into a socket pair
of which we keep one end, and is taken out only by the process it is for.

Sources: unix(7) (SCM_RIGHTS, SIOCINQ), fork(2), close_range(2).
"""

import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress

from mountnsd import disposal


class Descriptors:
    """A parcel of descriptors.

    Attributes: truncated: some did not arrive, because no number was free for them; parcel: the socket that
        holds them, or None where there are none.
    """

    def __init__(self, fds: list[int], truncated: bool = False) -> None:
        """Take over `fds`."""
        self.truncated = truncated
        self.parcel: socket.socket | None = None
        self._count = 0
        if not fds:
            return
        try:
            self.parcel = _pack(fds)
            self._count = len(fds)
        except OSError:  # sockets in sockets beyond what the kernel follows, or no number is free
            self.truncated = True
            disposal.dispose(fds)
        else:
            disposal.dispose_shared(fds)

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Drop them; harmless a second time."""
        parcel, self.parcel, self._count = self.parcel, None, 0
        if parcel is None:
            return
        fd = parcel.detach()
        if _is_empty(fd):  # the process that they are for has them
            with suppress(OSError):
                os.close(fd)
        else:
            disposal.dispose([fd])


def _is_empty(fd: int) -> bool:
    """Whether no message lies in a socket."""
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    except OSError:
        return False
    return bool(size == 0)


def _pack(fds: list[int]) -> socket.socket:
    kept, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sending:
        try:
            socket.send_fds(sending, [b"\0"], fds)
        except BaseException:
            kept.close()
            raise
    return kept
