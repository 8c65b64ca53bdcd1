# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors in messages of a socket, and closing all the others.

On the way of every process that is started: it imports nothing that costs time.

Sources: unix(7) (SCM_RIGHTS), close_range(2).
"""

import array
import errno
import os
import socket

from mountnsd import syscalls

MAX_FDS = 253  # SCM_MAX_FD, unix(7): what one message can carry
_MAX_FD = 2**32 - 1
_SIZE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


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
