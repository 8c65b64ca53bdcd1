# SPDX-License-Identifier: LGPL-2.1-or-later
"""polkit asks a user at his terminal for the password of an administrator."""

from collections.abc import Iterator

import pytest
from support.console import Console
from support.host import ADMIN, OUTSIDER, PASSWORD, Host


@pytest.fixture
def build(host: Host) -> Iterator[None]:
    """A namespace that no rule is about."""
    host.create("build")
    yield
    host.run("mountnsctl", "destroy", "build")


def _ask(console: Console, password: str) -> None:
    """Ask to enter, and type a password where polkit asks for one."""
    console.enter("mountnsctl enter build sh -c 'echo I am $(id -un), see $(ls /mnt)'; echo status $?\r")
    console.expect(r"org\.mountnsd1\.enter")
    console.expect(ADMIN)
    console.expect("Password: ")
    console.enter_unseen(password + "\r")


def test_the_right_password_opens(host: Host, build: None) -> None:
    with Console(host.machine, OUTSIDER) as console:
        _ask(console, PASSWORD)
        console.expect(f"^I am {OUTSIDER}, see hi-there$")
        console.expect("^status 0$")
        _ask(console, PASSWORD)  # the next time, he is asked again
        console.expect("^status 0$")
    assert PASSWORD not in console.seen


def test_a_wrong_password_does_not(host: Host, build: None) -> None:
    with Console(host.machine, OUTSIDER) as console:
        _ask(console, PASSWORD + "?")
        console.expect("^mountnsctl: ")
        console.expect("^status 1$")
    assert f"I am {OUTSIDER}" not in console.seen
    assert host.inside("build") == set()


def test_without_a_terminal_there_is_no_question(host: Host, build: None) -> None:
    result = host.run("mountnsctl", "enter", "build", "true", user=OUTSIDER, check=False)
    assert result.returncode == 1
    assert "Password" not in result.stderr
