# SPDX-License-Identifier: LGPL-2.1-or-later
"""The modules os, signal and socket as the interpreter has them, for a process that is soon to be another one.

Each process that is entered under systemd begins as a Python (starter.py).  What the standard library puts around
these three (enumerations, selectors, collections) took longer to import than the interpreter to start.  For what is
asked of them on that way the halves that are written in C are the same: numbers instead of enumerations.

Out of scope: whatever has time, which is every other module.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import signal
    import socket
else:
    import _signal as signal
    import _socket as socket
    import posix as os

__all__ = ["os", "signal", "socket"]
