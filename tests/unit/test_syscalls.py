# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel writes is laid out otherwise on some machines."""

import os
import runpy
from types import SimpleNamespace

import pytest

from mountnsd import syscalls


@pytest.mark.parametrize(("machine", "size"), [("x86_64", 8), ("aarch64", 8), ("s390x", 4)])
def test_the_type_of_a_filesystem(machine: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where 32 bits are taken for 64, the block size is a part of the type, and no pin is believed."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
        there = runpy.run_path(syscalls.__file__)
    assert there["_Statfs"].f_type.size == size
