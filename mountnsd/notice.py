# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changes of the mounts that others make: noticed without looking all the time."""

import asyncio
import logging

from mountnsd.errors import Error
from mountnsd.registry import Registry

logger = logging.getLogger(__name__)

_NOTICE_DELAY = 0.1  # seconds, at least, between a change of the mounts and our looking
_FAILED_DELAY = 5.0  # where that could not be done, until it is tried again


class Notice:
    """Looks again when the mounts have changed: soon, but never for more than a tenth of the time."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._holder = registry.holder
        self._watch = self._holder.watch()
        self._delay = _NOTICE_DELAY
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._watch.fileno(), self._changed)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._watch.fileno())
        self._watch.close()

    def _changed(self) -> None:
        self._loop.remove_reader(self._watch.fileno())
        self._timer = self._loop.call_later(self._delay, self._look)

    def _look(self) -> None:
        self._watch.changed()
        start = self._loop.time()
        least = _NOTICE_DELAY
        try:
            self._registry.refresh()
            if self._registry.holder is not self._holder:  # the watch would keep what the lost one is made of
                self._holder = self._registry.holder
                lost, self._watch = self._watch, self._holder.watch()
                lost.close()
        except (Error, OSError) as error:
            logger.error("The holder cannot be looked at: %s", error)
            least = _FAILED_DELAY
        self._loop.add_reader(self._watch.fileno(), self._changed)
        self._delay = max(least, 10 * (self._loop.time() - start))
