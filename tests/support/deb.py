# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package under test: built from this tree, and the same with another version."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_TIMEOUT = 300  # seconds


def build(say: Callable[[str], None]) -> Path:
    """The package of this tree, built now; or the one that MOUNTNSD_DEB names.

    Arguments: say: told what takes its time.

    Raises: AssertionError with the end of the build's log.
    """
    given = os.environ.get("MOUNTNSD_DEB")
    if given:
        return Path(given).resolve()
    say("building the Debian package ...")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    result = subprocess.run(
        ["make", "deb"],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, f"make deb fails:\n{result.stdout[-4000:]}"
    built = list((REPOSITORY / "build" / "deb").glob("mountnsd_*_all.deb"))
    assert len(built) == 1, f"make deb makes {built}"
    return built[0]


def version(package: Path) -> str:
    """The version of a package."""
    command = ["dpkg-deb", "--field", str(package), "Version"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30, check=True).stdout.strip()


def renumbered(package: Path, new: str, directory: Path) -> Path:
    """A copy of a package with another version, in a directory."""
    tree, target = directory / "tree", directory / f"mountnsd_{new}_all.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], timeout=60, check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {new}", control.read_text(), flags=re.MULTILINE))
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", tree, target],
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    return target
