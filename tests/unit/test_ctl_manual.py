# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl(1) against --help and against the tables of the program."""

import re
from pathlib import Path

import pytest

from mountnsd.ctl.grammar import Option, Verb
from mountnsd.ctl.help import help_text
from mountnsd.ctl.options import OPTIONS, VERBS

PAGE = (Path(__file__).parents[2] / "docs" / "mountnsctl.1.md").read_text()
HELP = help_text(False)


def _section(title: str) -> str:
    return PAGE.partition(f"\n# {title}\n")[2].partition("\n# ")[0]


def _entries(section: str) -> list[str]:
    """The terms of the definition lists of a section, without markup."""
    terms = re.findall(r"^(\S.*)\n\n:   ", section, re.MULTILINE)
    return [re.sub(r"\*+|\\", "", term) for term in terms]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_verbs(verb: Verb) -> None:
    assert f"\n  {verb.synopsis} " in HELP
    assert verb.synopsis in _entries(_section("COMMANDS"))


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.long)
def test_options(option: Option) -> None:
    long = f"--{option.long}" + (f"={option.metavar}" if option.metavar else "")
    short = f"-{option.short}" + (f" {option.metavar}" if option.metavar else "")
    if len(option.long) == 1:
        assert f"\n  {short} " in HELP
        assert short in _entries(_section("OPTIONS"))
        return
    assert re.search(rf" {re.escape(long)}\s", HELP)
    assert (f"{short}, {long}" if option.short else long) in _entries(_section("OPTIONS"))


def test_the_page_has_nothing_else() -> None:
    assert len(_entries(_section("COMMANDS"))) == len(VERBS)
    assert len(_entries(_section("OPTIONS"))) == len(OPTIONS)
    known = {f"--{option.long}" for option in OPTIONS if len(option.long) > 1}
    text = re.sub(r"`[^`]*`", "", PAGE.partition("# EXAMPLES")[0])  # code speaks of other programs too
    assert set(re.findall(r"--[a-z][a-z0-9-]*", text.replace("\\", ""))) <= known


def test_options_are_under_their_verbs() -> None:
    for option in OPTIONS:
        heading = f"## Options of {option.verbs[0]}\n" if option.verbs else "## General Options\n"
        part = _section("OPTIONS").partition(heading)[2].partition("\n## ")[0]
        name = option.long if len(option.long) > 1 else f"-{option.short}"
        assert name in part.replace("\\", ""), option.long


@pytest.mark.parametrize(
    "variable",
    [
        "DBUS_SYSTEM_BUS_ADDRESS",
        "MOUNTNSD_RUNTIME_DIRECTORY",
        "SYSTEMD_EXEC_PID",
        "SYSTEMD_EDITOR",
        "EDITOR",
        "VISUAL",
        "SYSTEMD_SSH",
        "SYSTEMD_PAGER",
        "PAGER",
        "SYSTEMD_LESS",
        "SYSTEMD_LESSCHARSET",
        "SYSTEMD_PAGERSECURE",
        "NO_COLOR",
    ],
)
def test_environment(variable: str) -> None:
    sources = (Path(__file__).parents[2] / "mountnsd" / "ctl").glob("*.py")
    assert any(f'"{variable}"' in source.read_text() for source in sources)
    assert f"*\\${variable}*" in _section("ENVIRONMENT")


def test_help_fits_a_terminal() -> None:
    assert max(len(line) for line in HELP.splitlines()) <= 80
    assert "\x1b[4mOptions:\x1b[0m" in help_text(True)
