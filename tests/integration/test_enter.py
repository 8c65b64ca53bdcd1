# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter, over the bus: a process inside, as who calls, with what he passed, until it has ended."""

import contextlib
import os
import pwd
import select
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import INTERACTIVE, MANAGER, NAMESPACE, PATH, Client
from support.contract import (
    BUSY,
    CLD_EXITED,
    CLD_KILLED,
    DENIED,
    ENTER_FAILED,
    LIMITS,
    action,
    create,
    destroy,
    entered,
    listed,
    names,
    on,
    path_of,
    refused,
    run,
    settled_fds,
    wait_until,
)
from support.daemon import Daemon
from support.identity import groups_of
from support.polkit import Polkit
from support.raw import MEMBER, RawConnection, marshal

pytestmark = pytest.mark.usefixtures("daemon")

ENTER = "sasa{uh}a{sv}"
SLEEP = ["/bin/sleep", "300"]


@pytest.fixture(autouse=True)
def _x(daemon: Daemon, root: Client) -> None:
    """A namespace with a filesystem of its own, and a file of root's in it."""
    create(root, "x")
    on(root, "x", "Mount", "ssss", "inside", "/mnt", "tmpfs", "mode=0755")
    run(root, "x", "/bin/sh", "-c", "echo made by root > /mnt/hi-there")


@pytest.fixture
def allowed(polkit: Polkit, user: Client) -> Client:
    """The user, whom polkit lets enter as himself."""
    polkit.allow(action("enter"), user.uid)
    return user


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


def status(text: str) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def read(fd: int) -> bytes:
    """What is in a pipe whose other end has been closed."""
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


def enter(client: Client, argv: Sequence[str], **options: tuple[str, Any]) -> tuple[int, Any]:
    """Enter x; returns pid and pidfd."""
    pid, pidfd = client.manager("Enter", ENTER, "x", list(argv), {}, options)
    return int(pid), pidfd


class TestWhoItIs:
    """Who enters is himself inside, and can become nobody else there."""

    def test_a_user_as_himself(self, allowed: Client) -> None:
        user = pwd.getpwuid(allowed.uid)
        gid, groups = groups_of(allowed.uid)
        inside = status(run(allowed, "x", "/bin/cat", "/proc/self/status"))
        assert inside["Uid"].split() == [str(user.pw_uid)] * 4
        assert inside["Gid"].split() == [str(gid)] * 4
        assert sorted(inside["Groups"].split()) == sorted(str(group) for group in groups)
        assert inside["NoNewPrivs"] == "1"
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(inside[kind], 16) == 0, kind
        assert leaks.signals(inside["SigBlk"]) == leaks.signals(inside["SigIgn"]) == 0

    def test_the_groups_of_the_caller_and_not_those_of_the_database(
        self, bus: PrivateBus, polkit: Polkit, uid: int
    ) -> None:
        polkit.allow(action("enter"))
        with Client(bus.address, uid, gid=7, groups=[7, 8]) as caller:
            inside = status(run(caller, "x", "/bin/cat", "/proc/self/status"))
        assert set(inside["Gid"].split()) <= {"7", "8"}
        assert set(inside["Groups"].split()) == {"7", "8"}

    def test_root(self, root: Client) -> None:
        inside = status(run(root, "x", "/bin/cat", "/proc/self/status"))
        assert inside["Uid"].split() == ["0"] * 4
        assert inside["NoNewPrivs"] == "0"

    def test_it_is_inside(self, allowed: Client, root: Client) -> None:
        assert run(allowed, "x", "/bin/cat", "/mnt/hi-there") == "made by root\n"
        assert not Path("/mnt/hi-there").exists()
        inode = listed(root)[0][2]
        assert run(allowed, "x", "/bin/readlink", "/proc/self/ns/mnt") == f"mnt:[{inode}]\n"

    def test_what_is_roots_stays_roots(self, allowed: Client, root: Client) -> None:
        script = "echo mine > /mnt/hi-there"
        with entered(allowed, "x", ["/bin/sh", "-c", script]) as process:
            code, number = process.wait()
        assert (code, number != 0) == (CLD_EXITED, True)
        assert run(root, "x", "/bin/cat", "/mnt/hi-there") == "made by root\n"

    def test_as_another_user_is_another_action(self, polkit: Polkit, allowed: Client) -> None:
        for options in (
            {"user": ("s", "root")},
            {"user": ("s", "0")},
            {"user": ("s", "daemon")},
            {"new_privileges": ("b", True)},
        ):
            error = refused(allowed.manager, "Enter", ENTER, "x", ["/bin/id"], {}, options)
            assert error.name == DENIED, options
            assert polkit.questions()[-1].action == action("enter-as")
        polkit.allow(action("enter-as"), allowed.uid)
        assert run(allowed, "x", "/usr/bin/id", "-un", user=("s", "daemon")) == "daemon\n"
        assert run(allowed, "x", "/usr/bin/id", "-u", user=("s", "0")) == "0\n"
        inside = status(run(allowed, "x", "/bin/cat", "/proc/self/status", new_privileges=("b", True)))
        assert inside["NoNewPrivs"] == "0"

    def test_root_as_a_user(self, root: Client) -> None:
        for user in ("nobody", "65534"):
            inside = status(run(root, "x", "/bin/cat", "/proc/self/status", user=("s", user)))
            assert inside["Uid"].split() == ["65534"] * 4
            assert inside["NoNewPrivs"] == "1"

    def test_without_polkits_yes(self, root: Client, user: Client) -> None:
        assert refused(user.manager, "Enter", ENTER, "x", ["/bin/true"], {}, {}).name == DENIED
        assert listed(root)[0][4] == 0


