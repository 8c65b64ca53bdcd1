# SPDX-License-Identifier: LGPL-2.1-or-later
"""A polkit that says yes to everything at once, and remembers nothing: for load."""

import asyncio
from typing import Self

from jeepney import Message, new_method_return
from support.polkit import NAME

from .connection import Connection

_DO_NOT_QUEUE = 4


class YesPolkit:
    """Owns polkit's name on a bus.  Attributes: asked: how often it was."""

    def __init__(self, address: str) -> None:
        self.asked = 0
        self._connection = Connection(address, on_call=self._answer)
        self._answers: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, address: str) -> Self:
        """Connect, and own the name."""
        polkit = cls(address)
        await polkit._connection.connect()
        answer = await polkit._connection.bus_call("RequestName", "su", NAME, _DO_NOT_QUEUE)
        assert answer == (1,), answer
        return polkit

    def _answer(self, question: Message) -> None:
        self.asked += 1
        yes = new_method_return(question, "(bba{ss})", ((True, False, {}),))
        sending = asyncio.ensure_future(self._connection.send(yes))
        self._answers.add(sending)
        sending.add_done_callback(self._answers.discard)

    def close(self) -> None:
        """Leave the bus."""
        self._connection.close()
