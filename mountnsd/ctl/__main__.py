# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python3 -m mountnsd.ctl`."""

import sys

from mountnsd.ctl.main import main

sys.exit(main())
