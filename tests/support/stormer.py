# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process of some user that does as it is told until it is stopped: whoever storms, and who stands in for polkit.

A process and not a thread, because it is to load the daemon and not the test that measures.
"""

import os
import pickle
import select
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any

from . import leaks
from .closing import Closing
from .identity import Ourselves, groups_of
from .raw import RawConnection


class Orders:
    """What the process has of the test.

    Arguments: address: of the bus; channel: to the test.
    """

    def __init__(self, address: str, channel: socket.socket) -> None:
        self.address = address
        self._channel = channel

    def connect(self) -> RawConnection:
        """A connection of this process."""
        return RawConnection(self.address, peer=Ourselves(self.address))

    def go_on(self) -> bool:
        """Whether nobody has said stop."""
        return not select.select([self._channel], [], [], 0)[0]

    def wait(self, seconds: float) -> bool:
        """Pause; returns as `go_on`."""
        return not select.select([self._channel], [], [], seconds)[0]

    def tell(self) -> None:
        """Say that it has begun, see `Stormer.wait_begun`."""
        self._channel.send(b"begun")


class Stormer(Closing):
    """The process.  A context manager that stops it.

    Arguments: address: of the bus; work: what it does; uid: the user that it is.
    """

    def __init__(self, address: str, work: Callable[[Orders], Any], uid: int) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        gid, groups = groups_of(uid)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.alarm(0)
                own = theirs.detach()
                os.closerange(3, own)
                os.closerange(own + 1, 1 << 12)
                channel = socket.socket(fileno=own)
                os.setgroups(groups)
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
                self._child(Orders(address, channel), work, channel)
            finally:
                os._exit(1)
        theirs.close()

    @staticmethod
    def _child(orders: Orders, work: Callable[[Orders], Any], channel: socket.socket) -> None:
        try:
            data = pickle.dumps((True, work(orders)))
        except BaseException:  # noqa: BLE001 - told to the test
            data = pickle.dumps((False, traceback.format_exc()))
        channel.sendall(b"\0" + data)
        os._exit(0)

    def wait_begun(self, timeout: float = 20.0) -> None:
        """Wait until it has told so.  Raises: AssertionError with what it died of, TimeoutError."""
        self._channel.settimeout(timeout)
        if self._channel.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) != b"begun":
            self.stop()
            raise AssertionError("the process ended without having begun")
        self._channel.recv(5)

    def stop(self, timeout: float = 30.0) -> Any:
        """Stop it; returns what its work returned.  Raises: AssertionError with what it raised."""
        self._channel.settimeout(timeout)
        self._channel.shutdown(socket.SHUT_WR)
        return self.result(timeout)

    def result(self, timeout: float = 110.0) -> Any:
        """Wait until it ends of its own accord; as `stop`."""
        self._channel.settimeout(timeout)
        data = b""
        while part := self._channel.recv(1 << 16):
            data += part
        self.close()
        fine, value = pickle.loads(data[data.index(b"\0") + 1 :]) if b"\0" in data else (False, "killed")
        assert fine, value
        return value

    def close(self) -> None:
        """End it, whatever it does; doing so twice is harmless."""
        self._channel.close()
        if self.pid:
            pid, self.pid = self.pid, 0
            leaks.end(pid)
