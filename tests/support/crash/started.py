# SPDX-License-Identifier: LGPL-2.1-or-later
"""The starter of a unit as a fork of this process, where all is imported already."""

import os
import socket
import time

from mountnsd import starter


class Started:
    """Arguments: command: what systemd would run, which is always the starter; stdin: borrowed."""

    def __init__(self, command: list[str], stdin: int) -> None:
        assert command == list(starter.COMMAND)
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                os.dup2(stdin, 0)
                null = os.open("/dev/null", os.O_RDWR)
                os.dup2(null, 1)
                os.dup2(null, 2)
                os.closerange(3, 1024)
                self._pass_over_code()
                starter.main()
            finally:
                os._exit(127)

    @staticmethod
    def _pass_over_code() -> None:
        """The daemon cannot know that it is not needed."""
        sock = socket.socket(fileno=0)
        size = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "little")
        sock.recv(size, socket.MSG_WAITALL)
        sock.detach()

    def poll(self) -> int | None:
        """As of subprocess.Popen."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, timeout: float) -> int:
        """As of subprocess.Popen."""
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            assert time.monotonic() < end
            time.sleep(0.001)
        return status
