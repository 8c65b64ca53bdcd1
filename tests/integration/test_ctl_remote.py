# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl -H and -M: on other hosts and in containers, by the real systemd-stdio-bridge.

In place of ssh there is a script, which does here what ssh has done there.  The container is a process in a mount
namespace of its own, registered as systemd-machined does, and the bridge enters it.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.buses import PrivateBus
from support.ctl import TIMEOUT, Ctl, Terminal, wait_until
from support.daemon import Daemon
from support.identity import NOBODY

NOWHERE = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere/bus"}
MACHINES = Path("/run/systemd/machines")

# Its system bus is the test's.
_CONTAINER = """\
set -e
mount -t tmpfs tmpfs /run
mkdir /run/dbus
touch /run/dbus/system_bus_socket
mount --bind "$1" /run/dbus/system_bus_socket
echo ready
exec sleep infinity
"""


class Ssh:
    """A stand-in for ssh, in the environment of mountnsctl."""

    def __init__(self, directory: Path, bus: PrivateBus) -> None:
        self._program = directory / "ssh"
        self._told = directory / "told"
        self.environment = {**NOWHERE, "SYSTEMD_SSH": str(self._program)}
        self.does(f"exec systemd-stdio-bridge --bus-path={bus.address}")

    def does(self, script: str) -> None:
        """Have it do something else."""
        self._program.write_text(f'#!/bin/sh\nprintf "%s\\0" $$ "$@" > {self._told}\n{script}\n')
        self._program.chmod(0o755)

    def words(self) -> list[str]:
        """What it was last called with."""
        return self._told.read_text().split("\0")[1:-1]

    def pid(self) -> int:
        """The process of the last call."""
        return int(self._told.read_text().split("\0")[0])


@pytest.fixture
def ssh(directory: Path, bus: PrivateBus) -> Ssh:
    """Every host is this one."""
    return Ssh(directory, bus)


def test_all_that_works(ctl: Ctl, ssh: Ssh) -> None:
    def there(*words: str) -> Any:
        return json.loads(ctl.ok("-H", "root@builder", *words, "--json=short", env=ssh.environment))

    made = there("create", "far", "--label=a=b")
    assert made == {"name": "far", "path": "/org/mountnsd1/namespace/far"}
    assert ssh.words() == ["-xT", "--", "root@builder", "systemd-stdio-bridge"]
    assert [item["name"] for item in there("list")] == ["demo", "far"]
    assert there("show", "far") == ctl.json("show", "far")
    assert there("pids", "far") == []
    assert {mount["target"] for mount in there("mounts", "far")} > {"/"}
    assert there("destroy", "far", "demo") == [{"name": "far", "pids": []}, {"name": "demo", "pids": []}]
    assert not leaks.alive(ssh.pid())


def test_mounts_of_another_host(ctl: Ctl, ssh: Ssh) -> None:
    """What is looked up here, as /proc and the journal are, is left out."""

    def there(*words: str) -> Any:
        return json.loads(ctl.ok("-H", "root@builder", *words, "--json=short", env=ssh.environment))

    ctl.still("far")
    there("mount", "far", "scratch", "/mnt", "--type=tmpfs")
    diff = ctl("-H", "builder", "diff", "far", "--json=short", env=ssh.environment)
    assert diff.returncode == 1  # they differ
    assert "scratch" in {change["source"] for change in json.loads(diff.stdout)}
    (status,) = there("status", "far")
    assert (status["name"], status["unit"], status["slice"], status["log"]) == ("far", None, None, [])
    there("umount", "far", "/mnt")
    process = ctl.start("exec", "far", "sh", "-c", "echo ready; read x")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert there("which", str(process.pid))["name"] == "far"
    assert [holder["pid"] for holder in there("busy", "far", "-q")["holders"]] == [process.pid]
    process.communicate("x\n", timeout=TIMEOUT)
    there("destroy", "far")


