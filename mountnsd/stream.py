# SPDX-License-Identifier: LGPL-2.1-or-later
"""The socket to the bus: connect, authenticate, read frames, write messages.

Nothing that a peer does with the bus can make the writing fail: what the
socket does not take waits in a queue, and a descriptor that cannot be sent
costs the one message it is in.  Out of scope: what the messages say.

Source: D-Bus specification, "Authentication Protocol", "Server Addresses";
unix(7).
"""

import array
import asyncio
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, takewhile
from urllib.parse import unquote

from mountnsd import disposal
from mountnsd.frames import Frame, Framer, ProtocolError
from mountnsd.passing import receive

log = logging.getLogger(__name__)

DEFAULT_ADDRESS = "unix:path=/run/dbus/system_bus_socket"
_CONNECT_TIMEOUT = 15.0  # seconds, for all of connecting and authenticating
_MANY_TO_CLOSE = 1024  # descriptors; with more of them, reading leaves time to their closing
MANY_TO_WRITE = 1024  # messages; with more of them nothing is read, for each call can add one
_PAUSE = 0.002  # seconds
_READ_SIZE = 64 * 1024  # not above frames.MAX_MESSAGE: see Framer.feed
_QUEUE_HIGH = 4 << 20  # bytes waiting to be written above which nobody may add to them ...
_QUEUE_LOW = 1 << 20  # ... until there are fewer than this
_AT_ONCE = 64  # messages that are written by one system call: one who is refused a lot costs little


class ConnectError(Exception):
    """The bus cannot be reached, or does not let us in."""


@dataclass(slots=True)
class _Outgoing:
    data: memoryview
    fds: list[int]  # owned; sent with the first byte
    instead: bytes  # sent where the descriptors cannot be


