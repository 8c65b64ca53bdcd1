# SPDX-License-Identifier: LGPL-2.1-or-later
"""Directories for tests, in which no mount may be left."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import leaks


@contextmanager
def below(base: Path) -> Iterator[Path]:
    """A new directory that all users can reach, removed at the end.

    Raises: AssertionError if a mount is left in it.
    """
    path = Path(tempfile.mkdtemp(dir=base))
    path.chmod(0o755)
    yield path
    left = leaks.mounts_below(path)
    for mount in left[::-1]:
        leaks.detach(mount)
    shutil.rmtree(path)
    assert not left, f"the test left mounts: {left}"
