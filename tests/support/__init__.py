# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests stand on: private buses, clients as any user, polkit, the daemon, and leak checks."""
