# SPDX-License-Identifier: LGPL-2.1-or-later
"""What leaves: an answer that no bus would take becomes an error, and costs nobody else anything."""

import asyncio
from typing import Any

from mountnsd import bus, frames
from mountnsd.bus import Bus, Call
from mountnsd.frames import Frame


class _Socket:
    """In place of the stream: keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def room(self) -> None:
        """There always is."""

    def send(self, data: bytes, _fds: list[int] | None = None, _instead: bytes = b"") -> None:
        """Keep it."""
        self.sent.append(data)


def answered(signature: str, body: list[Any], flags: int = 0) -> list[bytes]:
    """What is sent for an answer."""

    async def story() -> list[bytes]:
        connection = Bus()
        connection._stream = stream = _Socket()  # type: ignore[assignment]
        fields: dict[int, str | int] = {frames.SENDER: ":1.7"}
        await connection.reply(Call(Frame(frames.METHOD_CALL, flags, 5, True, fields, b"")), signature, body)
        return stream.sent

    return asyncio.run(story())


def test_an_answer_is_sent() -> None:
    (data,) = answered("ay", [b"x" * 1000])
    assert data[1] == frames.METHOD_RETURN


def test_one_that_is_not_wanted_is_not() -> None:
    assert answered("ay", [b"x"], flags=frames.NO_REPLY_EXPECTED) == []


def test_one_that_is_too_large_becomes_an_error() -> None:
    (data,) = answered("ay", [b"x" * (bus.MAX_ANSWER + 1)])
    assert data[1] == frames.ERROR
    assert b"org.freedesktop.DBus.Error.LimitsExceeded" in data
    assert len(data) < 1000
