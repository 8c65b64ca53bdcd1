# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the completions of mountnsctl for bash, zsh and fish, from the tables of mountnsd/ctl/options.py.

What shells share is here: which verbs and options there are, and what a word may be (`Kind`).  How a shell is told
is in the templates beside this file, in which a line `@NAME@` is filled in.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path

from mountnsd.ctl.capabilities import NAMES as CAPABILITIES
from mountnsd.ctl.grammar import Option, Verb
from mountnsd.ctl.options import OPTIONS, SORT_KEYS, VALUES, VERBS, Arguments

HERE = Path(__file__).parent
FILES = {"bash": "mountnsctl.bash", "zsh": "_mountnsctl", "fish": "mountnsctl.fish"}
MARK = "Made by 'make completions' from mountnsd/ctl/options.py: change that, or completions/generate.py."


class Kind(Enum):
    """What a word may be."""

    NOTHING = "nothing"
    NAMESPACE = "namespace"
    DECLARED = "declared"
    UNIT = "unit"
    PID = "pid"
    USER = "user"
    HOST = "host"
    MACHINE = "machine"
    VARIABLE = "variable"
    FILE = "file"
    DIRECTORY = "directory"
    COMMAND = "command"


# What is written in a synopsis.
_OPERANDS = {
    "NAME": Kind.NAMESPACE,
    "OTHER": Kind.NAMESPACE,
    "UNIT": Kind.UNIT,
    "PID": Kind.PID,
    "FILE": Kind.FILE,
    "WHAT": Kind.FILE,
    "WHERE": Kind.FILE,
    "COMMAND": Kind.COMMAND,
}
_DECLARING = ("create", "edit", "cat")  # what they take need not be there
# What is written as the value of an option; all else is for the user to know.
_VALUES = {
    "NAME": Kind.NAMESPACE,
    "USER": Kind.USER,
    "PATH": Kind.DIRECTORY,
    "[USER@]HOST": Kind.HOST,
    "CONTAINER": Kind.MACHINE,
    "VAR[=VALUE]": Kind.VARIABLE,
}
_OWN_NAME = ("argv0",)  # a name of something else


def operands(verb: Verb) -> list[tuple[Kind, bool]]:
    """What a verb takes, and whether any number of it.  Raises: KeyError for what is not in the table."""
    found = []
    for word in verb.synopsis.split()[1:]:
        kind = _OPERANDS[word.strip("[].")]
        if kind is Kind.NAMESPACE and verb.name in _DECLARING:
            kind = Kind.DECLARED
        found.append((kind, "..." in word))
    return found


def value(option: Option) -> Kind | tuple[str, ...] | None:
    """What the value of an option may be: a kind, or one of few; None for a flag."""
    if not option.metavar:
        return None
    if option.long in VALUES:
        return VALUES[option.long]
    if option.long == "sort":
        return SORT_KEYS
    if option.metavar.startswith("CAP"):
        return CAPABILITIES
    return Kind.NOTHING if option.long in _OWN_NAME else _VALUES.get(option.metavar, Kind.NOTHING)


def spellings(option: Option) -> list[str]:
    """How an option may be written, the short one first."""
    short = [f"-{option.short}"] if option.short else []
    return short + ([f"--{option.long}"] if len(option.long) > 1 else [])


def repeats(option: Option) -> bool:
    """Whether an option may be given several times."""
    return isinstance(getattr(Arguments(), option.attribute), list | dict)


def _fill(shell: str, parts: dict[str, list[str]]) -> str:
    """A template with its lines `@NAME@` replaced by several, indented as they are."""
    lines = []
    for line in (HERE / f"{shell}.in").read_text().splitlines():
        name = line.strip()
        if name.startswith("@") and name.endswith("@") and name.strip("@") in parts:
            indent = line[: len(line) - len(name)]
            lines += [indent + one if one else "" for one in parts[name.strip("@")]]
        else:
            lines.append(line.replace("@MARK@", MARK))
    return "\n".join(lines) + "\n"


def bash() -> str:
    """The completion for bash."""
    takes = []
    for option in OPTIONS:
        found = value(option)
        if found is not None:
            words = found.value if isinstance(found, Kind) else " ".join(("=", *found))
            takes += [f'[{spelling}]="{words}"' for spelling in spellings(option)]
    own = {
        verb.name: " ".join(map(_bash_option, (o for o in OPTIONS if verb.name in o.verbs)))
        for verb in VERBS
        if any(verb.name in option.verbs for option in OPTIONS)
    }
    kinds = {
        verb.name: " ".join(kind.value + ("*" if more else "") for kind, more in operands(verb))
        for verb in VERBS
    }
    return _fill(
        "bash",
        {
            "VERBS": [f'[{name}]="{words}"' for name, words in kinds.items()],
            "TAKES": takes,
            "GENERAL": [f"general='{' '.join(_bash_option(o) for o in OPTIONS if not o.verbs)}'"],
            "OWN": [f"[{name}]='{words}'" for name, words in own.items()],
        },
    )


def _bash_option(option: Option) -> str:
    return " ".join(
        spelling + ("=" if option.metavar and spelling.startswith("--") else "")
        for spelling in spellings(option)
    )


