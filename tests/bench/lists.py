# SPDX-License-Identifier: LGPL-2.1-or-later
"""lsns(8), as installed and as of util-linux 2.41, which is the first to know pins that no process is in.

That of 2.41 is Debian 13's, in the root tree that the system tests boot from; it is run with the libraries of that
tree, here, so that it sees the same processes and the same pins.
"""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support import roots

NEW = (2, 41)
_QUERY = ("-t", "mnt")
_LOADER = "lib64/ld-linux-x86-64.so.2"


@dataclass(frozen=True)
class Lsns:
    """A lsns.  Attributes: version; command: how to run it."""

    version: str
    command: tuple[str, ...]

    @property
    def is_new(self) -> bool:
        """Whether it is of 2.41 at least."""
        numbers = re.findall(r"\d+", self.version)
        return tuple(map(int, numbers[:2])) >= NEW


def _of(*command: str) -> Lsns:
    said = subprocess.run([*command, "--version"], stdout=subprocess.PIPE, text=True, timeout=20, check=True)
    return Lsns(said.stdout.split()[-1], (*command, *_QUERY))


def installed() -> Lsns:
    """This machine's."""
    return _of("lsns")


def newest(say: Callable[[str], None], quick: bool) -> Lsns | None:
    """One of 2.41 at least, or None where there is none to be had; QUICK: no root tree is made for it."""
    own = installed()
    if own.is_new:
        return own
    release = next(release for release in roots.RELEASES if release.name == "trixie")
    try:
        tree = roots.made(release) if quick else roots.tree(release, say)
    except (roots.RootError, OSError, subprocess.SubprocessError) as error:
        say(f"lsns of util-linux 2.41 cannot be had: {error}")
        return None
    if tree is None or not (tree / _LOADER).exists():
        return None
    libraries = ":".join(str(path) for path in (tree / "usr/lib").glob("*-linux-gnu"))
    return _of(str(tree / _LOADER), "--library-path", libraries, str(tree / "usr/bin/lsns"))


def among(lsns: Lsns, anchor: Path | None) -> Lsns:
    """One that sees the pins: with an anchor, it looks from the mount namespace that they are in."""
    if anchor is None:
        return lsns
    return Lsns(lsns.version, ("nsenter", f"--mount={anchor}", *lsns.command))


def rows(lsns: Lsns, pins: Path) -> int:
    """How many of the pins below a directory it shows, to be sure that it looks at them."""
    output = subprocess.run(
        [*lsns.command, "--output", "NSFS", "--noheadings", "--notruncate"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    return output.stdout.count(f"{pins}/")
