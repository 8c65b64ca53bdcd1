# SPDX-License-Identifier: LGPL-2.1-or-later
"""apt brings a newer version: all that there is goes on."""

from pathlib import Path

import pytest
from support import deb
from support.host import UNIT, Host


@pytest.fixture
def newer(package: Path, tmp_path: Path) -> Path:
    """The package, as of another day."""
    return deb.renumbered(package, deb.version(package) + "+newer1", tmp_path)


def test_an_upgrade_ends_nothing(host: Host, package: Path, newer: Path) -> None:
    host.create("build")
    host.run("mkfifo", "/root/fifo")
    with (
        host.entered("build", "sleep", "600") as pid,
        host.machine.start(
            "mountnsctl", "enter", "build", "sh", "-c", "echo began; read x < /root/fifo; exit 7"
        ) as client,
    ):
        assert client.stdout is not None
        assert client.stdout.readline() == "began\n"
        unit, before, daemon = host.unit_of(pid), host.listed(), host.daemon()
        said = host.install(newer)
        assert f"Unpacking mountnsd ({deb.version(newer)}) over ({deb.version(package)})" in said
        assert host.active(UNIT)
        assert host.daemon() != daemon
        assert host.listed() == before
        assert host.has_file("build")
        assert host.show(unit, "MainPID") == str(pid)
        host.run("sh", "-c", "echo > /root/fifo")
        assert client.wait(15) == 7  # who waited for an end since before is told of it
    host.run("rm", "/root/fifo")
    host.wait_for("all have left", lambda: host.listed()[0]["processes"] == 0)
    host.run("mountnsctl", "destroy", "build")


def test_so_does_the_way_back(host: Host, package: Path) -> None:
    host.create("build")
    host.apt("install", "--allow-downgrades", f"/root/{package.name}")
    assert host.out("dpkg-query", "--show", "--showformat=${Version}", "mountnsd") == deb.version(package)
    assert host.active(UNIT)
    assert host.has_file("build")
    host.run("mountnsctl", "destroy", "build")
