# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a reader of a document does: the commands that it has him type, what they print, and the files he writes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"```\w+\n(.*?)```\n|((?:^ {4}[^\n]*\n(?:\n(?= {4}))*)+)", re.DOTALL | re.MULTILINE)
_PATH = re.compile(r"`(/etc/[^`]+)`")


@dataclass(frozen=True)
class Command:
    """A command, and what the document says that it prints."""

    root: bool
    text: str
    output: str


@dataclass(frozen=True)
class File:
    """A file to be written."""

    path: str
    text: str


def section(document: Path, title: str) -> str:
    """What is below a heading of the second level, up to the next one.  Raises: AssertionError."""
    parts = re.split(r"^## (.+)$", document.read_text(), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert title in found, f"{document.name} has no section {title}"
    return found[title]


def chapter(page: Path, title: str) -> str:
    """What is below a heading of the first level in a manual page, up to the next.  Raises: AssertionError."""
    before, found, rest = page.read_text().partition(f"\n# {title}\n")
    assert found, f"{page.name} has no chapter {title}"
    del before
    return re.split(r"^# (?=[A-Z ]+$)", rest, maxsplit=1, flags=re.MULTILINE)[0]


def commands(text: str) -> Iterator[Command]:
    """The commands in a text that are indented as in the definition lists of a manual page."""
    for block in re.finditer(r"(?:^ {8}[^\n]*\n)+", text, re.MULTILINE):
        yield from _commands([line[8:] for line in block[0].splitlines()])


def steps(text: str) -> Iterator[Command | File]:
    """The steps in a text, in its order: indented commands after a prompt or sudo, and fenced files.

    The path of a file is the last that is named before it, or in a comment on its first line.
    """
    for block in _BLOCK.finditer(text):
        if block[1] is not None:
            named = re.match(r"# (/etc/\S+)\n", block[1]) or list(_PATH.finditer(text, 0, block.start()))[-1]
            yield File(named[1], block[1])
        else:
            yield from _commands([line[4:] for line in block[2].splitlines()])


def _commands(lines: list[str]) -> Iterator[Command]:
    root, typed, printed = True, "", [""]
    for line in [*lines, "# "]:
        if typed.endswith("\\"):
            typed = f"{typed[:-1]}{line.lstrip()}"
            continue
        begin = re.match(r"[#$] |(?=sudo )", line)
        if begin is None:
            printed.append(line)
            continue
        if typed:
            yield Command(root, typed, "".join(line + "\n" for line in printed))
        root, typed, printed = begin[0] != "$ ", line[begin.end() :], []


def comparable(output: str) -> list[str]:
    """Lines without what differs from run to run: numbers, and how wide columns are."""
    lines = [" ".join(re.sub(r"[0-9]+", "N", line).split()) for line in output.splitlines()]
    return [line for line in lines if line]
