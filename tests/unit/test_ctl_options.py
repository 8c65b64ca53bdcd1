# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line of mountnsctl."""

import pytest

from mountnsd.ctl.options import OPTIONS, VERBS, Arguments, parse
from mountnsd.ctl.problem import Problem


def _refused(*words: str) -> str:
    with pytest.raises(Problem) as caught:
        parse(list(words))
    assert caught.value.status == 1
    return caught.value.message


def test_no_verb_is_list() -> None:
    assert parse([]).verb == "list"
    assert parse(["--no-legend"]).verb == "list"


def test_names() -> None:
    arguments = parse(["destroy", "a", "b", "--lazy", "c"])
    assert (arguments.verb, arguments.names, arguments.lazy) == ("destroy", ["a", "b", "c"], True)


@pytest.mark.parametrize(
    "words",
    [
        ["--user=bob", "-E", "A=1", "enter", "ns", "ls", "--user=x", "-q"],
        ["enter", "--user=bob", "ns", "-EA=1", "ls", "--user=x", "-q"],
        ["enter", "ns", "--user", "bob", "--setenv=A=1", "ls", "--user=x", "-q"],
        ["enter", "ns", "--user", "bob", "--setenv", "A=1", "--", "ls", "--user=x", "-q"],
        ["--user", "bob", "--setenv", "A=1", "--", "enter", "ns", "ls", "--user=x", "-q"],
    ],
)
def test_options_end_at_the_command(words: list[str]) -> None:
    arguments = parse(words)
    assert arguments.verb == "enter"
    assert arguments.names == ["ns"]
    assert arguments.command == ["ls", "--user=x", "-q"]
    assert (arguments.user, arguments.environment, arguments.quiet) == ("bob", {"A": "1"}, False)


def test_a_command_may_have_the_two_dashes() -> None:
    assert parse(["exec", "ns", "git", "log", "--", "file"]).command == ["git", "log", "--", "file"]
    assert parse(["exec", "ns", "--", "-odd-"]).command == ["-odd-"]
    assert parse(["exec", "--", "ns", "--", "x"]).command == ["--", "x"]


def test_enter_without_a_command() -> None:
    assert parse(["enter", "ns"]).command == []
    assert parse(["enter", "ns", "--"]).command == []


def test_abbreviated_options() -> None:
    arguments = parse(["create", "x", "--if-n", "--propa=private", "--lab", "a=b", "--label=c=d=e"])
    assert arguments.if_not_exists
    assert arguments.propagation == "private"
    assert arguments.labels == ["a=b", "c=d=e"]


def test_ambiguous_option() -> None:
    message = _refused("--no", "list")
    assert "--no-pager" in message
    assert "--no-legend" in message


def test_short_options_together() -> None:
    arguments = parse(["-qj", "list"])
    assert arguments.quiet
    assert arguments.json == "auto"


def test_empty_values_are_values() -> None:
    assert parse(["create", "x", "--description="]).description == ""
    assert parse(["create", "x", "--description", ""]).description == ""


def test_setenv_hands_our_own_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "one=two")
    monkeypatch.delenv("NONE", raising=False)
    arguments = parse(["enter", "-EMINE", "-E", "NONE", "-EEMPTY=", "ns"])
    assert arguments.environment == {"MINE": "one=two", "EMPTY": ""}


def test_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOUNTNSD_RUNTIME_DIRECTORY", raising=False)
    assert Arguments().runtime_directory == "/run/mountnsd"
    monkeypatch.setenv("MOUNTNSD_RUNTIME_DIRECTORY", "/elsewhere")
    assert parse(["list"]).runtime_directory == "/elsewhere"
    assert parse(["list", "--runtime-directory=/here"]).runtime_directory == "/here"


@pytest.mark.parametrize(
    "words", [["--help"], ["list", "-h"], ["enter", "--hel"], ["-qh", "bogus", "--bogus"]]
)
def test_help_goes_before_everything(words: list[str]) -> None:
    assert parse(words).action == "help"


def test_help_inside_a_command_is_the_commands() -> None:
    assert parse(["exec", "ns", "ls", "--help"]).action == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lits"], "did you mean 'list'?"),
        (["frobnicate"], "mountnsctl --help"),
        (["frobnicate", "a", "b", "c"], "Unknown verb 'frobnicate'"),
        (["--jsn=short"], "did you mean '--json'?"),
        (["-x"], "Unknown option '-x'"),
        (["list", "-jx"], "Unknown option '-x'"),
        (["enter", "ns", "-x"], "Unknown option '-x'"),
        (["--quiet=yes"], "takes no value"),
        (["create", "--label"], "'--label=KEY[=VALUE]' needs a value"),
        (["enter", "-E"], "'-E VAR[=VALUE]' needs a value"),
        (["create", "x", "--label=a"], "'a' does not fit '--label=KEY=VALUE'"),
        (["create", "x", "--label==b"], "'=b' does not fit"),
        (["enter", "x", "-E=b"], "'=b' does not fit"),
        (["--json=xml"], "pretty, short, off"),
        (["--json=auto"], "pretty, short, off"),
        (["list", "x"], "Too many arguments for 'list'"),
        (["create"], "'mountnsctl create NAME'"),
        (["create", "a", "b"], "Too many arguments"),
        (["show"], "'mountnsctl show NAME...'"),
        (["exec", "ns"], "'mountnsctl exec NAME COMMAND...'"),
        (["enter"], "Too few arguments"),
        (["list", "--lazy"], "'list' has no option '--lazy'; that is one of 'destroy' and 'umount'"),
        (["create", "x", "--if-exists"], "that is one of 'destroy'"),
        (["verify", "--lazy"], "'verify' has no option '--lazy'"),
        (["exec", "--user=bob", "ns", "ls"], "that is one of 'enter'"),
        (["--"], None),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str | None) -> None:
    if said is None:
        assert parse(words).verb == "list"
    else:
        assert said in _refused(*words)


def test_tables_are_consistent() -> None:
    names = [verb.name for verb in VERBS]
    assert len(set(names)) == len(names)
    assert len({option.long for option in OPTIONS}) == len(OPTIONS)
    shorts = [option.short for option in OPTIONS if option.short]
    assert len(set(shorts)) == len(shorts)
    for option in OPTIONS:
        assert hasattr(Arguments(), option.attribute), option.long
        assert set(option.verbs) <= set(names)
