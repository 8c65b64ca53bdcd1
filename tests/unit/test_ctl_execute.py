# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl exec`: what it takes for a pin, and what it costs to start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from support.daemon import copy_program

from mountnsd import names
from mountnsd.ctl.execute import could_be_pin, open_pin

REPOSITORY = Path(__file__).parents[2]
HEAVY = (
    "argparse",
    "asyncio",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "jeepney",
    "json",
    "re",
    "typing",
)


@given(st.one_of(st.text(st.sampled_from("aZ0_.-/ é\n"), max_size=66), st.text(max_size=70)))
@example("a" * 64)
@example("a" * 65)
@example("a..b")
def test_could_be_pin_is_the_rule_of_names(name: str) -> None:
    assert could_be_pin(name) == names.is_valid(name)


def test_only_pins_of_mount_namespaces_are_opened(tmp_path: Path) -> None:
    holder = tmp_path / "ns"
    holder.mkdir()
    (holder / "file").touch()
    (holder / "directory").mkdir()
    (holder / "link").symlink_to("/proc/self/ns/mnt")
    (holder / "null").symlink_to("/dev/null")
    os.mkfifo(holder / "fifo")  # must not block
    before = len(os.listdir("/proc/self/fd"))
    for name in ("file", "directory", "link", "null", "fifo", "missing", "../ns/file", ""):
        assert open_pin(str(tmp_path), name) is None, name
    assert len(os.listdir("/proc/self/fd")) == before


def test_imports_next_to_nothing() -> None:
    """A namespace that is not there takes the whole way of `exec` up to the daemon; nothing of that is heavy."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from mountnsd.ctl import execute, main, options\n"
        "options.parse(['exec', 'x', 'true'])\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = result.stdout.split()
    assert "mountnsd.ctl.execute" in imported
    assert not set(HEAVY) & set(imported)
    assert len(imported) <= 28, imported


def test_unprivileged_is_told_what_to_do(base: Path) -> None:
    program = copy_program(base)
    result = subprocess.run(
        [sys.executable, "-m", "mountnsd.ctl", "exec", "x", "true"],
        cwd=program,
        capture_output=True,
        text=True,
        check=False,
        user=65534 if os.geteuid() == 0 else None,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(program)},
    )
    shutil.rmtree(program)
    assert result.returncode == 1
    assert "needs root" in result.stderr
    assert "mountnsctl enter" in result.stderr
