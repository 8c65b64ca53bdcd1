# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 -m mountnsd: the daemon."""

from mountnsd.daemon import program

program()
