# SPDX-License-Identifier: LGPL-2.1-or-later
"""No file of a namespace is opened by anybody who is more than the user who entered.

The namespace has a /usr and an /etc of its own.  Who opens a file there is held in the kernel until it is known who
he is.  Source: fanotify(7).
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import NAMESPACE, Client
from support.contract import (
    ENTER_FAILED,
    action,
    create,
    destroy,
    entered,
    on,
    path_of,
    refused,
    run,
    wait_until,
)
from support.daemon import Daemon
from support.ground import enter, forked
from support.ground import run as command
from support.launchers import LAUNCHERS, daemon_with
from support.opens import Opens
from support.polkit import Polkit
from support.silent import silent, waiting_for_it

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

ENTER = "sasa{uh}a{sv}"
# What makes a loader, a C library or an interpreter open files.
VARIABLES = (
    "LD_PRELOAD=/mnt/planted.so",
    "LD_LIBRARY_PATH=/mnt",
    "LD_AUDIT=/mnt/planted.so",
    "PYTHONPATH=/mnt",
    "PYTHONHOME=/mnt",
    "PYTHONSTARTUP=/mnt/planted.py",
    "PYTHONINSPECT=1",
    "GCONV_PATH=/mnt",
    "LOCPATH=/mnt",
    "LC_ALL=planted",
    "NLSPATH=/mnt/%N",
    "MALLOC_TRACE=/mnt/trace",
    "GLIBC_TUNABLES=glibc.malloc.check=3",
    "PATH=/usr/bin:/mnt",
)


@pytest.fixture(params=LAUNCHERS)
def daemon(request: pytest.FixtureRequest, bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    with daemon_with(request.param, bus, directory) as running:
        yield running


def plant(pin: Path) -> None:
    """Give a namespace a /usr and an /etc of its own: overlays, with what somebody planted on top."""

    def work() -> None:
        enter(pin)
        command("mount", "-t", "tmpfs", "-o", "mode=0755", "planted", "/mnt")
        for place in ("usr", "etc"):
            upper, spare = Path("/mnt", place, "upper"), Path("/mnt", place, "work")
            upper.mkdir(parents=True)
            spare.mkdir()
            options = f"lowerdir=/{place},upperdir={upper},workdir={spare}"
            command("mount", "-t", "overlay", "-o", options, "planted", f"/{place}")
        Path("/etc/passwd").write_text("me:x:65534:0::/root:/mnt/shell\nroot::65534:65534::/:/bin/sh\n")
        Path("/etc/group").write_text("disk:x:6:me,nobody\n")
        Path("/etc/nsswitch.conf").write_text("passwd: planted\ngroup: planted\nshadow: planted\n")
        Path("/etc/locale.conf").write_text("LANG=planted\n")

    forked(work)


@pytest.fixture
def planted(daemon: Daemon, root: Client) -> Path:
    """The pin of such a namespace, x."""
    create(root, "x")
    plant(daemon.pins / "x")
    return daemon.pins / "x"


@pytest.fixture
def watched(planted: Path) -> Iterator[Opens]:
    with Opens(planted, "/usr", "/etc") as opens:
        yield opens


@pytest.fixture
def allowed(polkit: Polkit, user: Client) -> Client:
    """The user, whom polkit lets do everything but be somebody else."""
    for word in ("create", "enter", "open", "mount", "destroy", "list"):
        polkit.allow(action(word), user.uid)
    return user


def test_a_file_that_root_opens_inside_is_seen(planted: Path, watched: Opens) -> None:
    """What all the other tests here rest on."""
    command("nsenter", f"--mount={planted}", "cat", "/etc/passwd")
    assert {"/etc/passwd", "/usr/bin/cat"} <= {opening.path for opening in watched.privileged()}


class TestEntering:
    """From setns(2) on only the user opens something, and that is his program."""

    def test_a_program(self, allowed: Client, watched: Opens) -> None:
        assert run(allowed, "x", "id", "-u") == "65534\n"
        assert "/usr/bin/id" in {opening.path for opening in watched.seen}
        assert watched.privileged() == []

    def test_a_login_shell(self, allowed: Client, watched: Opens) -> None:
        with entered(allowed, "x", []) as process:
            process.wait()
        assert any("/usr/sbin/nologin" in opening.path for opening in watched.seen)
        assert watched.privileged() == []

    def test_a_directory(self, allowed: Client, watched: Opens) -> None:
        assert run(allowed, "x", "/bin/pwd", cwd=("s", "/usr/share")) == "/usr/share\n"
        for cwd in ("/root", "/nonexistent", "/etc/passwd"):
            options = {"cwd": ("s", cwd)}
            error = refused(allowed.manager, "Enter", ENTER, "x", ["/bin/true"], {}, options)
            assert (error.name, "chdir" in error.message) == (ENTER_FAILED, True), cwd
        assert watched.privileged() == []

    def test_a_program_that_cannot_be(self, allowed: Client, watched: Opens) -> None:
        for program in ("/nonexistent", "no-such", "/etc/passwd", "/usr/lib"):
            error = refused(allowed.manager, "Enter", ENTER, "x", [program], {}, {})
            assert (error.name, "execve" in error.message) == (ENTER_FAILED, True), program
        assert watched.privileged() == []

    def test_variables(self, allowed: Client, watched: Opens) -> None:
        """They are the program's, and nobody's before."""
        for variable in VARIABLES:
            name, value = variable.split("=", 1)
            printed = run(allowed, "x", "/usr/bin/env", env=("a{ss}", {name: value}))
            assert variable in printed.splitlines()
            assert watched.privileged() == [], variable

    def test_who_it_is_is_the_hosts_word(self, allowed: Client, root: Client, watched: Opens) -> None:
        """In the planted /etc/passwd the user's number is root's name, and another home and shell."""
        environment = run(allowed, "x", "/usr/bin/env").splitlines()
        assert {"USER=nobody", "HOME=/nonexistent", "SHELL=/usr/sbin/nologin"} <= {*environment}
        assert run(root, "x", "/usr/bin/id", "-u", user=("s", "daemon")) == "1\n"
        assert run(allowed, "x", "/usr/bin/id", "-G") == "65534\n"
        assert watched.privileged() == []


class TestTheDaemonItself:
    """Its threads go inside to look and to mount, as root; they open nothing."""

    @pytest.mark.parametrize(
        "ask",
        [
            lambda client: on(client, "x", "GetMounts"),
            lambda client: on(client, "x", "GetChanges"),
            lambda client: on(client, "x", "GetProcesses"),
            lambda client: create(client, "y", from_=("s", "x")),
            lambda client: create(client, "y", from_=("s", "x"), propagation=("s", "private")),
            lambda client: on(client, "x", "Mount", "ssss", "t", "/etc/made", "tmpfs", "X-mount.mkdir"),
            lambda client: on(client, "x", "Mount", "ssss", "/etc", "/usr/made", "", "bind,X-mount.mkdir"),
            lambda client: on(client, "x", "Mount", "ssss", "/etc/hostname", "/etc/passwd", "", "bind"),
            lambda client: refused(on, client, "x", "Mount", "ssss", "t", "/etc/none", "tmpfs", ""),
            lambda client: refused(on, client, "x", "Mount", "ssss", "t", "/etc/passwd/no", "tmpfs", ""),
            lambda client: refused(on, client, "x", "Mount", "ssss", "t", "/usr", "planted", ""),
            lambda client: on(client, "x", "Unmount", "sa{sv}", "/usr", {"lazy": ("b", True)}),
            lambda client: refused(on, client, "x", "Unmount", "sa{sv}", "/etc/passwd", {}),
            lambda client: destroy(client, "x"),
        ],
        ids=[
            "GetMounts",
            "GetChanges",
            "GetProcesses",
            "Create from",
            "Create from, private",
            "Mount, with the mount point",
            "Mount of a directory",
            "Mount over a file",
            "Mount on nothing",
            "Mount below a file",
            "Mount of no type",
            "Unmount",
            "Unmount of nothing",
            "Destroy",
        ],
    )
    @pytest.mark.parametrize("daemon", ["fork"], indirect=True)
    def test_it_opens_no_file(self, allowed: Client, watched: Opens, ask: Callable[[Client], object]) -> None:
        ask(allowed)
        assert watched.seen == []


# The program as it is installed, in an interpreter that takes its time to end: it says so, and waits to be told.
_SLOW_END = """
import os, sys, time
class Last:
    def __del__(self, place={place!r}, mkdir=os.mkdir, access=os.access, sleep=time.sleep):
        mkdir(place + "/ending")
        while not access(place + "/go", 0):
            sleep(0.01)
