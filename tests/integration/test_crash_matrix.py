# SPDX-License-Identifier: LGPL-2.1-or-later
"""The crash matrix: each operation is killed, and fails, at every single system call that it makes.

What must hold after each is in tests/support/crash. The whole of it is run once, two operations at a time, and
docs/crash-matrix.md must be what came of it.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.crash.matrix import Result, in_pen
from support.crash.operation import OPERATIONS
from support.crash.table import DOCUMENT, WORKERS, document

Matrix = dict[str, Result]


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """What comes of each operation."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(OPERATIONS, pool.map(in_pen, OPERATIONS), strict=True))


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_lost_and_nothing_left(matrix: Matrix, name: str) -> None:
    result = matrix[name]
    assert not result.wrong
    faults = {fault for row in result.cells.values() for fault, words in row.items() if words}
    assert faults >= {"SIGKILL", "EPERM", "ENOMEM", "ENOSPC", "EMFILE", "EINTR"}


@pytest.mark.visible_holder
def test_the_page_is_what_comes_of_it_now(matrix: Matrix) -> None:
    cells = {name: result.cells for name, result in matrix.items()}
    assert document(cells) == DOCUMENT.read_text(), "run 'make crash-matrix', and look at what is different"
