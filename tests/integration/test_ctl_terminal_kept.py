# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl enter --user=` hands our terminal to nobody else, who could type into it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import Client
from support.contract import create
from support.daemon import REPOSITORY, Daemon

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

# Says which of its descriptors are terminals, and writes to what its standard error is called.
SCRIPT = (
    'for fd in 0 1 2; do if test -t $fd; then echo "has $fd"; fi; done; id -un >&2; echo again > /dev/stderr'
)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal of ours."""
    ends = os.openpty()
    yield ends
    for end in ends:
        os.close(end)


def enter(bus: PrivateBus, daemon: Daemon, *words: str, stdin: int, stdout: int, stderr: int) -> str:
    """Run the script; returns what it writes to a pipe."""
    create_once(bus)
    command = [sys.executable, "-m", "mountnsd.ctl", "enter", *words, "x", "/bin/sh", "-c", SCRIPT]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
        "MOUNTNSD_RUNTIME_DIRECTORY": str(daemon.runtime),
    }
    process = subprocess.run(
        command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, timeout=60, check=True
    )
    return process.stdout.decode() if process.stdout is not None else ""


def create_once(bus: PrivateBus) -> None:
    """The namespace x."""
    with Client(bus.address) as root:
        create(root, "x", if_not_exists=("b", True))


def assert_shown(terminal: int, expected: str) -> None:
    """What is seen at our end of the terminal, which comes bit by bit."""
    seen = ""
    while len(seen) < len(expected):
        seen += os.read(terminal, 1000).decode()
    assert seen == expected


@pytest.mark.parametrize("user", ["nobody", "65534"])
def test_somebody_else_has_no_terminal(
    bus: PrivateBus, daemon: Daemon, terminal: tuple[int, int], user: str
) -> None:
    """As in `mountnsctl enter --user=nobody x COMMAND | less`."""
    ours, slave = terminal
    said = enter(bus, daemon, f"--user={user}", stdin=slave, stdout=subprocess.PIPE, stderr=slave)
    assert said == ""
    assert_shown(ours, "nobody\r\nagain\r\n")


def test_nor_where_only_its_output_is_one(bus: PrivateBus, daemon: Daemon, terminal: tuple[int, int]) -> None:
    """As in `COMMAND | mountnsctl enter --user=nobody x COMMAND`."""
    ours, slave = terminal
    enter(bus, daemon, "--user=nobody", stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
    assert_shown(ours, "nobody\r\nagain\r\n")


def test_one_has_it_oneself(bus: PrivateBus, daemon: Daemon, terminal: tuple[int, int]) -> None:
    _, slave = terminal
    for words in ((), ("--user=root",), ("--user=0",)):
        said = enter(bus, daemon, *words, stdin=slave, stdout=subprocess.PIPE, stderr=slave)
        assert said == "has 0\nhas 2\n"


def test_what_is_no_terminal_is_handed_on(bus: PrivateBus, daemon: Daemon, directory: Path) -> None:
    log = directory / "log"
    log.touch()
    log.chmod(0o666)
    with log.open("wb") as file:
        said = enter(
            bus,
            daemon,
            "--user=nobody",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file.fileno(),
        )
    assert (said, log.read_text()) == ("", "again\n")
