# SPDX-License-Identifier: LGPL-2.1-or-later
"""Garbage is collected in the daemon's own thread, which is outside: what a finalizer opens or imports is the host's.

A future whose exception nobody has taken logs it when it is collected, with lines of the source.  In which encoding a
file of source code is, that file says, and an encoding is a module of Python's.
"""

import encodings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import Client
from support.contract import create, nsenter, on, wait_until
from support.daemon import Daemon
from support.ground import enter, forked, run

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

PLANTED = "/mnt/planted.py"
# In a thread that is inside, leave what a fault would leave, and then as much as makes Python collect.
PROGRAM = f"""
import asyncio, gc, sys
from mountnsd import mounts
from mountnsd.daemon import main
read, loops, run = mounts.mounts_here, [], asyncio.run
def leave():
    future = loops[0].create_future()
    try:
        exec(compile("1 / 0", "{PLANTED}", "exec"))
    except ZeroDivisionError as error:
        future.set_exception(error)
    cycle = [future]
    cycle.append(cycle)
def read_leaving(host):
    leave()
    many = [[] for _ in range(200_000)]
    print("collecting by itself:", gc.isenabled(), flush=True)
    return read(host)
async def served(coroutine):
    loops.append(asyncio.get_running_loop())
    return await coroutine
mounts.mounts_here = read_leaving
asyncio.run = lambda coroutine: run(served(coroutine))
sys.exit(main())
"""


class Leaving(Daemon):
    """A daemon that leaves such garbage when it looks at the mounts inside."""

    def command(self) -> list[str]:
        command = super().command()
        at = command.index("-m")
        return [*command[:at], "-c", PROGRAM, *command[at + 2 :]]


@pytest.fixture
def daemon(bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    place = directory / "daemon"
    place.mkdir()
    with Leaving(bus, place) as running:
        yield running


def plant(pin: Path) -> None:
    """Give a namespace a file of source code, and the module that is its encoding."""
    modules = Path(encodings.__file__).parent

    def work() -> None:
        enter(pin)
        run("mount", "-t", "tmpfs", "planted", "/mnt")
        Path(PLANTED).write_text("# coding: planted\n")
        run("mount", "-t", "tmpfs", "planted", modules)
        (modules / "planted.py").write_text("open('/mnt/imported', 'x')\n")

    forked(work)


def test_nothing_is_imported_inside(daemon: Daemon, root: Client) -> None:
    create(root, "x")
    plant(daemon.pins / "x")
    on(root, "x", "GetMounts")
    assert "collecting by itself: False" in daemon.log()
    wait_until(lambda: "exception was never retrieved" in daemon.log(), 60)
    assert nsenter(daemon.pins / "x", "/bin/ls", "/mnt") == "planted.py\n"