class TestWhatItGets:
    """Descriptors, environment, directory, arguments, terminal: those that were passed, and nothing else."""

    def test_handles_are_handles_and_not_places(self, bus: PrivateBus) -> None:
        script = ["/bin/sh", "-c", "echo out; echo err >&2; echo seven >&7"]
        with RawConnection(bus.address) as raw, pipe() as first, pipe() as second, pipe() as third:
            sent = [first[1], second[1], third[1]]
            body = marshal(ENTER, "x", script, {1: 2, 7: 0, 2: 1}, {})
            raw.reply(raw.call(PATH, MANAGER, "Enter", ENTER, body, fds=sent)).close_fds()
            for writing in sent:
                os.close(writing)
            assert [read(end[0]) for end in (third, second, first)] == [b"out\n", b"err\n", b"seven\n"]

    def test_one_handle_for_many(self, bus: PrivateBus) -> None:
        with RawConnection(bus.address) as raw, pipe() as (reading, writing):
            body = marshal(ENTER, "x", ["/bin/sh", "-c", "echo out; echo err >&2"], {1: 0, 2: 0}, {})
            raw.reply(raw.call(PATH, MANAGER, "Enter", ENTER, body, fds=[writing])).close_fds()
            os.close(writing)
            assert read(reading) == b"out\nerr\n"

    def test_no_other_descriptors(self, root: Client, allowed: Client) -> None:
        for client in (root, allowed):
            assert run(client, "x", "/bin/ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]

    def test_input(self, root: Client) -> None:
        shout = ["/usr/bin/tr", "a-z", "A-Z"]
        with (
            pipe() as (reading, writing),
            pipe() as (result, output),
            entered(root, "x", shout, fds={0: reading, 1: output}) as process,
        ):
            os.close(output)
            os.write(writing, b"shout\n")
            os.close(writing)
            assert read(result) == b"SHOUT\n"
            assert process.wait() == (CLD_EXITED, 0)

    def test_without_input(self, root: Client) -> None:
        assert run(root, "x", "/bin/readlink", "/proc/self/fd/0") == "/dev/null\n"

    def test_environment(self, root: Client, allowed: Client) -> None:
        lines = run(allowed, "x", "/usr/bin/env", env=("a{ss}", {"ONE": "1", "PATH": "/bin"})).splitlines()
        assert dict(line.split("=", 1) for line in lines) == {
            "ONE": "1",
            "PATH": "/bin",
            "USER": "nobody",
            "LOGNAME": "nobody",
            "HOME": pwd.getpwnam("nobody").pw_dir,
            "SHELL": pwd.getpwnam("nobody").pw_shell,
        }
        assert "NOTIFY_SOCKET" not in run(root, "x", "/usr/bin/env")

    def test_directory(self, root: Client, allowed: Client) -> None:
        assert run(root, "x", "/bin/pwd") == "/\n"
        assert run(allowed, "x", "/bin/pwd", cwd=("s", "/mnt")) == "/mnt\n"
        assert run(allowed, "x", "/bin/cat", "hi-there", cwd=("s", "/mnt")) == "made by root\n"

    def test_arguments(self, root: Client) -> None:
        arguments = ["", "a b", "größe", "*", "$(id)", "-x", "\n"]
        output = run(root, "x", "/usr/bin/printf", "[%s]", *arguments)
        assert output == "".join(f"[{argument}]" for argument in arguments)

    def test_a_program_is_looked_for_in_the_path(self, root: Client) -> None:
        assert run(root, "x", "id", "-u") == "0\n"

    def test_the_login_shell(self, root: Client) -> None:
        with (
            pipe() as (reading, writing),
            pipe() as (result, output),
            entered(root, "x", [], fds={0: reading, 1: output, 2: output}) as process,
        ):
            os.close(output)
            os.write(writing, b'echo "$0"; cat /mnt/hi-there; exit 3\n')
            os.close(writing)
            text = read(result).decode()
            assert process.wait() == (CLD_EXITED, 3)
        shell = Path(pwd.getpwuid(0).pw_shell or "/bin/sh").name
        assert f"-{shell}\n" in text
        assert text.endswith("made by root\n")

    def test_a_terminal(self, root: Client) -> None:
        master, terminal = os.openpty()
        try:
            fds = {0: terminal, 1: terminal, 2: terminal}
            script = "echo here > /dev/tty; ps -o tty= -p $$ || true"
            with entered(root, "x", ["/bin/sh", "-c", script], fds=fds, tty=("b", True)) as process:
                assert os.read(master, 100).startswith(b"here")
                assert process.wait() == (CLD_EXITED, 0)
        finally:
            os.close(terminal)
            os.close(master)

    def test_tty_without_a_terminal(self, root: Client) -> None:
        with pipe() as (reading, _):
            error = refused(
                root.manager, "Enter", ENTER, "x", ["/bin/true"], {0: reading}, {"tty": ("b", True)}
            )
        assert error.name == ENTER_FAILED
        assert "ENOTTY" in error.message


class TestFailures:
    """What cannot be started is said before Enter answers: step, errno, and what to do."""

    @pytest.mark.parametrize(
        ("argv", "options", "step", "errno"),
        [
            (["/no/such/program"], {}, "execve", "ENOENT"),
            (["no-such-program"], {}, "execve", "ENOENT"),
            (["/etc/passwd"], {}, "execve", "EACCES"),
            (["/mnt"], {}, "execve", "EACCES"),
            (["/mnt/hi-there/x"], {}, "execve", "ENOTDIR"),
            (["/bin/true"], {"cwd": ("s", "/no/such/place")}, "chdir", "ENOENT"),
            (["/bin/true"], {"cwd": ("s", "/mnt/hi-there")}, "chdir", "ENOTDIR"),
            (["/bin/true"], {"cwd": ("s", "/mnt/secret")}, "chdir", "EACCES"),
        ],
    )
    def test_step_and_errno(
        self, root: Client, allowed: Client, argv: list[str], options: dict[str, Any], step: str, errno: str
    ) -> None:
        run(root, "x", "/bin/mkdir", "-m", "0700", "/mnt/secret")
        error = refused(allowed.manager, "Enter", ENTER, "x", argv, {}, options)
        assert error.name == ENTER_FAILED
        assert f" {step}: " in error.message
        assert f"({errno})" in error.message
        assert "'x'" in error.message
        assert listed(root)[0][4] == 0

    def test_nothing_is_left_of_it(self, daemon: Daemon, root: Client) -> None:
        before = settled_fds(daemon, root)
        for _ in range(50):
            refused(root.manager, "Enter", ENTER, "x", ["/no/such/program"], {}, {})
        assert settled_fds(daemon, root) == before
        assert leaks.children(daemon.pid) == []

    def test_the_hosts_program_is_not_the_namespaces(self, root: Client) -> None:
        create(root, "y")
        on(root, "y", "Mount", "ssss", "empty", "/usr/bin", "tmpfs", "")
        assert refused(root.manager, "Enter", ENTER, "y", ["/usr/bin/id"], {}, {}).name == ENTER_FAILED


class TestTheEnd:
    """How it ended is told to the caller, and everything of it is gone."""

    @pytest.mark.parametrize(
        ("script", "code", "number"),
        [
            ("exit 0", CLD_EXITED, 0),
            ("exit 7", CLD_EXITED, 7),
            ("exit 255", CLD_EXITED, 255),
            ("kill -TERM $$", CLD_KILLED, 15),
            ("kill -KILL $$", CLD_KILLED, 9),
        ],
    )
    def test_code_and_status(self, allowed: Client, script: str, code: int, number: int) -> None:
        with entered(allowed, "x", ["/bin/sh", "-c", script]) as process:
            assert process.wait() == (code, number)

    def test_the_answer_comes_first(self, bus: PrivateBus) -> None:
        with RawConnection(bus.address) as raw:
            body = marshal(ENTER, "x", ["/bin/true"], {}, {})
            for _ in range(30):
                call = raw.call(PATH, MANAGER, "Enter", ENTER, body)
                answer = raw.receive()
                assert answer.reply_to == call
                answer.close_fds()
                assert raw.receive().fields[MEMBER] == "Exited"

    def test_the_pidfd(self, root: Client) -> None:
        pid, pidfd = enter(root, SLEEP)
        with pidfd:
            info = Path(f"/proc/self/fdinfo/{pidfd.fileno()}").read_text()
            assert f"Pid:\t{pid}\n" in info
            assert not select.select([pidfd.fileno()], [], [], 0)[0]
            signal.pidfd_send_signal(pidfd.fileno(), signal.SIGTERM)
            assert select.select([pidfd.fileno()], [], [], 5)[0]
        wait_until(lambda: not Path(f"/proc/{pid}").exists())

    def test_a_user_can_end_his_own(self, allowed: Client) -> None:
        with entered(allowed, "x", SLEEP) as process:
            assert os.stat(f"/proc/{process.pid}").st_uid == allowed.uid
            script = ["/bin/kill", str(process.pid)]
            with entered(allowed, "x", script) as killer:
                assert killer.wait() == (CLD_EXITED, 0)
            assert process.wait() == (CLD_KILLED, 15)

    @pytest.mark.parametrize("ends", [True, False])
    def test_the_caller_leaves(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, uid: int, ends: bool
    ) -> None:
        polkit.allow(action("enter"))
        with Client(bus.address, uid) as leaving:
            pid, pidfd = enter(leaving, SLEEP, kill_on_disconnect=("b", ends))
        with pidfd:
            assert bool(select.select([pidfd.fileno()], [], [], 5 if ends else 0.3)[0]) == ends
        leaks.end(pid)
        wait_until(lambda: leaks.children(daemon.pid) == [])
        assert "Traceback" not in daemon.log()

    def test_the_caller_leaves_before_it_has_begun(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client, uid: int
    ) -> None:
        polkit.allow(action("enter"))
        before = settled_fds(daemon, root)
        body = marshal(ENTER, "x", SLEEP, {}, {"kill_on_disconnect": ("b", True)})
        for _ in range(20):
            with RawConnection(bus.address, uid) as leaving:
                leaving.call(PATH, MANAGER, "Enter", ENTER, body)
        wait_until(lambda: leaks.children(daemon.pid) == [] and settled_fds(daemon, root) == before)
        assert listed(root)[0][4] == 0
        assert "Traceback" not in daemon.log()

    def test_the_daemon_leaves(self, daemon: Daemon, root: Client) -> None:
        pid, pidfd = enter(root, SLEEP)
        with pidfd:
            assert daemon.stop() == 0
            assert leaks.alive(pid)
            daemon.start()
            assert on(root, "x", "GetProcesses")[0][0][0] == pid
            assert refused(destroy, root, "x").name == BUSY
            assert destroy(root, "x", kill=("b", True)) == [pid]
            assert select.select([pidfd.fileno()], [], [], 5)[0]


class TestMany:
    """Nothing adds up."""

    def test_two_hundred_leave_nothing(self, daemon: Daemon, root: Client) -> None:
        before = settled_fds(daemon, root), daemon.rss_kib()
        with root.signals(MANAGER, "Exited") as exits, pipe() as (_, writing):
            for _ in range(20):
                for _ in range(10):
                    fds = {1: writing, 2: writing}
                    root.manager("Enter", ENTER, "x", ["/bin/true"], fds, {})[1].close()
                for _ in range(10):
                    assert exits.wait().body[2:] == (CLD_EXITED, 0)
        assert settled_fds(daemon, root) == before[0]
        assert daemon.rss_kib() - before[1] < 4096
        assert leaks.children(daemon.pid) == []

    def test_at_once(self, allowed: Client) -> None:
        with allowed.signals(MANAGER, "Exited") as exits:
            calls = [
                allowed.send(PATH, MANAGER, "Enter", ENTER, "x", ["/bin/sh", "-c", f"exit {number}"], {}, {})
                for number in range(40)
            ]
            assert calls
            assert sorted(exits.wait().body[3] for _ in calls) == list(range(40))

    def test_one_user_has_so_many_and_no_more(self, root: Client, allowed: Client) -> None:
        most = 256
        for _ in range(most):
            enter(allowed, SLEEP)[1].close()
        error = refused(allowed.manager, "Enter", ENTER, "x", SLEEP, {}, {})
        assert error.name == LIMITS
        assert str(most) in error.message
        assert run(root, "x", "/usr/bin/id", "-u") == "0\n"
        assert len(destroy(root, "x", kill=("b", True))) == most


class TestDestroying:
    """Somebody is inside when the namespace is to go."""

    def test_refused(self, root: Client, allowed: Client) -> None:
        with entered(allowed, "x", SLEEP) as process:
            error = refused(destroy, root, "x")
            assert error.name == BUSY
            assert f"{process.pid} (sleep)" in error.message
            assert destroy(root, "x", kill=("b", True)) == [process.pid]
            assert process.wait() == (CLD_KILLED, signal.SIGTERM)
        assert names(root) == []

    def test_lazy(self, daemon: Daemon, root: Client) -> None:
        with entered(root, "x", ["/bin/sh", "-c", "read line; cat /mnt/hi-there"]) as process:
            assert process.wait()[0] == CLD_EXITED  # /dev/null ends it
        pid, pidfd = enter(root, SLEEP)
        with pidfd, root.signals(MANAGER, "Exited") as exits:
            assert destroy(root, "x", lazy=("b", True)) == [pid]
            assert names(root) == []
            assert leaks.alive(pid)
            assert daemon.pinned() == set()
            leaks.end(pid)
            assert exits.wait().body == (pid, "x", CLD_KILLED, signal.SIGKILL)

    def test_on_its_own_object(self, root: Client, polkit: Polkit, allowed: Client) -> None:
        with allowed.signals(MANAGER, "Exited") as exits:
            body: tuple[Any, ...] = (["/bin/sh", "-c", "exit 5"], {}, {})
            pid, pidfd = allowed.call(
                path_of("x"), NAMESPACE, "Enter", "asa{uh}a{sv}", *body, flags=INTERACTIVE
            )
            pidfd.close()
            assert exits.wait().body == (pid, "x", CLD_EXITED, 5)
        assert polkit.questions()[-1].flags == 1
        destroy(root, "x")
