# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples do what they say, as they stand."""

import os
import subprocess

import pytest
from support.buses import PrivateBus
from support.client import Client
from support.contract import create, names
from support.daemon import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
SAID = {
    "client_dbus_next.py": "it says: hi-there\nits exit status: 7\noutside: not there\n",
    "client_dbus_python.py": "it says: hi-there\noutside: not there\n",
    "client_glib.py": "it says: hi-there\nits exit status: 7\noutside: not there\n",
}


def run(example: str, bus: PrivateBus) -> "subprocess.CompletedProcess[str]":
    """Run an example on the private bus."""
    return subprocess.run(
        [str(EXAMPLES / example)],
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("example", SAID)
class TestClients:
    """A program that has a command run in a namespace, in three libraries."""

    def test_it_works(self, bus: PrivateBus, root: Client, example: str) -> None:
        result = run(example, bus)
        assert (result.returncode, result.stdout, result.stderr) == (0, SAID[example], "")
        assert names(root) == []

    def test_it_says_what_is_wrong(self, bus: PrivateBus, root: Client, example: str) -> None:
        create(root, "example")
        result = run(example, bus)
        assert (result.returncode, result.stdout) == (1, "")
        assert "org.mountnsd1.Error.NamespaceExists" in result.stderr
        assert "Traceback" not in result.stderr
        assert names(root) == ["example"]


@pytest.mark.usefixtures("daemon")
def test_busctl(bus: PrivateBus, root: Client) -> None:
    result = run("busctl.sh", bus)
    assert (result.returncode, result.stderr) == (0, "")
    made, changes, propagation, destroyed = result.stdout.splitlines()
    assert made == 'o "/org/mountnsd1/namespace/example"'
    assert '"added" "/mnt" "tmpfs"' in changes
    assert propagation == 's "private"'
    assert destroyed == "au 0"
    assert names(root) == []


def test_each_is_listed_and_short() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    files = [path for path in EXAMPLES.iterdir() if path.name != "README.md"]
    for path in files:
        assert f"({path.name})" in listed, path
        assert len(path.read_text().splitlines()) <= 80, path
        assert os.access(path, os.X_OK) == (path.suffix in (".py", ".sh")), path
    assert listed.count("](") == len(files)


def test_the_script_is_sound() -> None:
    subprocess.run(["shellcheck", str(EXAMPLES / "busctl.sh")], check=True, timeout=30)
