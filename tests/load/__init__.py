# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon under load: ten thousand namespaces, a hundred callers, restarts in the midst of it."""
