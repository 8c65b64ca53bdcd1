# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the bus still takes what we send.

dbus-daemon does not while others have too much of it unread (unread.py), and nobody but they can change that: nobody
would be answered any more.  A new connection begins anew.  So the connection is ended then, and with it the daemon,
which systemd starts again.
"""

import asyncio

from mountnsd.bus import DRIVER, DRIVER_PATH, Bus, CallError, Disconnected

_PERIOD = 5.0  # seconds
_PATIENCE = 10.0  # seconds that an answer of the bus itself may take
_TRIES = 2  # so that a process that was stopped for a while gets another chance


async def watch(bus: Bus, called: asyncio.Event) -> None:
    """Ask the bus something a while after somebody has called us, and end a connection that is stalled.

    Arguments: called: set with every call, cleared here.  While nobody calls, nothing is asked.
    """
    while not bus.ended.done():
        await called.wait()
        await asyncio.sleep(_PERIOD)
        called.clear()
        for _ in range(_TRIES):
            try:
                await bus.call(DRIVER, DRIVER_PATH, DRIVER, "GetId", timeout=_PATIENCE)
                break
            except CallError:
                continue
            except Disconnected:
                return
        else:
            seconds = _PATIENCE * _TRIES
            bus.close(
                f"the bus has taken nothing from us for {seconds:.0f} s: somebody does not read his answers"
            )
