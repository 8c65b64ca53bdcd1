# SPDX-License-Identifier: LGPL-2.1-or-later
"""dbus-next beside dbus-fast: marshalling alone, of a small answer and of a List of many.

dbus-fast comes from the package index, into an environment of its own that is thrown away; where it cannot be had,
that is said.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).with_name("marshalled.py")
_ROUNDS = 3
_PATIENCE = 180.0


@dataclass(frozen=True)
class Marshalling:
    """ms of one library.  Attributes: version; many: a List; small: the answer to Create."""

    version: str
    many: float
    small: float


def measure(directory: Path, count: int, say: Callable[[str], None]) -> dict[str, Marshalling]:
    """Measure what can be had, in turns.  Arguments: directory: an empty one; count: of namespaces in the List."""
    python = _environment(directory, say)
    libraries = ["dbus_next", "dbus_fast"] if python is not None else ["dbus_next"]
    figures: dict[str, list[Marshalling]] = {library: [] for library in libraries}
    for _ in range(_ROUNDS):
        for library in libraries:
            figures[library].append(_one(python or Path(sys.executable), library, count))
    return {
        library: sorted(found, key=lambda one: one.many)[_ROUNDS // 2] for library, found in figures.items()
    }


def _environment(directory: Path, say: Callable[[str], None]) -> Path | None:
    """An interpreter that has both, or None."""
    python = directory / "bin" / "python"
    venv = [sys.executable, "-m", "venv", "--system-site-packages", str(directory)]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    pip += ["--only-binary=:all:", "dbus-fast"]
    try:
        for command in (venv, pip):
            subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=True
            )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        say(f"dbus-fast cannot be had: {said.decode(errors='replace').strip() or error}")
        return None
    return python


def _one(python: Path, library: str, count: int) -> Marshalling:
    command = [str(python), str(PROGRAM), library, str(count), "3"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_PATIENCE, check=True)
    figures = json.loads(result.stdout)
    return Marshalling(figures["version"], figures["list_ms"], figures["small_ms"])
