# SPDX-License-Identifier: LGPL-2.1-or-later
"""A D-Bus client that costs next to nothing: frames are marshalled before, answers are hardly looked at.

What a measurement sees is then the bus and the daemon.  Out of scope: answers from anybody but those two.

Sources: the D-Bus specification, "Message Protocol".
"""

import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from support import raw
from support.client import BUS_NAME, BUS_PATH, NAME
from support.closing import Closing
from support.identity import Ourselves

PATIENCE = 120.0  # seconds for one answer
_MOST_FDS = 8
_CHUNK = 1 << 18
_REPLY_SERIAL = b"\x05\x01u\x00"  # the start of that header field
_SERIAL_AT = 8


@dataclass(frozen=True)
class Answer:
    """A message that came in.  Attributes: kind; reply_to: the serial that it answers; body: undecoded."""

    kind: int
    reply_to: int
    body: bytes


class Refused(Exception):
    """An error came back."""


def call(
    path: str, interface: str, member: str, signature: str = "", *args: Any, to: str = NAME
) -> bytearray:
    """A method call, marshalled; `Wire.send` gives it its serial."""
    fields = raw.call_fields(path, interface, member, signature, destination=to)
    return bytearray(raw.frame(fields, raw.marshal(signature, *args) if signature else b""))


class Wire(Closing):
    """A connection of this very process.  A context manager that hangs up.

    Arguments: address: of the bus.
    """

    def __init__(self, address: str) -> None:
        self._peer = Ourselves(address)
        self.socket: socket.socket = self._peer.sock
        self.socket.settimeout(PATIENCE)
        self._serial = 0
        self._buffer = bytearray()
        self.ask(call(BUS_PATH, BUS_NAME, "Hello", to=BUS_NAME))

    def send(self, frame: bytearray) -> int:
        """Send a call; returns its serial."""
        self._serial += 1
        struct.pack_into("<I", frame, _SERIAL_AT, self._serial)
        self.socket.sendall(frame)
        return self._serial

    def ready(self) -> Answer | None:
        """The next message of those that have been read, or None."""
        buffer = self._buffer
        if len(buffer) < 16:
            return None
        length, _, fields = struct.unpack_from("<III", buffer, 4)
        start = 16 + fields + -fields % 8
        if len(buffer) < start + length:
            return None
        at = buffer.find(_REPLY_SERIAL, 16, start)
        reply_to = struct.unpack_from("<I", buffer, at + 4)[0] if at >= 0 else 0
        answer = Answer(buffer[1], reply_to, bytes(buffer[start : start + length]))
        del buffer[: start + length]
        return answer

    def read(self) -> None:
        """Read what there is, and wait for something; descriptors are closed.

        Raises: TimeoutError; ConnectionError where the bus hangs up.
        """
        data, fds, _, _ = socket.recv_fds(self.socket, _CHUNK, _MOST_FDS)
        for descriptor in fds:
            os.close(descriptor)
        if not data:
            raise ConnectionError("the bus hung up")
        self._buffer += data

    def receive(self) -> Answer:
        """The next message.  Raises: as `read`."""
        while (answer := self.ready()) is None:
            self.read()
        return answer

    def answer(self, serial: int) -> Answer:
        """The answer to a call; what else comes before is dropped.  Raises: Refused; as `read`."""
        while True:
            answer = self.receive()
            if answer.reply_to == serial:
                return checked(answer)

    def ask(self, frame: bytearray) -> Answer:
        """Call, and wait for the answer.  Raises: as `answer`."""
        return self.answer(self.send(frame))

    def close(self) -> None:
        """Hang up."""
        self._peer.close()


def checked(answer: Answer) -> Answer:
    """The answer itself.  Raises: Refused where it is an error."""
    if answer.kind == raw.ERROR:
        raise Refused(answer.body[4:].rstrip(b"\0").decode(errors="replace"))
    return answer