def zsh() -> str:
    """The completion for zsh."""
    cases = []
    for verb in VERBS:
        cases.append(f"({verb.name})")
        cases.append("    _arguments -s -S $general \\")
        specs = [spec for option in OPTIONS if verb.name in option.verbs for spec in _zsh_option(option)]
        specs += [_zsh_operand(n, kind, more) for n, (kind, more) in enumerate(operands(verb), 1)]
        cases += [f"        {spec} \\" for spec in specs]
        cases[-1] = cases[-1].removesuffix(" \\") + " && ret=0"
        cases.append("    ;;")
    return _fill(
        "zsh",
        {
            "VERBS": [f"{_quoted(f'{verb.name}:{verb.help}')}" for verb in VERBS],
            "GENERAL": [spec for o in OPTIONS if not o.verbs for spec in _zsh_option(o)],
            "OWN": [spec for o in OPTIONS if o.verbs for spec in _zsh_option(o)],
            "CASES": cases,
        },
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _zsh_text(text: str) -> str:
    for letter in "\\:[]":
        text = text.replace(letter, f"\\{letter}")
    return text


def _zsh_option(option: Option) -> list[str]:
    found = value(option)
    action = ""
    if isinstance(found, tuple):
        listed = " ".join(found)
        action = f":{_zsh_text(option.long)}:" + (
            f"_sequence -s , compadd - {listed}" if option.metavar.endswith("...") else f"({listed})"
        )
    elif found is not None:
        action = f":{_zsh_text(option.metavar)}:{_zsh_action(found)}"
    written = [
        spelling + (("=" if spelling.startswith("--") else "+") if option.metavar else "")
        for spelling in spellings(option)
    ]
    before = "(- *)" if option.attribute == "action" else ("*" if repeats(option) else "")
    if not before and len(written) > 1:
        before = f"({' '.join(spellings(option))})"
    return [_quoted(f"{before}{one}[{_zsh_text(option.help)}]{action}") for one in written]


def _zsh_operand(number: int, kind: Kind, more: bool) -> str:
    if kind is Kind.COMMAND:
        return "'(-)*:: :_mountnsctl_command'"
    return _quoted(f"{'*' if more else number}:{kind.value}:{_zsh_action(kind)}")


def _zsh_action(kind: Kind) -> str:
    return {
        Kind.NOTHING: " ",
        Kind.UNIT: "_mountnsctl_units",
        Kind.PID: "_pids",
        Kind.USER: "_users",
        Kind.HOST: "_user_at_host",
        Kind.MACHINE: "_mountnsctl_machines",
        Kind.VARIABLE: "_parameters -g '*export*'",
        Kind.FILE: "_files",
        Kind.DIRECTORY: "_directories",
        Kind.NAMESPACE: "_mountnsctl_namespaces",
        Kind.DECLARED: "_mountnsctl_declared",
    }[kind]


def fish() -> str:
    """The completion for fish."""
    lines = [
        f"set -g __mountnsctl_takes {' '.join(s for o in OPTIONS if o.metavar for s in spellings(o))}",
        "",
    ]
    for verb in VERBS:
        lines.append(f"complete -c mountnsctl -n __mountnsctl_at -a {verb.name} -d {_quoted(verb.help)}")
    lines.append("")
    for verb in VERBS:
        for number, (kind, more) in enumerate(operands(verb)):
            condition = _quoted(f"__mountnsctl_at {verb.name} {number}{' more' if more else ''}")
            lines.append(f"complete -c mountnsctl -n {condition} {_fish_action(kind)}")
    lines.append("")
    for option in OPTIONS:
        lines.append(_fish_option(option))
    return _fill("fish", {"COMPLETIONS": lines})


def _fish_option(option: Option) -> str:
    words = ["complete -c mountnsctl -n"]
    words.append(_quoted(" ".join(("__mountnsctl_verb", *option.verbs))))
    if option.short:
        words.append(f"-s {option.short}")
    if len(option.long) > 1:
        words.append(f"-l {option.long}")
    found = value(option)
    if isinstance(found, tuple):
        listed = " ".join(found)
        words.append("-x -a " + _quoted(f"(__fish_append , {listed})" if "..." in option.metavar else listed))
    elif found is Kind.NOTHING:
        words.append("-x")
    elif found is not None:
        action = _fish_action(found)
        words.append(f"-r {action}" if action == "-F" else f"-x {action}")
    return " ".join([*words, f"-d {_quoted(option.help)}"])


def _fish_action(kind: Kind) -> str:
    if kind is Kind.FILE:
        return "-F"
    return "-a " + _quoted(
        {
            Kind.UNIT: "(__mountnsctl_units)",
            Kind.PID: "(__fish_complete_pids)",
            Kind.USER: "(__fish_complete_users)",
            Kind.HOST: "(__fish_complete_user_at_hosts)",
            Kind.MACHINE: "(__mountnsctl_machines)",
            Kind.VARIABLE: "(set -xn)",
            Kind.DIRECTORY: "(__fish_complete_directories)",
            Kind.COMMAND: "(__mountnsctl_command)",
            Kind.NAMESPACE: "(__mountnsctl_namespaces)",
            Kind.DECLARED: "(__mountnsctl_declared)",
        }[kind]
    )


TEXTS = {"bash": bash, "zsh": zsh, "fish": fish}


def main() -> int:
    """Write the three files beside this one."""
    for shell, name in FILES.items():
        (HERE / name).write_text(TEXTS[shell]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