def test_users_of_another_host_are_numbers(ctl: Ctl, ssh: Ssh) -> None:
    assert " root " in ctl.ok("list")
    out = ctl.ok("--host=builder", "list", env=ssh.environment)
    assert " root " not in out
    assert "Owner: 0\n" in ctl.ok("status", "demo", "-Hbuilder", env=ssh.environment)


def test_errors_of_the_daemon_come_through(ctl: Ctl, ssh: Ssh) -> None:
    result = ctl("-H", "builder", "show", "nope", env=ssh.environment)
    assert (result.returncode, result.stderr) == (1, ctl("show", "nope").stderr)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("builder", ["-xT", "--", "builder"]),
        ("bob@builder:2222", ["-xT", "-p", "2222", "--", "bob@builder"]),
        ("[fe80::1%eth0]:22", ["-xT", "-p", "22", "--", "fe80::1%eth0"]),
        ("bob@[::1]", ["-xT", "--", "bob@::1"]),
    ],
)
def test_how_ssh_is_called(ctl: Ctl, ssh: Ssh, host: str, words: list[str]) -> None:
    ctl.ok("-H", host, "list", env=ssh.environment)
    assert ssh.words() == [*words, "systemd-stdio-bridge"]
    ctl.ok("-H", f"{host}/box.1", "list", env=ssh.environment)
    assert ssh.words() == [*words, "systemd-stdio-bridge", "--machine=box.1"]


def test_ssh_is_looked_for(ctl: Ctl, ssh: Ssh, directory: Path) -> None:
    environment = {**NOWHERE, "PATH": f"{directory}:{ctl.environment['PATH']}"}
    ctl.ok("-H", "builder", "list", env=environment)
    assert ssh.words()[-2:] == ["builder", "systemd-stdio-bridge"]
    missing = ctl("-H", "builder", "list", env={**NOWHERE, "SYSTEMD_SSH": "/nowhere/ssh"})
    assert missing.returncode == 1
    assert missing.stderr == (
        "mountnsctl: Cannot reach host 'builder': '/nowhere/ssh' cannot be run (No such file or directory); "
        "it must be installed here.\n"
    )


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'ssh: no route' >&2; exit 255", "ssh ended with status 255, and has said why."),
        ("exit 127", "there is no systemd-stdio-bridge there, which is part of systemd."),
        ("echo Welcome; exit 3", "ssh ended with status 3."),
        (
            "printf 'Welcome!\\r\\n'; cat >/dev/null",
            "what answers is no D-Bus (does a login there print something?)",
        ),
        ("kill -9 $$", "ssh was ended by signal 9."),
        (
            "exec systemd-stdio-bridge --bus-path=unix:path=/nowhere/bus",
            "ssh ended with status 1.",
        ),
    ],
)
def test_why_there_is_no_connection(ctl: Ctl, ssh: Ssh, script: str, said: str) -> None:
    ssh.does(script)
    result = ctl("-H", "builder", "list", env=ssh.environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"mountnsctl: Cannot reach the system bus of host 'builder': {said}" in result.stderr


def test_there_is_no_daemon_there(bus: PrivateBus, ssh: Ssh) -> None:
    result = Ctl(bus, None)("-H", "builder", "list", env=ssh.environment)
    assert result.returncode == 1
    assert "start it with 'systemctl start mountnsd' on host 'builder'" in result.stderr
    assert "DBUS_SYSTEM_BUS_ADDRESS" not in result.stderr


def test_the_connection_breaks(ctl: Ctl, ssh: Ssh) -> None:
    """And events come over it as over a bus of this host."""
    with ctl.start("monitor", "-H", "builder", "--json=short", env=ssh.environment) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "running"
        for name in ("a", "b", "c"):
            ctl.ok("create", name)
        assert [json.loads(process.stdout.readline())["name"] for _ in range(3)] == ["a", "b", "c"]
        leaks.end(ssh.pid())
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert err == "mountnsctl: The connection to host 'builder' broke: ssh was ended by signal 9.\n"


@pytest.mark.parametrize(
    "words",
    [
        ["enter", "demo"],
        ["exec", "demo", "true"],
        ["attach", "x.service", "demo"],
        ["detach", "x.service"],
        ["verify"],
        ["edit", "demo"],
        ["cat"],
    ],
)
def test_what_cannot_work(ctl: Ctl, ssh: Ssh, words: list[str]) -> None:
    for option in ("--host=builder", "--machine=box"):
        result = ctl(option, *words, env=ssh.environment)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"mountnsctl: Cannot {words[0]} remotely: run '")
        assert f" mountnsctl {words[0]} ...' instead." in result.stderr


