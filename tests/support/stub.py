# SPDX-License-Identifier: LGPL-2.1-or-later
"""An owner of org.mountnsd1 that answers everything: what reaches it, the bus let through."""

import threading

from .client import BUS_NAME, BUS_PATH, NAME
from .closing import Closing
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

_DO_NOT_QUEUE = 4
_PRIMARY_OWNER = 1


class Owner(Closing):
    """Owns the name; to every call it answers (member s, number of descriptors u).  A context manager.

    Attributes: received: every call and signal so far, without descriptors.
    """

    def __init__(self, address: str, uid: int = 0, name: str = NAME) -> None:
        self.received: list[Frame] = []
        self._connection = RawConnection(address, uid)
        body = marshal("su", name, _DO_NOT_QUEUE)
        serial = self._connection.call(BUS_PATH, BUS_NAME, "RequestName", "su", body, destination=BUS_NAME)
        answer = self._connection.reply(serial)
        if answer.error_name or answer.decode() != (_PRIMARY_OWNER,):
            self._connection.close()
            raise PermissionError(answer.error_name or f"{name} has another owner")
        self._ending = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ending:
            try:
                message = self._connection.receive(0.1)
            except TimeoutError:
                continue
            except (ConnectionError, OSError):
                return
            count = len(message.fds)
            message.close_fds()
            if message.fields.get(SENDER) != BUS_NAME:
                self.received.append(message)
            if message.kind == METHOD_CALL:
                self._answer(message, count)

    def _answer(self, message: Frame, count: int) -> None:
        fields = [
            Field(DESTINATION, "s", message.fields[SENDER]),
            Field(REPLY_SERIAL, "u", message.serial),
            Field(SIGNATURE, "g", "su"),
        ]
        body = marshal("su", message.fields[MEMBER], count)
        serial = self._connection.next_serial()
        self._connection.send(frame(fields, body, kind=METHOD_RETURN, flags=1, serial=serial))

    def members(self) -> list[str]:
        """The members of what was received, in order."""
        return [str(message.fields.get(MEMBER, "")) for message in self.received]

    def close(self) -> None:
        """Give the name up."""
        self._ending = True
        self._thread.join(5)
        self._connection.close()
