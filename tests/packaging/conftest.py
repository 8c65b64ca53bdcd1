# SPDX-License-Identifier: LGPL-2.1-or-later
"""Directories for the tests of the packages, which are gone afterwards."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """The tests install into directories, and mount."""
    if os.geteuid() != 0:
        pytest.exit("the tests of the packages make mount namespaces: run them as root", returncode=1)


@pytest.fixture(scope="module")
def new_directory(base: Path) -> Iterator[Callable[[], Path]]:
    """Makes directories that all tests of a module may use."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(dir=base)))
        made[-1].chmod(0o755)
        return made[-1]

    yield make
    for path in made:
        shutil.rmtree(path)
