# SPDX-License-Identifier: LGPL-2.1-or-later
"""Text of others made safe for a terminal, and the two ways out: standard output and standard error.

Out of scope: tables and pages.  This file is on the way of every verb: it imports nothing that costs time.
"""

import os
import sys

PROGRAM = "mountnsctl"

BOLD = "\x1b[1m"
UNDERLINED = "\x1b[4m"
RED = "\x1b[1;31m"
GREEN = "\x1b[1;32m"
YELLOW = "\x1b[1;33m"
RESET = "\x1b[0m"


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode gives it
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def plain(text: str) -> str:
    """A message, with every character escaped that is not printable: controls, line ends, changes of direction."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def cell(text: str) -> str:
    r"""A value, escaped as `plain` does and with `\\` doubled, so that no two values look the same."""
    return plain(text.replace("\\", "\\\\"))


def width(text: str) -> int:
    """The columns that printable text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    columns = 0
    for character in text:
        if unicodedata.category(character) not in ("Mn", "Me"):
            columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is open on a terminal."""
    return os.isatty(fd)


def colours(fd: int) -> bool:
    """Whether colours belong on what is written there: a terminal that has them, and no NO_COLOR."""
    environment = os.environ
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb" and is_terminal(fd)


def has_lines(fd: int = 1) -> bool:
    """Whether lines of a tree can be drawn there: UTF-8, unless a locale says that it is none."""
    stream = sys.stdout if fd == 1 else sys.stderr
    if (getattr(stream, "encoding", None) or "").lower() not in ("utf-8", "utf8"):
        return False
    own = os.environ.get(
        "LC_CTYPE", ""
    )  # C.UTF-8 may be the interpreter's own, which makes it of C (PEP 538)
    locale = os.environ.get("LC_ALL") or ("" if own == "C.UTF-8" else own) or os.environ.get("LANG")
    return locale not in ("C", "POSIX")


def write(text: str, fd: int = 1) -> None:
    """Write all of a text, unbuffered.

    Raises: OSError, BrokenPipeError among them.
    """
    stream = sys.stdout if fd == 1 else sys.stderr
    encoding = getattr(stream, "encoding", None) or "utf-8"
    data = memoryview(text.encode(encoding, "backslashreplace"))
    while data:
        data = data[os.write(fd, data) :]


def complain(message: str) -> None:
    """Say on standard error what went wrong; nothing if that is closed."""
    start, end = (RED, RESET) if colours(2) else ("", "")
    note(f"{start}{PROGRAM}: {plain(message)}{end}")


def note(line: str) -> None:
    """Write a line on standard error as it is; nothing if that is closed."""
    try:
        write(line + "\n", 2)
    except OSError:
        return
