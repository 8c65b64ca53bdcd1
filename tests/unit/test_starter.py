# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process that is entered under systemd begins with: it is to cost little more than the interpreter."""

import ast
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mountnsd import bare, bundle, child, starter

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


def _loaded(command: tuple[str, ...], code: bytes) -> dict[str, str]:
    """The modules that are there in the end, each with its file."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(code)
        result = subprocess.run(command, stdin=theirs.fileno(), capture_output=True, text=True, check=True)
    found: dict[str, str] = ast.literal_eval(result.stdout)
    return found


@pytest.mark.parametrize("version", [sys.hexversion, 1])
def test_imports_next_to_nothing(version: int) -> None:
    """Whether its code is executed, or found in files."""
    show = "print({name: getattr(module, '__file__', '') for name, module in sys.modules.items()})"
    begin = starter.COMMAND[-1].replace("\nmain()", f"\n{show}").replace(str(sys.hexversion), str(version))
    imported = _loaded((*starter.COMMAND[:-1], begin), bundle.made())
    before = _loaded((*starter.COMMAND[:-1], f"import sys\n{show}"), b"")
    new = imported.keys() - before.keys()
    assert {f"mountnsd{name}" for name in bundle.MODULES} <= new
    assert not HEAVY & new
    assert len(new) <= 16, new
    assert imported["mountnsd.child"] == child.__file__


def test_all_that_it_needs_is_in_its_code() -> None:
    """A module that is missing there would be looked for in files."""
    taken = {
        alias.name
        for name in bundle.MODULES[1:]
        for node in ast.walk(ast.parse((PACKAGE / f"{name[1:]}.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "mountnsd"
        for alias in node.names
    }
    assert {f".{name}" for name in taken} | {".starter", ".bare"} == {*bundle.MODULES[1:]}


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
