# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's program: python3 -m mountnsd, and what is installed as mountnsd.

Out of scope: all that a daemon does (daemon.py).
"""

from typing import NoReturn

from mountnsd import packages


def program() -> NoReturn:
    """Serve as the command line says, and end."""
    packages.find()
    packages.leave_out("ssl")  # asyncio would load OpenSSL, for connections that nobody makes
    from mountnsd import daemon

    daemon.program()


if __name__ == "__main__":
    program()
