# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process has that was entered: the user's ids, and of everything else no more than a new session has."""

import os
import pwd
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import MANAGER, PATH, Client
from support.contract import INVALID, NO_SUCH_USER, action, create, entered, refused, run
from support.daemon import Daemon
from support.entering import CAPABILITY_SETS, fields
from support.launchers import LAUNCHERS, daemon_with
from support.polkit import Polkit

pytestmark = [
    pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True),
    pytest.mark.usefixtures("daemon"),
]

ENTER = "sasa{uh}a{sv}"
# What prctl(2) alone says: secure bits, whether it is dumpable, whether its parent's end is a signal to it.
_PRCTL = """
import ctypes
libc = ctypes.CDLL(None)
death = ctypes.c_int(-1)
libc.prctl(2, ctypes.byref(death))
print(libc.prctl(27, 0, 0, 0, 0), libc.prctl(3, 0, 0, 0, 0), death.value)
"""


@pytest.fixture(params=LAUNCHERS)
def daemon(request: pytest.FixtureRequest, bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    with daemon_with(request.param, bus, directory) as running:
        yield running


@pytest.fixture
def allowed(polkit: Polkit, user: Client, root: Client) -> Client:
    create(root, "x")
    polkit.allow(action("enter"), user.uid)
    return user


class TestNoMoreThanHeHas:
    """As proc(5) has it, of the program itself."""

    def test_status(self, allowed: Client) -> None:
        status = fields(run(allowed, "x", "/bin/cat", "/proc/self/status"))
        assert status["Uid"].split() == status["Gid"].split() == [str(allowed.uid)] * 4
        assert status["Groups"].split() == [str(allowed.uid)]
        assert {int(status[name], 16) for name in CAPABILITY_SETS} == {0}
        assert status["NoNewPrivs"] == "1"
        assert status["Umask"] == "0022"
        assert status["TracerPid"] == "0"
        assert {leaks.signals(status[name]) for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")} == {0}

    def test_what_prctl_says(self, allowed: Client) -> None:
        """No secure bits; dumpable again, since there is nothing of ours in it any more; no signal of ours."""
        assert run(allowed, "x", "/usr/bin/python3", "-c", _PRCTL) == "0 1 0\n"

    def test_limits_and_favours(self, daemon: Daemon, allowed: Client) -> None:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4096, 4096))
        os.setpriority(os.PRIO_PROCESS, daemon.pid, -5)
        Path(f"/proc/{daemon.pid}/oom_score_adj").write_text("300")
        script = "ulimit -Sn; cat /proc/self/oom_score_adj; nice; ps -o sid=,pgid=,pid=,tty= -p $$"
        said = run(allowed, "x", "/bin/sh", "-c", script).split()
        assert int(said[0]) <= 1024 or daemon_is_not_its_parent(daemon)
        assert said[1:3] == ["0", "0"]
        session, group, pid, terminal = said[3:]
        assert session == group == pid
        assert terminal == "?"

    def test_nothing_of_the_daemons_environment_and_place(self, daemon: Daemon, allowed: Client) -> None:
        environment = run(allowed, "x", "/usr/bin/env").splitlines()
        assert {line.partition("=")[0] for line in environment} == {
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
        }
        assert run(allowed, "x", "/bin/pwd") == "/\n"
        assert run(allowed, "x", "/bin/readlink", "/proc/self/root") == "/\n"
        others = ("ipc", "net", "pid", "uts", "user", "cgroup")
        for kind in others:
            link = run(allowed, "x", "/bin/readlink", f"/proc/self/ns/{kind}").strip()
            assert link == os.readlink(f"/proc/{daemon.pid}/ns/{kind}")


def daemon_is_not_its_parent(daemon: Daemon) -> bool:
    """Where systemd starts the process, the limits are systemd's."""
    return "--launcher=systemd" in daemon.command()


