# SPDX-License-Identifier: LGPL-2.1-or-later
"""python3 -m mountnsd: the daemon."""

import sys

from mountnsd.daemon import main

sys.exit(main())
