# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a program's output goes that nobody asked for: the journal, else the daemon's log.

Never the daemon's own standard error: that may be root's terminal, and who has
a descriptor of it can open it anew, read it, or type into it.

Nothing that a program writes can be taken for something else: the journal is
told to see no priorities in it, and lines for the daemon's log are bounded in
length and carry no control character.

Out of scope: output to descriptors that the caller sent.

Sources: sd_journal_stream_fd(3), pipe(7).
"""

import asyncio
import contextlib
import errno
import logging
import os
import stat
from pathlib import Path

from mountnsd import helper, syscalls
from systemd import journal

JOURNAL_SOCKET = Path("/run/systemd/journal/stdout")
MAX_LINE = 2048  # bytes of one line of the log; what is longer is cut into several
_CHUNK = 4096  # bytes relayed at once; who writes more is slowed down by a pause, and so cannot flood the log
_PAUSE = 0.02
_BURST = 20  # lines at once without a pause
_LINES_A_SECOND = 200  # of one process, beyond that

_log = logging.getLogger(__name__)


class Output:
    """A descriptor to write to, for one process and whatever it starts.

    Attributes: fd: to be given to the process; ours until `started` or `close`.
    """

    def __init__(self, namespace: str, fd: int, relayed: int | None = None) -> None:
        """Take over `fd` and, for output to the daemon's log, `relayed`, from where it is to be read."""
        self.fd = fd
        self._namespace = namespace
        self._relayed = relayed

    def started(self, pid: int) -> None:
        """The process `pid` has its copy: close ours, and relay what it writes until nobody can write any more."""
        syscalls.close(self.fd)
        self.fd = -1
        if self._relayed is not None:
            _Relay(self._relayed, f"{self._namespace}[{pid}]")
            self._relayed = None

    def close(self) -> None:
        """Close what is still ours; doing so twice is harmless."""
        for fd in (self.fd, self._relayed):
            if fd is not None and fd >= 0:
                syscalls.close(fd)
        self.fd, self._relayed = -1, None


async def open_for(namespace: str, uid: int, gid: int) -> Output:
    """Somewhere to write for a process in `namespace` that runs as `uid` and `gid`.

    Raises: OSError: EMFILE, ENFILE.
    """
    if _has_journal():
        try:
            # Connecting blocks while the journal's backlog is full.
            return await helper.run(lambda: Output(namespace, _journal_stream(namespace)), Output.close)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            _log.warning(
                "cannot reach the journal (%s): the output comes here", os.strerror(error.errno or 0)
            )
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(read_fd, False)
        os.fchown(
            write_fd, uid, gid
        )  # so that `echo > /dev/stderr`, which opens it anew, works as on a terminal
    except BaseException:
        syscalls.close(read_fd)
        syscalls.close(write_fd)
        raise
    return Output(namespace, write_fd, read_fd)


def _has_journal() -> bool:
    try:
        return stat.S_ISSOCK(JOURNAL_SOCKET.stat().st_mode)
    except OSError:
        return False


def _journal_stream(namespace: str) -> int:
    # The prefix, because a namespace may be named like a daemon; level_prefix off, because a line may begin
    # with <0> and be no emergency.
    with journal.stream(f"mountns-{namespace}", journal.LOG_INFO, level_prefix=False) as stream:
        return os.dup(stream.fileno())


def printable(line: bytes) -> str:
    r"""Text of a program, with control and invisible characters as \x1b, so that it is one line and no more."""
    text = line.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class _Relay:
    """Reads a pipe to its end, and logs it line by line."""

    def __init__(self, fd: int, tag: str) -> None:
        self._fd = fd
        self._tag = tag
        self._pending = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._pending = (self._pending + data).split(b"\n")
        while len(self._pending) >= MAX_LINE:
            lines.append(self._pending[:MAX_LINE])
            self._pending = self._pending[MAX_LINE:]
        pause = max(_PAUSE if len(data) == _CHUNK else 0.0, (len(lines) - _BURST) / _LINES_A_SECOND)
        if not data:
            self._loop.remove_reader(self._fd)
            syscalls.close(self._fd)
            lines.append(self._pending)
        elif pause > 0:
            self._loop.remove_reader(self._fd)
            self._loop.call_later(pause, self._loop.add_reader, self._fd, self._read)
        for line in lines:
            self._write(line)

    def _write(self, line: bytes) -> None:
        for start in range(0, len(line), MAX_LINE):
            # A log that cannot be written must not take the event loop with it.
            with contextlib.suppress(OSError):
                _log.info("%s: %s", self._tag, printable(line[start : start + MAX_LINE]))
