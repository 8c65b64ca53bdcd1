# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is said between us and a process that is on its way into a namespace (child.py), over a socket.

Our word lets it go on once we hold a pidfd of it.  Its word is the step that failed; that its end closes without
one, in execve(2), means that the program runs.
"""

import asyncio
import contextlib
import errno
import socket

from mountnsd import child, syscalls
from mountnsd.errors import EnterFailed

_HINTS = {
    ("execve", errno.ENOENT): "There is no such program in the namespace, or no interpreter for it.",
    ("execve", errno.EACCES): "It is not executable for the user, or lies on a mount with the option noexec.",
    ("execve", errno.ENOEXEC): "It is no program; a script needs a first line like #!/bin/sh.",
    ("execve", errno.E2BIG): "Pass fewer or shorter arguments and environment variables.",
    ("execve", errno.EAGAIN): "The user has as many processes as his limit allows; end some.",
    ("chdir", errno.ENOENT): "There is no such directory in the namespace; pass another cwd.",
    ("chdir", errno.EACCES): "The directory is looked up as the user; pass a cwd that he may enter.",
    ("TIOCSCTTY", errno.ENOTTY): "Descriptor 0 is no terminal; pass one, or leave out the option tty.",
    ("TIOCSCTTY", errno.EPERM): "The terminal has a session already, or is not readable; pass a new one.",
    ("setns", errno.EPERM): "The daemon lacks CAP_SYS_ADMIN or CAP_SYS_CHROOT.",
    ("setns", errno.EINVAL): "What was opened is no mount namespace.",
    ("start", errno.ECANCELED): "It was killed, or could not be started; 'journalctl -b -e' may say more.",
    ("fork", errno.EAGAIN): "The daemon has as many processes as its limit allows; end some.",
}
_DEFAULT_HINT = "The daemon's log may say more."


def pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, which end with `stack` unless they were closed before.  Raises OSError."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        stack.callback(close, end)
    return ours, theirs


def close(end: socket.socket) -> None:
    """Close a socket, whatever close(2) says; harmless a second time."""
    fd = end.detach()
    if fd >= 0:
        syscalls.close(fd)


async def follow(channel: socket.socket, what: str) -> None:
    """Let the child go on, and return when execve has closed its end of the channel.  Raises: EnterFailed."""
    loop = asyncio.get_running_loop()
    told = b""
    with contextlib.suppress(ConnectionError):  # it has failed already, and says with what
        channel.send(child.START)
    with contextlib.suppress(ConnectionError):  # it ended without reading our word
        while data := await loop.sock_recv(channel, 64):
            told += data
    executing = told.startswith(child.EXECUTING)
    failed = told.removeprefix(child.EXECUTING)
    if failed:
        number, low, high = failed
        raise failure_of(what, child.STEPS[number][0], low | high << 8)
    if not executing:
        raise failure_of(what, "start", errno.ECANCELED)


def failure_of(what: str, step: str, code: int | None) -> EnterFailed:
    """The error that names a step, its errno (EIO where there is none), and what to do next."""
    code = code or errno.EIO
    return EnterFailed(what, step, code, _HINTS.get((step, code), _DEFAULT_HINT))
