# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsd keeps Linux mount namespaces alive under a name."""

__version__ = "0.1.0"