sys.last_of_all = Last()
from mountnsd.daemon import main
sys.exit(main())
"""


class SlowlyEnding(Daemon):
    """A daemon whose interpreter ends so."""

    def command(self) -> list[str]:
        command = super().command()
        at = command.index("-m")
        return [*command[:at], "-c", _SLOW_END.format(place=str(self.directory)), *command[at + 2 :]]


def test_nor_while_it_ends(bus: PrivateBus, directory: Path, root: Client) -> None:
    """A thread that comes back from the kernel late is ended: that must load nothing where the thread is.

    pthread_exit(3) loads libgcc_s.so.1 when it is first called, and a thread that is inside finds it there.
    """
    place = directory / "daemon"
    place.mkdir()
    with SlowlyEnding(bus, place) as daemon:
        create(root, "x")
        pin = daemon.pins / "x"
        plant(pin)
        with silent(pin, "/mnt/silent") as server, Opens(pin, "/usr", "/etc") as watched:
            pid = daemon.pid
            root.send(path_of("x"), NAMESPACE, "Unmount", "sa{sv}", f"{server.place}/x", {})
            wait_until(lambda: waiting_for_it(pid))
            os.kill(pid, signal.SIGTERM)
            wait_until((place / "ending").exists)
            threads = len(os.listdir(f"/proc/{pid}/task"))
            server.end()
            wait_until(lambda: len(os.listdir(f"/proc/{pid}/task")) < threads)
            (place / "go").touch()
            assert daemon.wait() == 0
            assert watched.seen == []