class TestDescriptors:
    """Those that he passed; of nobody else."""

    def test_of_many_callers_at_once_each_has_his_own(self, bus: PrivateBus, allowed: Client) -> None:
        script = "sleep 0.3; for fd in /proc/self/fd/*; do readlink $fd; done"
        callers = [Client(bus.address, allowed.uid) for _ in range(8)]
        pipes = [os.pipe() for _ in callers]
        try:
            serials = []
            for number, (caller, (_, writing)) in enumerate(zip(callers, pipes, strict=True)):
                label = os.memfd_create(f"of-caller-{number}")
                fds = {1: writing, 2: writing, 9: label}
                argv = ["/bin/sh", "-c", script]
                serial = caller.send(PATH, MANAGER, "Enter", ENTER, "x", argv, fds, {})
                serials.append(serial)
                os.close(writing)
                os.close(label)
            for caller, serial in zip(callers, serials, strict=True):
                caller.reply(serial)[1].close()
            for number, (reading, _) in enumerate(pipes):
                with os.fdopen(os.dup(reading)) as printed:
                    targets = printed.read().splitlines()
                assert [line for line in targets if "of-caller" in line] == [
                    f"/memfd:of-caller-{number} (deleted)"
                ]
                assert not [line for line in targets if "socket" in line or "anon_inode" in line]
        finally:
            for reading, _ in pipes:
                os.close(reading)
            for caller in callers:
                caller.close()

    def test_each_is_accounted_for(self, allowed: Client, daemon: Daemon) -> None:
        with entered(allowed, "x", ["/bin/sleep", "60"]) as process:
            fds = leaks.fds_of(process.pid)
            assert set(fds) == {0, 1, 2}
            assert fds[0] == "/dev/null"
            shared = {*daemon.open_fds().values()} & {*fds.values()} - {"/dev/null"}
            for number in (1, 2):  # the pipe by which its output is relayed, of which it has one end
                if fds[number] in shared:
                    info = fields(Path(f"/proc/{process.pid}/fdinfo/{number}").read_text())
                    assert int(info["flags"], 8) & os.O_ACCMODE == os.O_WRONLY
            assert all(target.startswith("pipe:") for target in shared)
            os.kill(process.pid, 9)
            process.wait()


class TestNumbersAndNames:
    """The option user: a name or a uid of the host's user database, and nothing that could be taken for one."""

    NOBODY_AT_ALL = (
        *("4294967295", "4294967294", "4294967296", "18446744073709551616", "-1", "-0", "+0", "00", "0x0"),
        *("0 ", " 0", "0\n", "\u0660", "1e0", "0.0", "", " ", "root ", "root\n", "ROOT", "root:x", "*"),
        *("no-such-user", "../root", "/root", "%s", "a" * 300, "65534,0", "root,nobody", "nobody\troot"),
    )

    def test_who_is_nobody(self, root: Client, allowed: Client, polkit: Polkit) -> None:
        asked = len(polkit.questions())
        for user in self.NOBODY_AT_ALL:
            for client in (root, allowed):
                options = {"user": ("s", user)}
                error = refused(client.manager, "Enter", ENTER, "x", ["/usr/bin/id"], {}, options)
                assert error.name in (NO_SUCH_USER, INVALID), (user, error)
        assert len(polkit.questions()) == asked

    def test_himself_by_name_or_number_is_himself(
        self, bus: PrivateBus, polkit: Polkit, root: Client, uid: int
    ) -> None:
        """With the groups that he has now: not with those that the user database would give him."""
        create(root, "x")
        polkit.allow(action("enter"), uid)
        with Client(bus.address, uid, gid=7, groups=[7]) as caller:
            for user in (pwd.getpwuid(uid).pw_name, str(uid)):
                said = fields(run(caller, "x", "/bin/cat", "/proc/self/status", user=("s", user)))
                assert said["Uid"].split() == [str(uid)] * 4
                assert said["Gid"].split() == ["7"] * 4
                assert said["Groups"].split() == ["7"]
            assert {question.action for question in polkit.questions()} == {action("enter")}

    def test_another_has_his_own_groups_and_none_of_the_callers(
        self, bus: PrivateBus, polkit: Polkit, root: Client, uid: int
    ) -> None:
        create(root, "x")
        polkit.allow(action("enter-as"), uid)
        with Client(bus.address, uid, gid=7, groups=[7, 8]) as caller:
            said = fields(run(caller, "x", "/bin/cat", "/proc/self/status", user=("s", "daemon")))
        there = pwd.getpwnam("daemon")
        groups = os.getgrouplist("daemon", there.pw_gid)
        assert said["Uid"].split() == [str(there.pw_uid)] * 4
        assert said["Gid"].split() == [str(there.pw_gid)] * 4
        assert {*said["Groups"].split()} == {str(group) for group in groups}
        assert said["NoNewPrivs"] == "1"
