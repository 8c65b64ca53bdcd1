# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to a bus that belongs to another user and another process.

The kernel remembers who connected a socket.  So a child drops to the user,
connects, authenticates and hands the socket back; it then stays alive, as the
process that the bus believes the caller to be, until the connection is closed.
"""

import contextlib
import ctypes
import os
import pwd
import signal
import socket
from collections.abc import Callable, Sequence

from . import leaks

NOBODY = 65534

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


def groups_of(uid: int) -> tuple[int, list[int]]:
    """The primary group and all groups of a user; one that the database does not know has one of his own."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return uid, [uid]
    return user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)


def _line(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError(f"the bus hung up while authenticating, after {data!r}")
        data += byte
    return data


def _connect(path: str, claimed_uid: int, negotiate_fds: bool) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(path)
    sock.sendall(b"\0AUTH EXTERNAL " + str(claimed_uid).encode().hex().encode() + b"\r\n")
    answer = _line(sock)
    if not answer.startswith(b"OK "):
        raise ConnectionError(f"the bus refused to authenticate uid {claimed_uid}: {answer!r}")
    if negotiate_fds:
        sock.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        answer = _line(sock)
        if not answer.startswith(b"AGREE_UNIX_FD"):
            raise ConnectionError(f"the bus takes no descriptors: {answer!r}")
    sock.sendall(b"BEGIN\r\n")
    return sock


def socket_of(address: str) -> str:
    """The path of a bus's socket.  Raises: ValueError for an address of another kind."""
    scheme, _, path = address.partition(",")[0].partition("=")
    if scheme != "unix:path":
        raise ValueError(f"not an address that the tests understand: {address}")
    return path


class Ourselves:
    """In place of a `Peer`: a connection of this very process, authenticated as the user that it is.

    Arguments: address: `unix:path=...`.  Raises: ConnectionError, OSError.
    """

    def __init__(self, address: str) -> None:
        self.pid = os.getpid()
        self.sock = _connect(socket_of(address), os.geteuid(), True)
        self.sock.settimeout(None)

    def close(self) -> None:
        """End the connection."""
        self.sock.close()


class Peer:
    """A process of some user with one authenticated connection to a bus.

    Arguments: address: `unix:path=...`; uid: the user; gid, groups: his groups, by default those of the user
        database; prepare: called in the process before it drops its privileges (say, to enter a namespace);
        negotiate_fds: whether the connection can carry descriptors.
    Raises: ConnectionError with the reason if there is no connection.

    Attributes: pid: the process; sock: the connection, without a timeout.
    """

    def __init__(
        self,
        address: str,
        uid: int = 0,
        gid: int | None = None,
        groups: Sequence[int] | None = None,
        *,
        prepare: Callable[[], None] | None = None,
        negotiate_fds: bool = True,
    ) -> None:
        path = socket_of(address)
        own_gid, own_groups = groups_of(uid)
        gid = own_gid if gid is None else gid
        groups = own_groups if groups is None else groups
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            self.pid = os.fork()
            if self.pid == 0:
                self._child(theirs, path, (uid, gid, groups), prepare, negotiate_fds)
            theirs.close()
            ours.settimeout(15)
            try:
                text, descriptors, _, _ = socket.recv_fds(ours, 4096, 1)
            except TimeoutError:
                text, descriptors = b"no answer from the connecting process", []
        if not descriptors:
            self._end_process()
            raise ConnectionError(text.decode(errors="replace") or "the connecting process died")
        self.sock = socket.socket(fileno=descriptors[0])
        self.sock.settimeout(None)

    @staticmethod
    def _child(
        channel: socket.socket,
        path: str,
        identity: tuple[int, int, Sequence[int]],
        prepare: Callable[[], None] | None,
        negotiate_fds: bool,
    ) -> None:
        """Connect, hand the connection over and wait; never returns, and runs no exit handler."""
        uid, gid, groups = identity
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if prepare is not None:
                prepare()
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
            try:
                sock = _connect(path, uid, negotiate_fds)
            except (OSError, ConnectionError) as error:
                channel.send(f"cannot connect to {path} as uid {uid}: {error}".encode())
                os._exit(1)
            socket.send_fds(channel, [b"connected"], [sock.fileno()])
            os.closerange(3, 1 << 16)
            while True:
                signal.pause()
        finally:
            os._exit(1)

    def _end_process(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        leaks.wait_gone(self.pid)

    def close(self) -> None:
        """End the connection and then the process; doing so twice is harmless."""
        if self.sock.fileno() >= 0:
            self.sock.close()
            self._end_process()
