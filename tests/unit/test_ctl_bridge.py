# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may stand after --host= and --machine=, and that none of it becomes an option of ssh or words of a shell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountnsd.ctl import bridge
from mountnsd.ctl.options import REMOTE, VERBS, parse
from mountnsd.ctl.problem import Problem


@pytest.mark.parametrize(
    "host",
    [
        "",
        "-oProxyCommand=x",
        "bob@-oProxyCommand=x",
        "-bob@host",
        "@host",
        "bob@",
        "a@b@c",
        "host:",
        "host:port",
        "host:123456",
        "host/",
        "host/-x",
        "host/a;b",
        "host/$(x)",
        "host/a/b",
        "fe80::1",
        "[fe80::1",
        "[x]",
        "host name",
        "host\n",
        "a\x1b[2J",
    ],
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(Problem, match="is no host"):
        bridge.to_host(host)


@given(st.text(max_size=30))
def test_a_host_is_one_word_after_the_options(host: str) -> None:
    try:
        command = bridge.to_host(host)._command
    except Problem:
        return
    end = command.index("--")
    assert command[:end] in (["ssh", "-xT"], ["ssh", "-xT", "-p", command[end - 1]])
    assert not command[end + 1].startswith("-")
    assert command[end + 2] == "systemd-stdio-bridge"
    assert all(word.startswith("--machine=") and word.isascii() for word in command[end + 3 :])


@pytest.mark.parametrize("name", ["", "-x", "a/b", "bob@box", ".host", "a b", "../x", "a" * 65])
def test_what_is_no_container(name: str) -> None:
    with pytest.raises(Problem, match="is no name of a container"):
        bridge.to_container(name)


def test_what_works_elsewhere_exists() -> None:
    assert set(REMOTE) <= {verb.name for verb in VERBS}
    assert not {"enter", "exec", "attach", "detach", "edit", "cat", "verify"} & set(REMOTE)


def test_one_of_both() -> None:
    with pytest.raises(Problem, match="exclude each other"):
        parse(["list", "-H", "a", "-M", "b"])
