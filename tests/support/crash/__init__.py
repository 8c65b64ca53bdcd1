# SPDX-License-Identifier: LGPL-2.1-or-later
"""The crash matrix: a real daemon on a real bus that fails at each single system call of what it does."""
