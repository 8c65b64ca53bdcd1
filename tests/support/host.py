# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine with mountnsd installed, and the people who use it."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .machine import Failed, Machine

BUS = ("org.mountnsd1", "/org/mountnsd1")
MANAGER = "org.mountnsd1.Manager"
UNIT = "mountnsd.service"
MEMBER, OUTSIDER, ADMIN, PASSWORD = "alice", "bob", "carol", "correct horse"
_APT = ("apt-get", "--yes", "--quiet", "-o", "Dpkg::Use-Pty=0")


class Host:
    """What tests do with such a machine.

    People: MEMBER is in the group build, OUTSIDER in no group, and ADMIN may be root, with PASSWORD.

    Attributes: machine; installed: what apt said of the installation.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.run = machine.run
        self.out = machine.out
        self.wait_for = machine.wait_for
        self.installed = ""
        self._mark = 0.0

    def settle(self) -> None:
        """Have people move in.  Raises: machine.Failed."""
        self.run("groupadd", "build")
        self.run("groupadd", "--force", "--system", "sudo")
        for user, groups in ((MEMBER, "build"), (OUTSIDER, ""), (ADMIN, "sudo")):
            self.run("useradd", "--create-home", "--shell=/bin/bash", f"--groups={groups}", user)
        self.run("chpasswd", input=f"{ADMIN}:{PASSWORD}\n")

    def apt(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run apt-get.  Raises: machine.Failed."""
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        return self.run(*_APT, *arguments, env=environment, timeout=300, check=check)

    def install(self, package: Path) -> str:
        """Have apt install a package with what it depends on and recommends; returns what apt said.

        Raises: machine.Failed.
        """
        self.machine.put(package, f"/root/{package.name}")
        result = self.apt("install", f"/root/{package.name}", check=False)
        if result.returncode != 0:  # the lists may be as old as the root tree
            self.apt("update")
            result = self.apt("install", f"/root/{package.name}")
        self.installed = result.stdout + result.stderr
        return self.installed

    # mountnsd

    def call(self, method: str, *arguments: str, user: str = "") -> str:
        """What a method of the manager answers, as busctl shows it.  Raises: machine.Failed."""
        return self.out("busctl", "--system", "--", "call", *BUS, MANAGER, method, *arguments, user=user)

    def names(self) -> list[str]:
        """The namespaces that there are, by the daemon's word."""
        return [namespace["name"] for namespace in self.listed()]

    def listed(self) -> list[dict[str, Any]]:
        """The daemon's list."""
        found: list[dict[str, Any]] = json.loads(self.out("mountnsctl", "--json=short", "list"))
        return found

    def create(self, name: str) -> None:
        """Make a namespace with a tmpfs on /mnt that has the file hi-there."""
        self.run("mountnsctl", "create", name)
        self.run("mountnsctl", "exec", name, "mount", "-t", "tmpfs", "tmpfs", "/mnt")
        self.run("mountnsctl", "exec", name, "touch", "/mnt/hi-there")

    def has_file(self, name: str) -> bool:
        """Whether the file of `create` is there, found without the daemon."""
        command = ("nsenter", f"--mount=/run/mountnsd/ns/{name}", "ls", "/mnt")
        return self.run(*command, check=False).stdout == "hi-there\n"

    def pins(self) -> set[str]:
        """The names that are pinned, by the kernel's word."""
        lines = self.out("cat", "/proc/self/mountinfo").splitlines()
        found = [line.split() for line in lines if " - nsfs " in line]
        return {fields[4].rpartition("/")[2] for fields in found if fields[4].startswith("/run/mountnsd/ns/")}

    @contextlib.contextmanager
    def entered(self, name: str, *argv: str) -> Iterator[int]:
        """A command entered by root, which runs for so long; its pid.  Options of enter may come first."""
        before = set(self.units("mountns-*.service"))
        found: list[int] = []

        def began() -> bool:
            if client.poll() is not None:
                raise Failed(f"{argv} ended: {client.communicate()[0]}")
            for unit in set(self.units("mountns-*.service")) - before:
                pid = self.show(unit, "MainPID")
                line = self.run("cat", f"/proc/{pid}/cmdline", check=False).stdout
                if line.rstrip("\0").rpartition("\0")[2] == argv[-1]:
                    found.append(int(pid))
            return bool(found)

        with self.machine.start("mountnsctl", "enter", name, *argv) as client:
            self.wait_for(f"{argv} runs", began)
            yield found[0]

    def inside(self, name: str) -> set[int]:
        """The processes in a namespace."""
        shown = self.out("mountnsctl", "--json=short", "pids", name)
        return {int(process["pid"]) for process in json.loads(shown)}

    # systemd

    def unit_of(self, pid: int) -> str:
        """The unit that a process is in."""
        return self.out("cat", f"/proc/{pid}/cgroup").splitlines()[-1].rpartition("/")[2]

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.out("systemctl", "show", f"--property={name}", "--value", unit)

    def daemon(self) -> int:
        """The daemon's pid in the machine, 0 where it does not run."""
        return int(self.show(UNIT, "MainPID"))

    def active(self, unit: str) -> bool:
        """Whether a unit is active."""
        return self.show(unit, "ActiveState") == "active"

    def wait_active(self, unit: str, timeout: float = 15.0) -> None:
        """Wait until a unit is active.  Raises: machine.Failed."""
        self.wait_for(f"{unit} is active", lambda: self.active(unit), timeout)

    def wait_inactive(self, unit: str, timeout: float = 15.0) -> None:
        """Wait until a unit has stopped.  Raises: machine.Failed."""
        states = ("inactive", "failed")
        self.wait_for(f"{unit} has stopped", lambda: self.show(unit, "ActiveState") in states, timeout)

    def units(self, pattern: str) -> list[str]:
        """The units that are loaded, by a pattern of names."""
        command = ("systemctl", "list-units", "--all", "--plain", "--no-legend", pattern)
        return [line.split()[0] for line in self.out(*command).splitlines()]

    def kill_daemon(self) -> None:
        """End the daemon as a crash does, and wait until systemd has started another.  Raises: machine.Failed."""
        old = self.daemon()
        assert old, "the daemon does not run"
        self.run("kill", "-9", str(old))
        self.wait_for("systemd starts it again", lambda: self.daemon() not in (0, old))
        self.wait_active(UNIT)

    # between tests

    def mark(self) -> None:
        """Remember when it is."""
        self._mark = time.time()

    def since_mark(self, *arguments: str) -> str:
        """The journal since then."""
        return self.machine.journal(f"--since=@{self._mark:.6f}", *arguments)

    def sweep(self) -> list[str]:
        """Take away what a test left; returns what that was."""
        left = [f"namespace {name}" for name in sorted(self.pins())]
        for name in self.pins():
            self.run("mountnsctl", "destroy", "--kill", name, check=False)
        failed = self.out("systemctl", "--failed", "--plain", "--no-legend").splitlines()
        left += [f"failed unit {line.split()[0]}" for line in failed]
        self.run("systemctl", "reset-failed")
        return left
