# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process on its way, which has the user's uid already and still is the daemon's program.

A working directory on a filesystem that never answers holds it there, and other processes of that user do to it what
they can.  Sources: ptrace(2) ("Ptrace access mode checking"), PR_SET_DUMPABLE in prctl(2), proc(5), kill(2).
"""

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import Client
from support.contract import (
    ENTER_FAILED,
    action,
    create,
    destroy,
    entered,
    listed,
    refused,
    run,
    wait_until,
)
from support.daemon import Daemon
from support.entering import CAPABILITY_SETS, status_of
from support.ground import as_user, attempt, call
from support.identity import groups_of
from support.launchers import LAUNCHERS, daemon_with
from support.polkit import Polkit
from support.silent import Silent, silent, the_one_that_waits

pytestmark = [
    pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True),
    pytest.mark.usefixtures("daemon"),
]

ENTER = "sasa{uh}a{sv}"
_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206
_SYS_PIDFD_GETFD, _SYS_KCMP = 438, 312
_STOPPED = "T (stopped)"


@dataclass(frozen=True)
class Held:
    """A process that is held on its way.

    Attributes: pid; inode: of the namespace; server: what holds it; serial: of the call that started it.
    """

    pid: int
    inode: int
    server: Silent
    serial: int


@pytest.fixture(params=LAUNCHERS)
def daemon(request: pytest.FixtureRequest, bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    with daemon_with(request.param, bus, directory) as running:
        yield running


@pytest.fixture
def allowed(polkit: Polkit, user: Client) -> Client:
    polkit.allow(action("enter"), user.uid)
    return user


@pytest.fixture
def held(daemon: Daemon, root: Client, allowed: Client) -> Iterator[Held]:
    create(root, "x")
    inode = listed(root)[0][2]
    with silent(daemon.pins / "x", "/mnt/silent") as server:
        options = {"cwd": ("s", f"{server.place}/x")}
        serial = allowed.send(
            "/org/mountnsd1", "org.mountnsd1.Manager", "Enter", ENTER, "x", ["/bin/true"], {}, options
        )
        yield Held(the_one_that_waits(inode), inode, server, serial)


def ptrace(request: int, pid: int) -> None:
    _LIBC.ptrace.restype = ctypes.c_long
    call(_LIBC.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, None))


def take_fd(pid: int, number: int) -> None:
    call(_LIBC.syscall(_SYS_PIDFD_GETFD, os.pidfd_open(pid), number, 0))


def open_and_close(name: str, flags: int, pid: int) -> None:
    os.close(os.open(f"/proc/{pid}/{name}", flags))


def read_link(name: str, pid: int) -> str:
    return os.readlink(f"/proc/{pid}/{name}")


def read_memory(pid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    there = (ctypes.c_size_t * 2)(id(None), 8)
    call(_LIBC.process_vm_readv(pid, vector, 1, there, 1, 0))


# What another process of the user may try, and what the kernel says.
ATTEMPTS: dict[str, Callable[[int], object]] = {
    "ptrace attach": lambda pid: ptrace(_PTRACE_ATTACH, pid),
    "ptrace seize": lambda pid: ptrace(_PTRACE_SEIZE, pid),
    "process_vm_readv": read_memory,
    "pidfd_getfd": lambda pid: take_fd(pid, 0),
    "kcmp": lambda pid: call(_LIBC.syscall(_SYS_KCMP, pid, os.getpid(), 2, 0, 0)),
    **{
        f"open {name}": partial(open_and_close, name, os.O_RDONLY)
        for name in ("mem", "environ", "maps", "smaps", "auxv", "syscall", "stack", "pagemap", "timers")
    },
    **{f"readlink {name}": partial(read_link, name) for name in ("exe", "cwd", "root", "fd/0", "ns/mnt")},
    "list fd": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "list map_files": lambda pid: os.listdir(f"/proc/{pid}/map_files"),
    "open exe to write": partial(open_and_close, "exe", os.O_WRONLY),
    "write oom_score_adj": lambda pid: Path(f"/proc/{pid}/oom_score_adj").write_text("1000"),
    "write coredump_filter": lambda pid: Path(f"/proc/{pid}/coredump_filter").write_text("0xff"),
    "write mem": partial(open_and_close, "mem", os.O_WRONLY),
}
_REFUSALS = (errno.EACCES, errno.EPERM)


class TestClosedToItsUser:
    """The same uid is not enough: what is in it is the daemon's still."""

    def test_what_it_is(self, held: Held, uid: int) -> None:
        status = status_of(held.pid)
        gid, groups = groups_of(uid)
        assert status["Uid"].split() == [str(uid)] * 4
        assert status["Gid"].split() == [str(gid)] * 4
        assert {*status["Groups"].split()} == {str(group) for group in groups}
        assert {int(status[name], 16) for name in CAPABILITY_SETS} == {0}
        assert status["NoNewPrivs"] == "1"

    def test_nothing_can_be_seen_or_changed(self, held: Held, uid: int) -> None:
        def attempts() -> dict[str, int]:
            return {what: attempt(partial(work, held.pid)) for what, work in ATTEMPTS.items()}

        told = as_user(uid, attempts)
        assert {what: code for what, code in told.items() if code not in _REFUSALS} == {}

    def test_all_of_it_could_be_done_to_a_process_of_his_own(self, uid: int) -> None:
        """That the attempts are refused above is not for want of trying."""
        pid = os.fork()
        if pid == 0:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.execv("/bin/sleep", ["sleep", "60"])
        try:
            wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
            needs_root = {"stack", "exe to write", "list map_files"}

            def attempts() -> dict[str, int]:
                return {
                    what: attempt(partial(work, pid))
                    for what, work in ATTEMPTS.items()
                    if not any(word in what for word in needs_root) and not what.startswith("ptrace")
                }

            told = as_user(uid, attempts)
            assert {what: code for what, code in told.items() if code in _REFUSALS} == {}
            assert as_user(uid, lambda: attempt(lambda: ptrace(_PTRACE_SEIZE, pid))) == 0
        finally:
            leaks.end(pid)

    def test_its_limits_are_his_and_not_the_daemons(self, daemon: Daemon, held: Held, uid: int) -> None:
        """prlimit(2) asks for the ids alone."""
        before = Path(f"/proc/{daemon.pid}/limits").read_text()
        as_user(uid, lambda: resource.prlimit(held.pid, resource.RLIMIT_NPROC, (1, 1)))
        assert Path(f"/proc/{daemon.pid}/limits").read_text() == before

    def test_its_descriptors_are_accounted_for(self, held: Held) -> None:
        """0, 1 and 2, and the socket by which it tells how it goes."""
        fds = leaks.fds_of(held.pid)
        more = [target for number, target in fds.items() if number > 2]
        assert len(more) == 1
        assert more[0].startswith("socket:")
        assert fds[0] == "/dev/null"


