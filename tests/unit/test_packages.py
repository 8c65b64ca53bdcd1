# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the programs find their libraries, and what the daemon loads: that is most of its memory and of its start."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# What the libraries would load and the daemon never uses.
UNUSED = (
    "_hashlib",
    "bz2",
    "dbus_next.aio",
    "dbus_next.glib",
    "dbus_next.introspection",
    "dbus_next.proxy_object",
    "dbus_next.service",
    "email",
    "gi",
    "http",
    "lzma",
    "multiprocessing",
    "random",
    "shutil",
    "sitecustomize",
    "tempfile",
    "unittest",
    "zipfile",
)


def _run(code: str, *options: str) -> list[str]:
    """The words that a program says to standard output."""
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}"
    result = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    return result.stdout.split()


def test_the_daemon_loads_what_it_uses() -> None:
    code = (
        "sys.argv = ['mountnsd', '--version']\n"
        "from mountnsd.__main__ import program\n"
        "try: program()\n"
        "except SystemExit: print(*(name for name, module in sys.modules.items() if module is not None))"
    )
    loaded = _run(code, "-I", "-S")
    assert {"asyncio", "mountnsd.daemon", "mountnsd.service", "dbus_next.message"} <= set(loaded)
    assert not {"ssl", "_ssl", *UNUSED} & set(loaded)
    assert len(loaded) <= 275, len(loaded)


def test_libraries_are_found_without_site() -> None:
    code = "from mountnsd import packages\npackages.find()\npackages.find()\nprint(*sys.path, sep='\\n')"
    with_site, without = _run("print(*sys.path, sep='\\n')", "-I"), _run(code, "-I", "-S")
    assert len(without) == len(set(without))
    assert without[1:] == with_site[1:]  # but for our own


def test_a_package_without_what_it_imports_itself() -> None:
    code = (
        "from mountnsd import packages\n"
        "packages.leave_out('decimal')\n"
        "packages.open_up('json')\n"
        "import json.scanner\n"
        "print('json.decoder' in sys.modules, hasattr(json, 'loads'))\n"
        "try: import decimal\n"
        "except ImportError: print('none')\n"
        "try: packages.open_up('json_of_nobody')\n"
        "except ModuleNotFoundError as error: print(error.name)"
    )
    assert _run(code, "-I", "-S") == ["False", "False", "none", "json_of_nobody"]
