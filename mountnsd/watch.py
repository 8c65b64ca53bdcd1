# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether mounts have changed: of the mount namespaces that a holder is in.

Each who wants to know has a watch of his own, which tells of a change once.

Source: proc_pid_mountinfo(5), POLLPRI.
"""

import select
from collections.abc import Sequence

from mountnsd import syscalls


class Watch:
    """Descriptors of mountinfo, which this owns from now on; each is one mount namespace's for ever."""

    def __init__(self, mountinfos: Sequence[int], untold: int = -1) -> None:
        """Arguments: untold: a descriptor, borrowed, that is readable while there are changes that nobody took."""
        self._mountinfos = tuple(mountinfos)
        # A mountinfo is always readable; what tells of a change is POLLPRI, which asyncio has not got.
        self._epoll = select.epoll()
        for fd in self._mountinfos:
            self._epoll.register(fd, select.EPOLLPRI | select.EPOLLERR)
        if untold >= 0:
            self._epoll.register(untold, select.EPOLLIN)

    def fileno(self) -> int:
        """What is readable once there is a change.  Whoever waits for that takes the news away from `changed`."""
        return self._epoll.fileno()

    def changed(self) -> bool:
        """Whether anything was mounted, unmounted or moved since this was asked last, or nobody took the news."""
        return bool(self._epoll.poll(0))

    def close(self) -> None:
        self._epoll.close()
        for fd in self._mountinfos:
            syscalls.close(fd)
