# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python3 -m mountnsd.ctl`."""

from mountnsd.ctl.main import program

program()
