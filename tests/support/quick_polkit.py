# SPDX-License-Identifier: LGPL-2.1-or-later
"""A polkit that answers by the action alone, and fast: to measure the daemon and not polkit.

It remembers nothing.  `polkit.Polkit` records what it is asked.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from .buses import PrivateBus
from .client import BUS_NAME, BUS_PATH, Client
from .polkit import NAME
from .raw import (
    DESTINATION,
    MEMBER,
    METHOD_CALL,
    METHOD_RETURN,
    REPLY_SERIAL,
    SENDER,
    SIGNATURE,
    Field,
    Frame,
    RawConnection,
    frame,
    marshal,
)
from .stormer import Orders, Stormer

YES, NO, HOLD = "yes", "no", "hold"


class QuickPolkit:
    """Says what it is told to of each action, and no to every other.  A context manager.

    Arguments: bus; verdicts: by the last word of the action: YES, NO, or HOLD, which is no answer ever.
    """

    def __init__(self, bus: PrivateBus, verdicts: Mapping[str, str]) -> None:
        self._bus = bus
        self._verdicts = {f"org.mountnsd1.{word}": verdict for word, verdict in verdicts.items()}
        self._process: Stormer | None = None

    def _serve(self, orders: Orders) -> int:
        connection = orders.connect()
        call = connection.call(
            BUS_PATH, BUS_NAME, "RequestName", "su", marshal("su", NAME, 4), destination=BUS_NAME
        )
        assert connection.reply(call).decode() == (1,)
        asked = 0
        while orders.go_on():
            try:
                message = connection.receive(0.1)
            except TimeoutError:
                continue
            except ConnectionError:  # the bus has ended first
                break
            if message.kind == METHOD_CALL and message.fields.get(MEMBER) == "CheckAuthorization":
                asked += 1
                self._answer(connection, message)
        return asked

    def _answer(self, connection: RawConnection, question: Frame) -> None:
        verdict = self._verdicts.get(question.decode()[1], NO)
        if verdict == HOLD:
            return
        fields = [
            Field(DESTINATION, "s", question.fields[SENDER]),
            Field(REPLY_SERIAL, "u", question.serial),
            Field(SIGNATURE, "g", "(bba{ss})"),
        ]
        body = marshal("(bba{ss})", (verdict == YES, False, {}))
        connection.send(frame(fields, body, kind=METHOD_RETURN, flags=1, serial=connection.next_serial()))

    def start(self) -> None:
        """Start it and return once it owns its name."""
        self._process = Stormer(self._bus.address, self._serve, 0)
        with Client(self._bus.address) as client:
            client.wait_for_name(NAME)

    def stop(self) -> int:
        """Stop it; returns how many questions it was asked."""
        assert self._process is not None
        process, self._process = self._process, None
        asked: Any = process.stop()
        return int(asked)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.close()
