# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changes of the host's mounts that others make: noticed without looking all the time.

Source: proc_pid_mountinfo(5) (POLLPRI).
"""

import asyncio
import logging
import os
import select

from mountnsd import syscalls
from mountnsd.errors import Error
from mountnsd.registry import Registry

logger = logging.getLogger(__name__)

_NOTICE_DELAY = 0.1  # seconds, at least, between a change of the mounts and our looking


class Notice:
    """Looks again when the host's mounts have changed: soon, but never for more than a tenth of the time."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        # /proc/self/mountinfo is always readable; what tells of a change is POLLPRI, which asyncio has not got.
        self._epoll = select.epoll()
        self._mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll.register(self._mountinfo, select.EPOLLPRI)
        self._delay = _NOTICE_DELAY
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._epoll.fileno(), self._changed)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        syscalls.close(self._mountinfo)

    def _changed(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._timer = self._loop.call_later(self._delay, self._look)

    def _look(self) -> None:
        self._epoll.poll(0)
        self._loop.add_reader(self._epoll.fileno(), self._changed)
        start = self._loop.time()
        try:
            self._registry.refresh()
        except (Error, OSError) as error:
            logger.error("The holder cannot be looked at: %s", error)
        self._delay = max(_NOTICE_DELAY, 10 * (self._loop.time() - start))
