# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon has told of the ends of processes, by its signal Exited.

Anybody on a bus may send a signal to anybody.  So it counts only from a connection that has answered us as the
daemon, or that the bus says owns the daemon's name by now; all else is dropped as it comes.
"""

from __future__ import annotations

from jeepney import HeaderFields, Message

_BUS = "org.freedesktop.DBus"


class Exits:
    """Takes in signals as a queue of jeepney's filters does, and keeps how processes ended.

    Arguments: name: the daemon's well-known name; interface: that of the signal.
    """

    def __init__(self, name: str, interface: str) -> None:
        self._name = name
        self._interface = interface
        self._daemons: set[str] = set()
        self._told: dict[int, tuple[int, int]] = {}

    @property
    def rule(self) -> str:
        """The match rule by which we hear of a daemon that takes the place of another one."""
        return (
            f"type='signal',sender='{_BUS}',interface='{_BUS}',member='NameOwnerChanged',arg0='{self._name}'"
        )

    def believe(self, sender: str) -> None:
        """Believe a unique name from now on: it is the daemon's."""
        self._daemons.add(sender)

    def append(self, message: Message) -> None:
        """Take in a signal."""
        fields = message.header.fields
        sender = fields.get(HeaderFields.sender)
        kind = fields.get(HeaderFields.interface), fields.get(HeaderFields.member)
        signature = fields.get(HeaderFields.signature)
        if sender == _BUS and kind == (_BUS, "NameOwnerChanged") and signature == "sss":
            name, _, owner = message.body
            if name == self._name and owner:
                self.believe(owner)
        elif sender in self._daemons and kind == (self._interface, "Exited") and signature == "usii":
            pid, _, code, status = message.body
            self._told[pid] = code, status

    def of(self, pid: int) -> tuple[int, int] | None:
        """How a process ended, code and status as waitid(2) has them; None if that was not told (yet)."""
        return self._told.get(pid)
