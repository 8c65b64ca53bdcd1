# SPDX-License-Identifier: LGPL-2.1-or-later
"""The syntax of systemd's unit files: writing words so that systemd reads what was meant.

Out of scope: what the settings mean.  Source: systemd.syntax(7), systemd.service(5) COMMAND LINES, systemd.unit(5).
"""

from __future__ import annotations

from mountnsd.ctl.problem import Problem

_UNIT_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\@")
_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/:-_.,=+@$^")
_KINDS = ".service .socket .device .mount .automount .swap .target .path .timer .slice .scope"
_SUFFIXES = tuple(_KINDS.split())
_UNIT_LENGTH = 255


def word(text: str) -> str:
    """One word of a command line or a list, quoted where it must be.

    `%` is doubled, because specifiers are read everywhere.  `$` is left: it means a variable in the words of a
    command line, and is doubled by whoever does not mean that (`literal`).
    """
    if text and _BARE.issuperset(text):
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def literal(text: str) -> str:
    """Text with `$` doubled, so that systemd puts no variable there when it runs the command."""
    return text.replace("$", "$$")


def _escaped(character: str) -> str:
    number = ord(character)
    if character in '"\\':
        return "\\" + character
    if character == "%":
        return "%%"
    if 0x20 <= number < 0x7F:
        return character
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def service_name(text: str) -> str:
    """The name of a service unit, with `.service` added where there is no suffix.  Raises: Problem."""
    name = text if text.endswith(_SUFFIXES) else f"{text}.service"
    if len(name) > _UNIT_LENGTH or name[0] in "@." or not _UNIT_LETTERS.issuperset(name):
        raise Problem(f"'{text}' is no name of a unit, see systemd.unit(5).")
    if not name.endswith(".service"):
        raise Problem(f"'{name}' is not a service: only services run commands that can be in a namespace.")
    if "@." in name:
        raise Problem(
            f"'{name}' is a template: say which instance, as in '{name.replace('@.', '@INSTANCE.')}'."
        )
    return name
