# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests under load share: directories, and figures that are shown at the end of a run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter
from support import directories

_figures: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """The tests mount, and change users."""
    if os.geteuid() != 0:
        pytest.exit("the tests under load make mount namespaces: run them as root", returncode=1)


@pytest.fixture(scope="session")
def figures() -> list[str]:
    """Lines to show at the end of the run."""
    return _figures


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Show the figures."""
    if _figures:
        terminalreporter.section("under load")
        for line in _figures:
            terminalreporter.line(line)


@pytest.fixture(scope="module")
def directory(base: Path) -> Iterator[Path]:
    """A directory for one file of tests, which all users can reach.  It fails if a mount is left in it."""
    with directories.below(base) as path:
        yield path
