# SPDX-License-Identifier: LGPL-2.1-or-later
"""What came over the bus, before anything happens."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountnsd import program
from mountnsd.errors import InvalidArgs

words = st.text(max_size=20).map(lambda text: text.replace("\0", ""))


@given(
    argv=st.lists(words.filter(bool), max_size=5),
    fds=st.dictionaries(st.integers(0, program.MAX_FD), st.integers(0, 15), max_size=16),
    env=st.dictionaries(words.filter(lambda key: key and "=" not in key), words, max_size=5),
    cwd=st.none() | words.map(lambda text: "/" + text),
)
def test_what_the_kernel_takes_is_let_through(
    argv: list[str], fds: dict[int, int], env: dict[str, str], cwd: str | None
) -> None:
    program.check(argv, fds, 16, env, cwd, tty=0 in fds)


@given(
    argv=st.lists(st.text(max_size=5), max_size=3),
    fds=st.dictionaries(st.integers(-2, 2**32), st.integers(-2, 2**32), max_size=3),
    count=st.integers(0, 3),
    env=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
    cwd=st.none() | st.text(max_size=5),
    tty=st.booleans(),
)
def test_whatever_is_let_through_is_sound(
    argv: list[str], fds: dict[int, int], count: int, env: dict[str, str], cwd: str | None, tty: bool
) -> None:
    with contextlib.suppress(InvalidArgs):
        program.check(argv, fds, count, env, cwd, tty=tty)
        assert not any("\0" in text for text in (*argv, *env, *env.values(), cwd or "/"))
        assert all(argv[:1])
        assert all(key and "=" not in key for key in env)
        assert all(0 <= number <= 1023 and 0 <= handle < count for number, handle in fds.items())
        assert cwd is None or cwd.startswith("/")
        assert not tty or 0 in fds


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"argv": [""]}, "argv"),
        ({"argv": ["a\0b"]}, "NUL"),
        ({"argv": ["\ud800"]}, "UTF-8"),
        ({"argv": ["x" * program.MAX_ARGUMENTS]}, "131072"),
        ({"argv": ["x"] * (program.MAX_ARGUMENTS // 10 + 1)}, "131072"),
        ({"env": {"": "x"}}, "environment"),
        ({"env": {"A=B": "x"}}, "'A=B'"),
        ({"env": {"A": "x\0"}}, "env"),
        ({"cwd": ""}, "cwd"),
        ({"cwd": "tmp"}, "absolute"),
        ({"cwd": "/" + "x" * 4095}, "4095"),
        ({"fds": {1024: 0}}, "1024"),
        ({"fds": {0: 1}}, "handle 1"),
        ({"fds": dict.fromkeys(range(254), 0)}, "253"),
        ({"tty": True, "fds": {}}, "tty"),
    ],
)
def test_what_is_refused_is_named(changes: dict[str, Any], says: str) -> None:
    values: dict[str, Any] = {"argv": ["true"], "fds": {0: 0}, "fd_count": 1, "env": {}, "cwd": None}
    program.check(**values)
    with pytest.raises(InvalidArgs) as caught:
        program.check(**(values | changes))
    assert says in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
