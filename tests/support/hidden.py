# SPDX-License-Identifier: LGPL-2.1-or-later
"""A hidden holder within reach of a test: its directory by a descriptor of ours, and commands that work there.

What a test does to a pin by hand it writes as for a visible one: `shown` gives a path that can be looked at from
here, and `command` rewrites a command with such a path so that it is done where the holder is.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from mountnsd import helper, namespace

HIDE = os.environ.get("MOUNTNSD_TEST_HOLDER") == "hidden"  # whether daemon and registry get a hidden holder
ANCHOR = ".anchor"
_BY_DESCRIPTOR = re.compile(r"/proc/(?:\d+|self)/fd/\d+")
_opened: dict[
    str, tuple[int, Path]
] = {}  # by what `shown` gave: the anchor's inode, and the holder's own path


def anchor_of(holder: Path) -> int:
    """The inode of the hidden namespace, 0 where the holder is a visible one."""
    anchor = holder / ANCHOR
    try:
        return anchor.stat().st_ino if anchor.stat().st_dev != holder.stat().st_dev else 0
    except OSError:
        return 0


def shown(holder: Path) -> Path:
    """Where a holder's pins can be looked at: itself, or a path through a descriptor of ours."""
    inode = anchor_of(holder)
    if not inode:
        return holder
    for path, known in _opened.items():
        if known == (inode, holder):
            return Path(path)
    anchor = os.open(holder / ANCHOR, os.O_RDONLY | os.O_CLOEXEC)
    try:
        look = namespace.inside(anchor, lambda: os.open(holder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        path = f"/proc/{os.getpid()}/fd/{helper.run_blocking(look)}"
    finally:
        os.close(anchor)
    _opened[path] = (inode, holder)
    return Path(path)


def close(holder: Path) -> None:
    """Close what was opened to show it."""
    for path in [path for path, (_, known) in _opened.items() if known == holder]:
        os.close(int(path.rpartition("/")[2]))
        del _opened[path]


def own_path(path: Path | str) -> tuple[Path, Path] | None:
    """For a path through a descriptor of a hidden holder: the anchor, and what it is where that is; else None.

    The descriptor may be ours (`shown`), or that of a daemon.
    """
    match = _BY_DESCRIPTOR.match(str(path))
    if match is None:
        return None
    for prefix, (_, holder) in _opened.items():
        with suppress(OSError):
            if os.path.samefile(prefix, match[0]):
                return holder / ANCHOR, holder / str(path)[match.end() :].lstrip("/")
    return None


def command(*words: str | Path) -> list[str]:
    """A command, so that it is done where the paths that it has are."""
    anchor: Path | None = None
    found = []
    for word in words:
        option, equals, path = str(word).rpartition("=")  # as in --mount=PATH
        own = own_path(path)
        if own is None:
            found.append(str(word))
        else:
            anchor, there = own
            found.append(f"{option}{equals}{there}")
    return found if anchor is None else ["nsenter", f"--mount={anchor}", *found]


def beside(place: Path | str, *words: str | Path) -> list[str]:
    """A command, so that it is done where the holder of `place` is."""
    own = own_path(place)
    return [*([] if own is None else ["nsenter", f"--mount={own[0]}"]), *map(str, words)]
