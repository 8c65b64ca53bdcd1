# SPDX-License-Identifier: LGPL-2.1-or-later
"""The linters, and the rules about the code that no linter knows."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
PACKAGE = TREE / "mountnsd"
LONGEST = 450

# What each module may know of the package: nothing, for the lowest; and what it must not, for those in between.
LOWEST = {"bare", "becoming", "syscalls", "mountevents", "mountinfo", "names", "errors"}
WITHOUT_DBUS = {
    "directorywatch",
    "inventory",
    "roster",
    "holder",
    "namespace",
    "metadata",
    "processes",
    "mountrequest",
    "declaration",
    "mountpoint",
    "mounts",
    "registry",
    "launcher",
    "child",
    "identity",
}
ABOVE = {"bus", "service", "authority", "daemon"}
# `mountnsctl verify` also knows declaration and mountrequest: what may be declared, not how it is made.
DAEMON_ONLY = (ABOVE | WITHOUT_DBUS | {"config", "methods", "callers"}) - {"declaration", "mountrequest"}


def tool(name: str) -> list[str]:
    """How to run a linter: of our virtual environment, of this interpreter, or of the PATH."""
    local = TREE / ".venv" / "bin" / name
    if local.exists():
        return [str(local)]
    if importlib.util.find_spec(name) is not None:
        return [sys.executable, "-m", name]
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; 'make test' installs it")
    return [found]


def check(command: list[str], **environment: str) -> None:
    """Run a linter over the tree; its output is the failure's message."""
    result = subprocess.run(
        command,
        cwd=TREE,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_ruff() -> None:
    check([*tool("ruff"), "check", "--quiet", "."])


def test_format() -> None:
    check([*tool("ruff"), "format", "--check", "--quiet", "."])


def test_mypy() -> None:
    check([*tool("mypy"), "--strict", "--explicit-package-bases", "--no-error-summary"], MYPYPATH="tests")


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    """Every module of the package: its dotted name, its file, its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(TREE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, path, ast.parse(path.read_text(), str(path))


def imports(name: str, path: Path, tree: ast.Module) -> set[str]:
    """What a module imports, as dotted names; `from x import y` is both x and x.y."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return found


def own(imported: set[str]) -> set[str]:
    """The daemon's modules among what is imported, by their short names; ctl's are `ctl`."""
    known = {path.stem for path in PACKAGE.glob("*.py")} | {"ctl"}
    short = {name.split(".")[1] for name in imported if name.startswith("mountnsd.")}
    return short & known - {"__init__"}


MODULES = [pytest.param(*module, id=module[0]) for module in modules()]


@pytest.mark.parametrize(("name", "path", "tree"), MODULES)
class TestRules:
    """The layering, and what no module does."""

    def test_only_bus_knows_dbus_next(self, name: str, path: Path, tree: ast.Module) -> None:
        uses = {
            item for item in imports(name, path, tree) if item.split(".")[0] in ("dbus_next", "dbus_fast")
        }
        assert not uses or name == "mountnsd.bus"

    def test_layers(self, name: str, path: Path, tree: ast.Module) -> None:
        known = own(imports(name, path, tree))
        short = name.split(".")[1] if "." in name else name
        if short in LOWEST:
            assert known <= LOWEST, f"{name} knows what is above it"
        if short in WITHOUT_DBUS:
            assert not known & ABOVE, f"{name} knows D-Bus"
        if short == "ctl":
            assert not known & DAEMON_ONLY, f"{name} knows the daemon's inside"
        else:
            assert "ctl" not in known, f"{name} knows mountnsctl"

    def test_length(self, name: str, path: Path, tree: ast.Module) -> None:
        del name, tree
        assert len(path.read_text().splitlines()) <= LONGEST

    def test_no_shell(self, name: str, path: Path, tree: ast.Module) -> None:
        del name
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            where = f"{path}:{node.lineno}"
            assert called not in ("os.system", "os.popen", "subprocess.getoutput"), where
            for keyword in node.keywords:
                shell = keyword.arg == "shell" and ast.unparse(keyword.value) != "False"
                assert not shell, where

    def test_says_its_licence_and_its_purpose(self, name: str, path: Path, tree: ast.Module) -> None:
        del name
        assert path.read_text().startswith("# SPDX-License-Identifier: LGPL-2.1-or-later\n")
        assert ast.get_docstring(tree)


def test_the_rules_see_what_they_forbid() -> None:
    text = "import dbus_next.aio\nfrom . import bus\nfrom .service import Service\nfrom .. import errors\n"
    found = imports("mountnsd.ctl.verbs", Path("verbs.py"), ast.parse(text))
    assert {"dbus_next.aio", "mountnsd.ctl.bus", "mountnsd.ctl.service", "mountnsd.errors"} <= found
    assert imports("mountnsd.holder", Path("holder.py"), ast.parse(text)) >= {"mountnsd.bus"}
    assert own({"mountnsd.bus", "mountnsd.bus.Bus", "os"}) == {"bus"}
