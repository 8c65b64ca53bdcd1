# SPDX-License-Identifier: LGPL-2.1-or-later
"""The text of `mountnsctl --help`, made from the tables of options.py."""

from __future__ import annotations

from mountnsd.ctl.grammar import Option
from mountnsd.ctl.options import OPTIONS, VERBS
from mountnsd.ctl.text import BOLD, RESET, UNDERLINED

_COLUMN = 30
_WIDTH = 80


def help_text(colours: bool) -> str:
    """The whole help, grouped as machinectl's."""
    bold, underlined, reset = (BOLD, UNDERLINED, RESET) if colours else ("", "", "")
    lines = [
        "mountnsctl [OPTIONS...] COMMAND ...",
        "",
        f"{bold}Create, enter, list and destroy named mount namespaces.{reset}",
    ]
    for group in dict.fromkeys(verb.group for verb in VERBS):
        lines += ["", f"{underlined}{group}:{reset}"]
        for verb in VERBS:
            if verb.group == group:
                lines += _entry(f"  {verb.synopsis}", verb.help)
    for verbs in sorted({option.verbs for option in OPTIONS}):
        heading = "Options of " + " and ".join(verbs) if verbs else "Options"
        lines += ["", f"{underlined}{heading}:{reset}"]
        for option in OPTIONS:
            if option.verbs == verbs:
                lines += _entry(f"  {_spelling(option)}", option.help)
    return "\n".join([*lines, "", "See the mountnsctl(1) man page for details.", ""])


def _spelling(option: Option) -> str:
    if len(option.long) == 1:
        return f"-{option.short}"
    short = f"-{option.short}" if option.short else "  "
    return f"{short} --{option.long}" + (f"={option.metavar}" if option.metavar else "")


def _entry(left: str, right: str) -> list[str]:
    """One entry in two columns, the right one wrapped."""
    import textwrap

    wrapped = textwrap.wrap(right, _WIDTH - _COLUMN)
    if len(left) >= _COLUMN:
        return [left, *(" " * _COLUMN + line for line in wrapped)]
    return [left.ljust(_COLUMN) + wrapped[0], *(" " * _COLUMN + line for line in wrapped[1:])]
