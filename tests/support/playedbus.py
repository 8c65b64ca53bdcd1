# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus that is played: what no bus lets through, or a newer or hostile one may send, reaches the daemon.

One connection, that of the daemon, at a time.  It says who a caller is, lets polkit say yes to `list` and no to all
else, and hands over any bytes.
"""

import contextlib
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from .client import BUS_NAME, NAME
from .raw import (
    ERROR,
    ERROR_NAME,
    MEMBER,
    METHOD_CALL,
    METHOD_RETURN,
    REPLY_SERIAL,
    SENDER,
    SIGNATURE,
    Field,
    Frame,
    RawConnection,
    call_fields,
    frame,
    marshal,
)

CALLER, CALLER_UID = ":1.50", 65534
OWNER = ":1.7"
POLKIT = ":1.8"
_SERIALS = 0xFFFFFF00  # above those of the frames


class _Accepted:
    """The daemon's end, authenticated: in place of a `Peer`."""

    def __init__(self, sock: socket.socket) -> None:
        self.pid = os.getpid()
        self.sock = sock
        self._line()
        sock.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
        self._line()
        sock.sendall(b"AGREE_UNIX_FD\r\n")
        self._line()

    def _line(self) -> None:
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self.sock.recv(1)
            if not byte:
                raise ConnectionError("the daemon ended the authentication")
            line += byte

    def close(self) -> None:
        """Hang up."""
        self.sock.close()


class PlayedBus:
    """The bus.  A context manager; `daemon.Daemon` takes it for one.

    Arguments: directory: where its socket is.  Attributes: answers: to our caller, by the name of the error, '' for
        those that are none.
    """

    kind = "played"

    def __init__(self, directory: Path) -> None:
        self.address = f"unix:path={directory}/bus"
        self.answers: dict[str, int] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "bus"))
        self._listener.listen(1)
        self._daemon: RawConnection | None = None
        self._barrier = _SERIALS

    def accept(self) -> None:
        """Take the daemon's connection, and see it through to owning its name."""
        sock, _ = self._listener.accept()
        sock.settimeout(30)
        peer = _Accepted(sock)
        sock.settimeout(None)
        self._daemon = RawConnection(self.address, hello=False, peer=peer)  # type: ignore[arg-type]
        while self._take() != "RequestName":
            pass

    @property
    def daemon(self) -> RawConnection:
        """The daemon's connection."""
        assert self._daemon is not None, "nobody has connected"
        return self._daemon

    def send(self, data: bytes, fds: int = 0) -> None:
        """Hand bytes over, with so many descriptors.  Raises: OSError."""
        if not fds:
            self.daemon.send(data)
            return
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            self.daemon.send(data, [null] * fds)
        finally:
            os.close(null)

    def barrier(self) -> None:
        """Wait until the daemon has answered a call that comes behind all the others.  Raises: ConnectionError."""
        self._barrier = self._barrier + 1 if self._barrier < 0xFFFFFFF0 else _SERIALS
        fields = call_fields("/", "org.freedesktop.DBus.Peer", "Ping", extra=[Field(SENDER, "s", ":1.1")])
        self.send(frame(fields, serial=self._barrier))
        while self._take() != self._barrier:
            pass

    def _take(self) -> str | int:
        """Take one message of the daemon's; returns the member of a call of it, or the serial that it answers."""
        message = self.daemon.receive(30)
        message.close_fds()
        if message.kind == METHOD_CALL:
            self._answer(message)
            return str(message.fields.get(MEMBER))
        if message.reply_to and message.reply_to < _SERIALS:
            name = message.error_name if message.kind == ERROR else ""
            self.answers[name] = self.answers.get(name, 0) + 1
        return message.reply_to

    def _answer(self, call: Frame) -> None:
        member, body = str(call.fields.get(MEMBER)), b""
        sender, signature = BUS_NAME, ""
        if member in ("Hello", "GetId"):
            signature, body = "s", marshal("s", OWNER if member == "Hello" else "played")
        elif member == "RequestName":
            signature, body = "u", marshal("u", 1)
        elif member == "GetConnectionCredentials":
            (name,) = call.decode()
            uid = 0 if name == ":1.1" else CALLER_UID
            signature, body = "a{sv}", marshal("a{sv}", {"UnixUserID": ("u", uid)})
        elif member == "NameHasOwner":
            signature, body = "b", marshal("b", True)
        elif member == "CheckAuthorization":
            yes = call.decode()[1] == NAME + ".list"
            sender, signature, body = POLKIT, "(bba{ss})", marshal("(bba{ss})", (yes, False, {}))
        elif member not in ("AddMatch", "ReleaseName", "CancelCheckAuthorization"):
            self._refuse(call)
            return
        if call.flags & 1:
            return
        fields = [Field(REPLY_SERIAL, "u", call.serial), Field(SENDER, "s", sender)]
        fields += [Field(SIGNATURE, "g", signature)] if signature else []
        self.daemon.send(frame(fields, body, kind=METHOD_RETURN, serial=_SERIALS + 0xFE))

    def _refuse(self, call: Frame) -> None:
        fields = [
            Field(REPLY_SERIAL, "u", call.serial),
            Field(SENDER, "s", BUS_NAME),
            Field(ERROR_NAME, "s", "org.freedesktop.DBus.Error.ServiceUnknown"),
        ]
        self.daemon.send(frame(fields, kind=ERROR, serial=_SERIALS + 0xFE))

    def hang_up(self) -> None:
        """End the daemon's connection."""
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            daemon.close()

    def close(self) -> None:
        """End."""
        self.hang_up()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.close()
