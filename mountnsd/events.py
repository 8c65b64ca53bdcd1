# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to namespaces, told to the log so that it can be found and explained.

Each event has a message id and fields of its own; systemd/mountnsd.catalog explains them, mountnsd(8) lists them.
Names of events and fields are an interface: they are added, never renamed or taken away.

Out of scope: where the log goes (log.py), faults and warnings that are about no namespace.
Sources: systemd.journal-fields(7), the message catalogue of journald.
"""

import logging
from enum import StrEnum

log = logging.getLogger("mountnsd")


class Event(StrEnum):
    """An event; its value is its message id."""

    CREATED = "081dcf3d33af40119cd79be41724f4a2"
    DESTROYED = "1381c12951db463b8c626c5e79c9f993"
    ENTERED = "e891a93882ea41a69cf3605026d5fa47"
    EXITED = "0175af606a434307b0409690a9727195"
    MOUNTED = "68839213db3c479991e9fc4988b6a972"
    UNMOUNTED = "7ca671b0478d4e2e84af84a9f3484125"
    FOUND = "4096782d7455426c896511f9eb200e38"
    LOST = "a0e625225fc943908c502a78d512d1a8"
    COVERED = "2d4625c45b0249d8872eff6426dffd49"
    UNCOVERED = "18cdba74dc254aa3b94e47ffa02f1ad4"
    UNDONE = "12d12a75f5674f7083059be09d1f2498"


# What nobody asked the daemon for.
_UNASKED = {Event.LOST, Event.COVERED, Event.UNDONE}


def tell(event: Event, name: str, inode: int, message: str, *arguments: object, **fields: object) -> None:
    """Write an event to the log.

    Arguments: name, inode: of the namespace; message, arguments: as of logging; fields: further ones, in lower case,
        with the prefix `mountns_` or `caller_` (see log.py).
    """
    level = logging.WARNING if event in _UNASKED else logging.INFO
    known: dict[str, object] = {
        "message_id": event.value,
        "mountns_name": name,
        "mountns_inode": inode,
    }
    log.log(level, message, *arguments, extra=known | fields)
