# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measurements beside what a person would use instead: `make bench`, and docs/performance.md."""
