# SPDX-License-Identifier: LGPL-2.1-or-later
"""How systemd reads a unit file, written after its extract-word.c and load-fragment.c and not after our writer."""

import re
from pathlib import Path

Command = tuple[str, list[str], list[str]]  # path, argv, flags

_FLAGS = {"-": "ignore-failure", ":": "no-env-expand", "+": "privileged", "!": "no-setuid"}
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}


def sections(text: str) -> dict[str, list[tuple[str, str]]]:
    """The settings of each section, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), [])
        elif line and line[0] not in "#;":
            assert not line.endswith("\\"), f"the next line would belong to {line!r}"
            key, equals, value = line.partition("=")
            assert equals, line
            current.append((key, value.strip()))
    return found


def words(value: str) -> list[str]:
    """The words of a value: quotes, escapes and specifiers read (of specifiers only %% is known)."""
    found: list[str] = []
    current, quote, begun, rest = "", "", False, value
    while rest:
        character, rest = rest[0], rest[1:]
        if quote and character == quote:
            quote = ""
        elif character == "\\":
            match = re.match(r'x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([\\"\'])|([abfnrtvs])', rest)
            assert match, f"systemd does not know the escape in {value!r}"
            number = match[1] or match[2] or match[3]
            assert number is None or int(number, 16) > 0
            assert match[1] is None or int(match[1], 16) < 0x80, "that is a byte, and no character"
            current += chr(int(number, 16)) if number else match[4] or _SIMPLE[match[5]]
            rest, begun = rest[match.end() :], True
        elif not quote and character in "\"'":
            quote, begun = character, True
        elif not quote and character in " \t":
            found, current, begun = ([*found, current] if begun else found), "", False
        else:
            assert character.isprintable(), f"{character!r} is raw in {value!r}"
            current, begun = current + character, True
    assert not quote, value
    return [_specifiers(word) for word in [*found, *([current] if begun else [])]]


def _specifiers(word: str) -> str:
    assert "%" not in word.replace("%%", ""), f"a specifier would be read in {word!r}"
    return word.replace("%%", "%")


def command(value: str) -> Command:
    """One command of ExecStart= and its like, as D-Bus has it."""
    assert ";" not in value.split(" "), f"{value!r} is two commands"
    flags, named = [], False
    while value[0] in "-:+!@":
        named |= value[0] == "@"
        flags += [_FLAGS[value[0]]] if value[0] != "@" else []
        value = value[1:]
    argv = words(value)
    assert not re.search(r"[\x00-\x1f\x7f\"'\\]", argv[0]), "systemd refuses such a path"
    return argv[0], argv[1:] if named else argv, flags


def commands(text: str) -> dict[str, list[Command]]:
    """All commands of a drop-in, the resets done."""
    found: dict[str, list[Command]] = {}
    for key, value in sections(text).get("Service", []):
        if key.startswith("Exec") and key not in ("ExecPaths", "ExecSearchPath"):
            found[key] = [*found.get(key, []), command(value)] if value else []
    return found


def shown_unit(document: Path) -> str:
    """The unit that a document shows, in a fence or indented."""
    lines = document.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.strip() == "# /etc/systemd/system/builder.service")
    indent = lines[first][: -len(lines[first].lstrip())] if lines[first][0] == " " else ""
    found = []
    for line in lines[first + 1 :]:
        if line == "```" or (line and not line.startswith(indent)):
            break
        found.append(line.removeprefix(indent))
    return "\n".join(found).strip() + "\n"
