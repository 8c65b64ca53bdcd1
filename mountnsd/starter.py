# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program that systemd starts in the unit of a process that is entered: it becomes that process.

The daemon sends it the plan over descriptor 0.  It is started by COMMAND: nothing of the environment, of the working
directory or of site-packages has a say in what it imports, and it imports only what it needs.  It is no script,
because Python compiles one each time that it is run; its code comes before the plan.

Out of scope: what the plan says (child.py carries it out), the code (bundle.py), and the unit (transient.py).
"""

from __future__ import annotations

import errno
import sys

from mountnsd import child, handover
from mountnsd.bare import os, signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# The daemon has ended, or the caller has left before the process began.
_GIVEN_UP = (errno.EPIPE, errno.ECONNRESET)
_PLACE = __file__.rpartition("/")[0].rpartition("/")[0]
# Python's own flags: isolated, and without site-packages.  Another version of Python cannot read this one's code.
_BEGIN = f"""\
import sys,marshal,posix,_socket as k
s=k.socket(fileno=0)
def r(n):
 d=s.recv(n,k.MSG_WAITALL)
 len(d)==n or posix._exit(127)
 return d
c=r(int.from_bytes(r(8),'little'))
s.detach()
if sys.hexversion=={sys.hexversion}:
 exec(*marshal.loads(c))
else:
 sys.path.insert(0,{_PLACE!r})
from mountnsd.starter import main
main()"""
COMMAND = (sys.executable or "/usr/bin/python3", "-I", "-S", "-c", _BEGIN)
HELLO = b"\2"  # to the daemon: this is who I am; the kernel says the pid


def main() -> NoReturn:
    """Become what the daemon says, or end with the status 127."""
    # Until execve no signal ends us without a word; one that came meanwhile then does its work.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        sock = socket.socket(fileno=0)
        plan = handover.receive(sock)
        sock.close()
        os.write(plan.channel, HELLO)
    except OSError as error:
        if error.errno not in _GIVEN_UP:
            os.write(2, f"The process cannot be started: {error.strerror}.\n".encode())
        os._exit(127)
    child.run(plan)
