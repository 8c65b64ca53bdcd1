# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors in messages of a socket, and closing all the others.

On the way of every process that is started: it imports nothing that costs time.

Sources: unix(7) (SCM_RIGHTS), close_range(2).
"""

from __future__ import annotations

import errno

from mountnsd import becoming
from mountnsd.bare import os, socket

MAX_FDS = 253  # SCM_MAX_FD, unix(7): what one message can carry
_MAX_FD = 2**32 - 1
_INT = 4  # bytes
_SIZE = socket.CMSG_SPACE(MAX_FDS * _INT)


def unpack(parcel: socket.socket, count: int, *, keep: bool = False) -> list[int]:
    """Take the descriptors out of a parcel; close-on-exec.  For the process that they are for.

    Arguments: keep: leave them in there, too; else it can be done once.
    Raises: OSError: EMFILE where not all of them found room.
    """
    _, fds, truncated = receive(parcel, 1, socket.MSG_DONTWAIT | (socket.MSG_PEEK if keep else 0))
    if len(fds) != count or truncated:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return fds


def receive(sock: socket.socket, size: int, flags: int = 0) -> tuple[bytes, list[int], bool]:
    """Read at most `size` bytes and the descriptors that came with them, which are close-on-exec, unix(7).

    Returns: the bytes, the descriptors, and whether some were lost because no number was free.
    """
    data, ancillary, told, _ = sock.recvmsg(size, _SIZE, flags | socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            # Not by the module array, which costs every process that is started the import of others.
            fds += memoryview(content[: len(content) - len(content) % _INT]).cast("i").tolist()
    return data, fds, bool(told & socket.MSG_CTRUNC)


def close_others(wanted: set[int]) -> None:
    """Close every descriptor of the caller's table but those, close_range(2)."""
    low = 0
    for fd in sorted(wanted):
        if fd > low:
            becoming.close_range(low, fd - 1)
        low = fd + 1
    becoming.close_range(low, _MAX_FD)
