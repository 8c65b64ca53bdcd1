# SPDX-License-Identifier: LGPL-2.1-or-later
"""The descriptors that came with one message, kept out of our table of descriptors.

A descriptor of a caller in our table would be inherited by every child, whose
execve(2) closes it and may hang in that; and a caller with many open calls
could fill the table.  So what arrives is sent on at once, into a socket pair
of which we keep one end, and is taken out only by the process it is for.

Sources: unix(7) (SCM_RIGHTS), fork(2), close_range(2).
"""

import array
import errno
import os
import socket

from mountnsd import disposal, syscalls

MAX_FDS = 253  # SCM_MAX_FD, unix(7): what one message can carry
_MAX_FD = 2**32 - 1
_SIZE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


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

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Drop them; harmless a second time."""
        parcel, self.parcel, self._count = self.parcel, None, 0
        if parcel is not None:
            disposal.dispose([parcel.detach()])


def _pack(fds: list[int]) -> socket.socket:
    kept, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sending:
        try:
            socket.send_fds(sending, [b"\0"], fds)
        except BaseException:
            kept.close()
            raise
    return kept


def unpack(parcel: socket.socket, count: int) -> list[int]:
    """Take the descriptors out of a parcel, once; close-on-exec.  For the process that they are for.

    Raises: OSError: EMFILE where not all of them found room.
    """
    _, fds, truncated = receive(parcel, 1, socket.MSG_DONTWAIT)
    if len(fds) != count or truncated:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return fds


def receive(sock: socket.socket, size: int, flags: int = 0) -> tuple[bytes, list[int], bool]:
    """Read at most `size` bytes and the descriptors that came with them, which are close-on-exec, unix(7).

    Returns: the bytes, the descriptors, and whether some were lost because no number was free.
    """
    data, ancillary, told, _ = sock.recvmsg(size, _SIZE, flags | socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds), bool(told & socket.MSG_CTRUNC)


def close_others(wanted: set[int]) -> None:
    """Close every descriptor of the caller's table but those, close_range(2)."""
    low = 0
    for fd in sorted(wanted):
        if fd > low:
            syscalls.close_range(low, fd - 1)
        low = fd + 1
    syscalls.close_range(low, _MAX_FD)