class TestSignals:
    """Its user may signal it: that costs nobody but him anything."""

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
    def test_killed_or_stopped(
        self, held: Held, root: Client, allowed: Client, uid: int, number: signal.Signals
    ) -> None:
        as_user(uid, lambda: os.kill(held.pid, number))
        if number is signal.SIGSTOP:
            held.server.end()
            wait_until(lambda: status_of(held.pid)["State"] == _STOPPED)
            assert run(root, "x", "/bin/echo", "others go on") == "others go on\n"
            destroy(root, "x", kill=("b", True))
        assert refused(allowed.reply, held.serial).name == ENTER_FAILED
        wait_until(lambda: not leaks.alive(held.pid))

    def test_what_can_be_caught_waits_until_he_himself_is_there(
        self, held: Held, allowed: Client, uid: int
    ) -> None:
        """No handler of ours runs, and none ends it half way."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
            as_user(uid, partial(os.kill, held.pid, number))
        status = status_of(held.pid)
        assert leaks.signals(status["SigCgt"]) == 0
        assert status["State"].startswith(("S", "D"))
        held.server.end()
        assert refused(allowed.reply, held.serial).name == ENTER_FAILED

    def test_before_it_is_his_he_may_not(self, daemon: Daemon, root: Client, uid: int) -> None:
        """The daemon, and who is root, takes no signal of his."""
        assert as_user(uid, lambda: attempt(lambda: os.kill(daemon.pid, 0))) == errno.EPERM
        create(root, "y")
        with entered(root, "y", ["/bin/sleep", "60"]) as process:
            assert as_user(uid, lambda: attempt(lambda: os.kill(process.pid, 0))) == errno.EPERM
            destroy(root, "y", kill=("b", True))


class TestItsProgram:
    """/proc/self/exe of what was the daemon a moment ago, as in CVE-2019-5736."""

    def test_executed_once_more_it_is_a_program_like_any_other(self, root: Client, allowed: Client) -> None:
        create(root, "x")
        code = (
            "import os;"
            "print(os.getresuid(), os.getgroups());"
            "print(open('/proc/self/status').read());"
            "os.open(os.readlink('/proc/self/exe'), os.O_WRONLY)"
        )
        reading, writing = os.pipe()
        with os.fdopen(reading) as output:
            argv = ["/proc/self/exe", "-c", code]
            with entered(allowed, "x", argv, fds={1: writing, 2: writing}) as process:
                os.close(writing)
                text = output.read()
                assert process.wait()[1] != 0
        assert f"({allowed.uid}, {allowed.uid}, {allowed.uid})" in text
        assert "CapEff:\t0000000000000000" in text
        assert "NoNewPrivs:\t1" in text
        assert "PermissionError" in text or "Text file busy" in text

    def test_as_the_interpreter_of_a_script(self, root: Client, allowed: Client) -> None:
        create(root, "x")
        on_mnt = (
            "printf '#!/proc/self/exe -cprint(__import__(\"os\").getresuid())\\n' > /mnt/s; chmod 755 /mnt/s"
        )
        run(root, "x", "/bin/sh", "-c", f"mount -t tmpfs -o mode=0755 t /mnt && {on_mnt}")
        assert run(allowed, "x", "/mnt/s") == f"({allowed.uid}, {allowed.uid}, {allowed.uid})\n"
