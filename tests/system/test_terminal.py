# SPDX-License-Identifier: LGPL-2.1-or-later
"""A shell in a namespace, at a terminal: job control, the size of the window, the exit status."""

from collections.abc import Iterator

import pytest
from support.console import Console
from support.host import Host


@pytest.fixture
def shell(host: Host) -> Iterator[Console]:
    """Root's shell inside, in root's shell outside, which then says the exit status."""
    host.create("build")
    with Console(host.machine) as console:
        console.enter("mountnsctl enter build; echo status $?\r")
        console.expect("In namespace build")
        console.enter("PS1='inside> '\r")
        console.expect("^inside> ")
        yield console
    host.run("mountnsctl", "destroy", "build")


def test_a_login_shell(host: Host, shell: Console) -> None:
    shell.enter("shopt -q login_shell && echo see $(ls /mnt), home $HOME, in $PWD\r")
    shell.expect("^see hi-there, home /root, in /root$")
    shell.enter("exit 5\r")
    shell.expect("^status 5$")


def test_job_control(host: Host, shell: Console) -> None:
    shell.enter("sleep 612\r")
    host.wait_for("it runs", lambda: host.run("pgrep", "--full", "sleep 612", check=False).returncode == 0)
    shell.enter("\x1a")
    shell.expect(r"Stopped +sleep 612")
    shell.enter("bg; jobs\r")
    shell.expect(r"Running +sleep 612")
    shell.enter("fg\r")
    shell.expect("^sleep 612$")
    shell.enter("\x03")
    shell.expect("inside> ")
    shell.enter("echo interrupted: $?\r")
    shell.expect("^interrupted: 130$")
    shell.enter("exit\r")
    shell.expect("^status 0$")
    assert host.run("pgrep", "--full", "sleep 612", check=False).returncode == 1


def test_the_size_of_the_window(host: Host, shell: Console) -> None:
    shell.enter("stty size\r")
    shell.expect("^24 80$")
    shell.enter("trap 'echo it is $(stty size) now' WINCH; echo told\r")
    shell.expect("^told$")
    shell.resize(50, 132)
    shell.enter("\r")  # bash may run a trap only when it reads on
    shell.expect("it is 50 132 now$")
    shell.enter("stty size\r")
    shell.expect("^50 132$")
    shell.enter("exit 0\r")
    shell.expect("^status 0$")


def test_the_terminal_goes_away(host: Host, shell: Console) -> None:
    assert len(host.inside("build")) == 1
    shell.close()
    host.wait_for("what ran there is ended", lambda: host.inside("build") == set())