class Stream:
    """A connection to a bus.  Reads when it is started; `on_frame` gets every message."""

    def __init__(
        self, sock: socket.socket, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]
    ) -> None:
        """Arguments: sock: authenticated; on_frame: owns what it gets; on_end: told once, why."""
        self._sock = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._framer = Framer()
        self._queue: deque[_Outgoing] = deque()
        self._queued = 0
        self._room = asyncio.Event()
        self._room.set()
        self._writing = False
        self._soon: asyncio.Handle | None = None
        self._ended = False
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to read."""
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def close(self, reason: str = "closed") -> None:
        """End the connection and close every descriptor that waits in it."""
        if self._ended:
            return
        self._ended = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._framer.close()
        while self._queue:
            close_all(self._queue.popleft().fds)
        self._room.set()
        self._on_end(reason)

    async def room(self) -> None:
        """Wait until there is room in the queue: before a large answer is even put together."""
        while not self._room.is_set():
            await self._room.wait()

    async def drain(self, seconds: float) -> None:
        """Wait until everything is written, at most so long."""
        end = self._loop.time() + seconds
        while self._queue and not self._ended and self._loop.time() < end:
            await asyncio.sleep(0.005)

    def send(self, data: bytes, fds: list[int] | None = None, instead: bytes = b"") -> None:
        """Queue a message.

        Arguments: data: the whole message; fds: sent with it and then closed: they are the stream's from
            here on; instead: the message to send where the kernel refuses the descriptors.
        """
        if self._ended:
            close_all(fds or [])
            return
        self._queue.append(_Outgoing(memoryview(data), fds or [], instead))
        self._queued += len(data)
        if self._queued > _QUEUE_HIGH:
            self._room.clear()
        if not self._writing and self._soon is None:
            self._soon = self._loop.call_soon(self._writable)  # together with what else is sent until then

    def flush(self) -> None:
        """Write what waits at once, and not in the next turn of the event loop."""
        if self._soon is not None:
            self._soon.cancel()
            self._writable()

    def _readable(self) -> None:
        try:
            data, fds, truncated = receive(self._sock, _READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"reading from the bus: {error.strerror}")
            return
        if not data:
            disposal.dispose(fds)
            self.close("the bus closed the connection")
            return
        try:
            for frame in self._framer.feed(data, fds, truncated):
                self._take(frame)
                if self._ended:
                    return
        except ProtocolError as error:
            self.close(f"the bus does not speak D-Bus: {error}")
            return
        # A descriptor has a number of ours until it is closed, and these are not without end; nor is memory.
        if disposal.waiting() > _MANY_TO_CLOSE or len(self._queue) > MANY_TO_WRITE:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.call_later(_PAUSE, self._read_on)

    def _read_on(self) -> None:
        """Read again once what waits is being written; a closing may hang for ever."""
        if self._ended:
            return
        if len(self._queue) > MANY_TO_WRITE:
            self._loop.call_later(_PAUSE, self._read_on)
        else:
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def _take(self, frame: Frame) -> None:
        """Hand a message over.  A fault in what takes it must not cost those behind it."""
        try:
            self._on_frame(frame)
        except Exception:
            log.exception("A message could not be taken")
            frame.fds.close()

    def _writable(self) -> None:
        self._soon = None
        if self._ended:
            return
        try:
            while self._queue:
                if self._queue[0].fds:
                    self._write(self._queue[0])
                else:
                    self._write_many()
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sock.fileno(), self._writable)
            return
        except OSError as error:
            self.close(f"writing to the bus: {error.strerror}")
            return
        finally:
            if self._queued < _QUEUE_LOW:
                self._room.set()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())

    def _write(self, message: _Outgoing) -> None:
        """Write the first message, as far as the socket takes it, with its descriptors.  Raises OSError."""
        rights = array.array("i", message.fds).tobytes()
        try:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            sent = self._sock.sendmsg([message.data], ancillary, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ETOOMANYREFS, errno.EINVAL):
                raise
            log.warning("A descriptor could not be sent: %s", error.strerror)
            self._replace(message)
            return
        close_all(message.fds)
        message.fds = []
        self._written(sent)

    def _write_many(self) -> None:
        """Write what the socket takes of the messages before the next one with descriptors.  Raises OSError."""
        plain = takewhile(lambda message: not message.fds, self._queue)
        data = [message.data for message in islice(plain, _AT_ONCE)]
        self._written(self._sock.sendmsg(data, [], socket.MSG_NOSIGNAL))

    def _written(self, count: int) -> None:
        """So many bytes of the queue are gone."""
        self._queued -= count
        while count:
            message = self._queue[0]
            part = min(count, len(message.data))
            message.data = message.data[part:]
            count -= part
            if not message.data:
                self._queue.popleft()

    def _replace(self, message: _Outgoing) -> None:
        """Send the stand-in of a message whose descriptors the kernel did not take."""
        close_all(message.fds)
        message.fds = []
        self._queued += len(message.instead) - len(message.data)
        message.data = memoryview(message.instead)
        if not message.data:
            self._queue.popleft()


def connect(address: str) -> socket.socket:
    """Connect to the bus at `address` and authenticate with our uid; blocks, at most 15 seconds.

    Arguments: address: a D-Bus address, of which the `unix` transport is known; several are tried in turn.
    Raises: ConnectError that names the address.
    """
    reasons = []
    for endpoint in _endpoints(address):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(_CONNECT_TIMEOUT)
        try:
            sock.connect(endpoint)
            _authenticate(sock)
            return sock
        except OSError as error:
            sock.close()
            reasons.append(error.strerror or str(error))
        except ConnectError as error:
            sock.close()
            reasons.append(str(error))
    raise ConnectError(
        f"cannot connect to the bus at {address}: {'; '.join(reasons) or 'no unix: address in it'}"
    )


def _endpoints(address: str) -> list[str]:
    found = []
    for one in address.split(";"):
        transport, _, text = one.partition(":")
        if transport != "unix":
            continue
        options = dict(pair.partition("=")[::2] for pair in text.split(","))
        if "path" in options:
            found.append(unquote(options["path"]))
        elif "abstract" in options:
            found.append("\0" + unquote(options["abstract"]))
    return found


def _authenticate(sock: socket.socket) -> None:
    """EXTERNAL with our uid, then ask for descriptors.  Raises ConnectError, OSError."""
    uid = str(os.geteuid()).encode().hex()
    sock.sendall(b"\0AUTH EXTERNAL " + uid.encode() + b"\r\n")
    if not _line(sock).startswith(b"OK "):
        raise ConnectError("the bus refuses to authenticate us")
    sock.sendall(b"NEGOTIATE_UNIX_FD\r\n")
    if _line(sock) != b"AGREE_UNIX_FD":
        raise ConnectError("the bus does not pass file descriptors")
    sock.sendall(b"BEGIN\r\n")


def _line(sock: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\r\n"):
        byte = sock.recv(1)  # not one byte of what follows the line may be taken
        if not byte or len(line) > 1024:
            raise ConnectError("the bus ended the authentication")
        line += byte
    return bytes(line[:-2])


def close_all(fds: list[int]) -> None:
    """Close descriptors of our own."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError as error:
            log.warning("A descriptor was closed already: %s", error.strerror)