def test_no_question_on_the_way(ctl: Ctl, ssh: Ssh, directory: Path) -> None:
    """The polkit of another host cannot ask at this terminal: no agent is started."""
    agent = directory / "pkttyagent"
    agent.write_text(f"#!/bin/sh\ntouch {directory}/asked\n")
    agent.chmod(0o755)
    environment = {**ssh.environment, "PATH": f"{directory}:{ctl.environment['PATH']}"}
    (directory / "told").touch()
    (directory / "told").chmod(0o666)
    with Terminal(ctl, "-H", "builder", "create", "x", uid=NOBODY, env=environment) as terminal:
        terminal.end()
    assert ssh.words()[-1] == "systemd-stdio-bridge"
    assert not (directory / "asked").exists()


@pytest.fixture
def container(bus: PrivateBus) -> Iterator[str]:
    """A container by the name that this gives, with the test's bus as its system bus."""
    name = f"mountnsd-test-{os.getpid()}"
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "--", "sh", "-c", _CONTAINER, "sh", str(bus.socket)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    there = [path for path in (MACHINES, MACHINES.parent) if path.exists()]
    MACHINES.mkdir(parents=True, exist_ok=True)
    record = MACHINES / name
    try:
        assert select.select([process.stdout], [], [], TIMEOUT)[0], "the container does not start"
        assert process.stdout.readline() == b"ready\n"
        record.write_text(f"NAME={name}\nCLASS=container\nLEADER={process.pid}\n")
        yield name
    finally:
        record.unlink(missing_ok=True)
        for path in (MACHINES, MACHINES.parent):
            if path not in there:
                path.rmdir()
        process.kill()
        process.communicate()


def test_a_container(ctl: Ctl, container: str, daemon: Daemon) -> None:
    out = ctl.ok("-M", container, "list", env=NOWHERE)
    assert out.splitlines()[1].startswith("demo ")
    ctl.ok("create", "far", f"--machine={container}", env=NOWHERE)
    assert (daemon.pins / "far").exists()
    nobody = ctl("-M", container, "list", uid=NOBODY)
    assert nobody.returncode == 1
    assert "needs root" in nobody.stderr


def test_a_container_that_there_is_not(ctl: Ctl) -> None:
    result = ctl("-M", "no-such-box", "list")
    assert (result.returncode, result.stdout) == (1, "")
    first, last = result.stderr.splitlines()
    assert first.startswith("Failed to ")  # the bridge's own words
    assert last == (
        "mountnsctl: Cannot reach the system bus of container 'no-such-box': systemd-stdio-bridge ended with "
        "status 1; 'machinectl list' shows the containers that run."
    )


def test_it_ends_with_us(ctl: Ctl, ssh: Ssh) -> None:
    """Killed, mountnsctl leaves no ssh behind."""
    with ctl.start("monitor", "-H", "builder", env=ssh.environment, stderr=sys.stderr) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid = ssh.pid()
        process.kill()
    wait_until(lambda: not leaks.alive(pid))


def test_interrupted_at_a_terminal(ctl: Ctl, ssh: Ssh) -> None:
    """^C is for ssh, too, and nothing is said of its end."""
    with Terminal(ctl, "monitor", "-H", "builder", env=ssh.environment) as terminal:
        terminal.expect("running.* mountnsd")
        terminal.press("\x03")
        assert terminal.end() == 0
        assert "mountnsctl:" not in terminal.seen
    wait_until(lambda: not leaks.alive(ssh.pid()))
