# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real daemon in a container, on each CPU; and everybody's tools on its pins, there and here."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import Client
from support.daemon import Daemon
from support.ground import contained, forked, resident, run
from support.leaks import mounts_below

from mountnsd import syscalls

CPUS = sorted(os.sched_getaffinity(0))
COUNT = 500


def with_daemon(directory: Path, story: Callable[[Daemon, Client], None]) -> None:
    """Let a story happen with a bus, a daemon and a client where we are."""
    (directory / "bus").mkdir()
    (directory / "daemon").mkdir()
    with (
        PrivateBus("dbus-daemon", directory / "bus") as bus,
        Daemon(bus, directory / "daemon") as daemon,
        Client(bus.address) as root,
    ):
        story(daemon, root)


def numbered_high(work: Callable[[], float], cpu: int) -> float:
    """Do the work in a container with a number above those that the other CPUs hand out."""

    def body() -> float:
        os.sched_setaffinity(0, {cpu})
        for _ in range(3 * 4096):
            syscalls.unshare(syscalls.CLONE_NEWUTS)
        return contained(work, timeout=100)

    return forked(body, timeout=120)


@pytest.mark.parametrize("cpu", CPUS)
def test_five_hundred_on_each_cpu(directory: Path, cpu: int) -> None:
    seconds = 0.0

    def story(daemon: Daemon, root: Client) -> None:
        nonlocal seconds
        os.sched_setaffinity(daemon.pid, {cpu})
        start = time.monotonic()
        for number in range(COUNT):
            root.manager("Create", "sa{sv}", f"n{number}", {})
        seconds = time.monotonic() - start
        assert len(root.manager("List")[0]) == COUNT
        assert len(daemon.pinned()) == COUNT

    def contain() -> float:
        with_daemon(directory, story)
        return seconds

    taken = numbered_high(contain, CPUS[0] if cpu == CPUS[-1] else CPUS[-1])
    print(f"{COUNT} creations over D-Bus in a container, on CPU {cpu} alone: {taken:.2f} s")


@pytest.mark.parametrize("where", ["here", "container"])
def test_everybodys_tools(directory: Path, where: str) -> None:
    target = directory / "target"
    target.mkdir()

    def story(daemon: Daemon, root: Client) -> None:
        root.manager("Create", "sa{sv}", "a", {})
        ((_, _, inode, _, _),) = root.manager("List")[0]
        pin = daemon.pins / "a"
        run("mount", "-N", pin, "-t", "tmpfs", "tools", target)
        run("nsenter", f"--mount={pin}", "touch", target / "hi-there")
        assert list(target.iterdir()) == []
        assert run("nsenter", f"--mount={pin}", "ls", target) == "hi-there\n"
        assert run("nsenter", f"--mount={pin}", "findmnt", "-no", "SOURCE", target).strip() == "tools"
        assert run("findmnt", "-no", "FSTYPE,SOURCE", pin).split() == ["nsfs", f"nsfs[mnt:[{inode}]]"]
        assert [(mount.fstype, mount.root) for mount in mounts_below(pin)] == [("nsfs", f"mnt:[{inode}]")]
        with resident(pin) as pid:
            rows = json.loads(run("lsns", "--json", "--type", "mnt", "--output", "NS,PID"))["namespaces"]
            assert {"ns": inode, "pid": pid} in rows
            assert root.manager("List")[0][0][4] == 1
        run("umount", "-N", pin, target)
        daemon.stop()
        run("nsenter", f"--mount={pin}", "true")
        daemon.start()

    if where == "here":
        with_daemon(directory, story)
    else:
        contained(lambda: with_daemon(directory, story))
