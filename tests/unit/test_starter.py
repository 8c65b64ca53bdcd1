# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process that is entered under systemd begins with: it is to cost little more than the interpreter."""

import ast
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from mountnsd import bare, starter

PACKAGE = Path(starter.__file__).parent
BARE = [file for file in PACKAGE.glob("*.py") if "from mountnsd.bare import" in file.read_text()]
# Each of them takes longer than the starter itself, or as long.
HEAVY = {
    "array",
    "asyncio",
    "collections",
    "contextlib",
    "ctypes",
    "dataclasses",
    "enum",
    "json",
    "os",
    "pathlib",
}
HEAVY |= {"re", "selectors", "signal", "site", "socket", "types", "typing"}


def test_imports_next_to_nothing() -> None:
    code = starter.COMMAND[-1].replace("; main()", "; print(*sorted(sys.modules))")
    result = subprocess.run([*starter.COMMAND[:-1], code], capture_output=True, text=True, check=True)
    alone = [*starter.COMMAND[:-1], "import sys; print(*sorted(sys.modules))"]
    before = subprocess.run(alone, capture_output=True, text=True, check=True).stdout.split()
    imported = {*result.stdout.split()} - {*before}
    assert "mountnsd.child" in imported
    assert not HEAVY & imported
    assert len(imported) <= 16, imported


@pytest.mark.parametrize("file", BARE, ids=lambda file: str(file.stem))
def test_what_is_used_of_the_bare_modules_is_there(file: Path) -> None:
    """And is the same that the whole module has, but for numbers that have a name there."""
    whole = {"os": os, "signal": signal, "socket": socket}
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in whole
    }
    for module, name in used - {("signal", "valid_signals")}:
        value = getattr(getattr(bare, module), name)
        same = getattr(whole[module], name)
        if isinstance(value, int):
            assert value == same, name
        elif isinstance(value, type):
            assert issubclass(same, value), name
        else:
            assert value is getattr(same, "__wrapped__", same) or module == "signal", name


def test_all_of_it_is_looked_at() -> None:
    assert {file.stem for file in BARE} == {"becoming", "child", "handover", "passing", "starter"}
