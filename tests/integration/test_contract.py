# SPDX-License-Identifier: LGPL-2.1-or-later
"""The D-Bus contract, kept by the running daemon: what it shows, what it does, and what it says when it cannot."""

import ctypes
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jeepney import HeaderFields
from support import leaks
from support.buses import PrivateBus
from support.client import MANAGER, NAME, NAMESPACE, PATH, PROPERTIES, Client
from support.contract import (
    BUSY,
    EXISTS,
    INVALID,
    LIMITS,
    MOUNT_FAILED,
    NO_NAMESPACE_FOR_PID,
    NO_SUCH,
    UNKNOWN_OBJECT,
    action,
    create,
    destroy,
    listed,
    names,
    nsenter,
    on,
    path_of,
    refused,
    somebody_inside,
    wait_until,
)
from support.daemon import Daemon
from support.polkit import Polkit

pytestmark = pytest.mark.usefixtures("daemon")

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x20000


def tool(bus: PrivateBus, *command: str) -> str:
    """Run a D-Bus tool against the bus; returns its output."""
    result = subprocess.run(
        command,
        env={"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


class TestTools:
    """The tools that every system has can do what there is to do."""

    def test_busctl_finds_the_same(self, bus: PrivateBus, root: Client) -> None:
        path = create(root, "x")
        output = tool(bus, "busctl", "tree", "--list", NAME)
        assert path in output.splitlines()
        text = tool(bus, "busctl", "introspect", NAME, path)
        for name in ("Name", "Inode", "State", "Labels"):
            assert re.search(rf"^\.{name} +property", text, re.MULTILINE), name

    def test_busctl(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        call = ("busctl", "call", NAME, PATH, MANAGER)
        made = tool(bus, *call, "Create", "sa{sv}", "build", "1", "description", "s", "by busctl")
        assert made.split() == ["o", f'"{path_of("build")}"']
        assert '"build"' in tool(bus, *call, "List")
        assert (
            tool(bus, "busctl", "get-property", NAME, path_of("build"), NAMESPACE, "Description")
            == 's "by busctl"\n'
        )
        with root.signals(MANAGER, "Exited"):
            assert re.match(
                r"uh \d+ ", tool(bus, *call, "Enter", "sasa{uh}a{sv}", "build", "1", "/bin/true", "0", "0")
            )
        wait_until(lambda: root.manager("List")[0][0][4] == 0)
        assert tool(bus, *call, "Destroy", "sa{sv}", "build", "0") == "au 0\n"
        assert daemon.pinned() == set()

    def test_gdbus(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        call = ("gdbus", "call", "--address", bus.address, "--dest", NAME, "--object-path", PATH, "--method")
        made = tool(bus, *call, f"{MANAGER}.Create", "build", "{'labels': <{'a': 'b'}>}")
        assert made == f"(objectpath '{path_of('build')}',)\n"
        assert "'build'" in tool(bus, *call, f"{MANAGER}.List")
        entered = tool(bus, *call, f"{MANAGER}.Enter", "build", "['/bin/true']", "@a{uh} {}", "{}")
        assert re.match(r"\(uint32 \d+, handle 0\)", entered)
        wait_until(lambda: root.manager("List")[0][0][4] == 0)
        assert tool(bus, *call, f"{MANAGER}.Destroy", "build", "{}") == "(@au [],)\n"
        assert daemon.pinned() == set()

    def test_dbus_send(self, bus: PrivateBus, daemon: Daemon) -> None:
        """It can pass no handles, and of a dictionary of variants only an empty one."""
        call = ("dbus-send", "--system", "--print-reply=literal", f"--dest={NAME}", PATH)
        assert tool(bus, *call, f"{MANAGER}.List")
        tool(bus, "busctl", "call", NAME, PATH, MANAGER, "Create", "sa{sv}", "build", "0")
        assert path_of("build") in tool(bus, *call, f"{MANAGER}.GetNamespace", "string:build")
        assert "build" in tool(bus, *call, f"{MANAGER}.List")
        assert tool(bus, *call, f"{MANAGER}.Open", "string:build")
        assert daemon.pinned()


@contextmanager
def shared_mount(place: Path) -> Iterator[Path]:
    """A mount of the host that others can follow."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "probe", place], check=True)
    try:
        subprocess.run(["mount", "--make-shared", place], check=True)
        (place / "sub").mkdir()
        yield place
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)


def line_of(pin: Path, place: Path) -> str:
    """The optional fields of a mount inside a namespace."""
    for line in nsenter(pin, "cat", "/proc/self/mountinfo").splitlines():
        fields = line.partition(" - ")[0].split(" ")
        if fields[4] == str(place):
            return " ".join(fields[6:])
    raise AssertionError(f"{place} is not mounted inside")


class TestPropagation:
    """How mounts travel is what was asked for: by the kernel's word, and by what happens."""

    @pytest.mark.parametrize(
        ("value", "fields", "comes_in", "goes_out"),
        [
            (None, r"master:\d+", True, False),
            ("slave", r"master:\d+", True, False),
            ("private", r"", False, False),
            ("shared", r"shared:\d+", True, True),
            ("unchanged", r"shared:\d+", True, True),
        ],
    )
    def test_as_asked(
        self,
        daemon: Daemon,
        directory: Path,
        root: Client,
        value: str | None,
        fields: str,
        comes_in: bool,
        goes_out: bool,
    ) -> None:
        with shared_mount(directory / "probe") as probe:
            options = {} if value is None else {"propagation": ("s", value)}
            path = create(root, "x", **options)
            pin = daemon.pins / "x"
            assert root.get(path, NAMESPACE, "Propagation") == (value or "slave")
            assert re.fullmatch(fields, line_of(pin, probe))
            subprocess.run(["mount", "-t", "tmpfs", "later", probe / "sub"], check=True)
            inside = nsenter(pin, "cat", "/proc/self/mounts")
            assert (f"later {probe}/sub " in inside) == comes_in
            subprocess.run(["umount", probe / "sub"], check=True)
            root.call(path, NAMESPACE, "Mount", "ssss", "inner", str(probe / "sub"), "tmpfs", "")
            outside = Path("/proc/self/mounts").read_text()
            assert (f"inner {probe}/sub " in outside) == goes_out
            root.call(path, NAMESPACE, "Unmount", "sa{sv}", str(probe / "sub"), {})
            destroy(root, "x")

    def test_the_holder_is_not_inside(self, daemon: Daemon, root: Client) -> None:
        for value in ("slave", "private", "shared", "unchanged"):
            create(root, value, propagation=("s", value))
            inside = nsenter(daemon.pins / value, "cat", "/proc/self/mounts")
            assert f"mountnsd {daemon.pins} " not in inside


class TestCreating:
    """Create, and what its options do."""

    def test_a_name_is_taken_once(self, daemon: Daemon, root: Client) -> None:
        path = create(root, "x", description=("s", "first"))
        assert refused(create, root, "x").name == EXISTS
        again = create(root, "x", if_not_exists=("b", True), description=("s", "second"))
        assert again == path
        assert root.get(path, NAMESPACE, "Description") == "first"
        assert len(daemon.pinned()) == 1

    def test_if_not_exists_creates_what_is_not_there(self, root: Client) -> None:
        create(root, "x", if_not_exists=("b", True))
        create(root, "y", if_not_exists=("b", False))
        assert names(root) == ["x", "y"]

    def test_a_copy_of_another(self, daemon: Daemon, root: Client) -> None:
        create(root, "first")
        on(root, "first", "Mount", "ssss", "marked", "/mnt", "tmpfs", "size=64k")
        create(root, "second", from_=("s", "first"))
        assert "marked /mnt tmpfs" in nsenter(daemon.pins / "second", "cat", "/proc/self/mounts")
        assert len(daemon.pinned()) == 2
        on(root, "second", "Unmount", "sa{sv}", "/mnt", {})
        assert "marked /mnt tmpfs" in nsenter(daemon.pins / "first", "cat", "/proc/self/mounts")
        destroy(root, "first")
        assert names(root) == ["second"]

    def test_a_copy_of_nothing(self, daemon: Daemon, root: Client) -> None:
        error = refused(create, root, "x", from_=("s", "none"))
        assert error.name == NO_SUCH
        assert "none" in error.message
        assert daemon.pinned() == set()

    def test_all_is_kept_when_the_daemon_is_not(self, daemon: Daemon, root: Client) -> None:
        labels = {f"key{number}": "v" * 256 for number in range(32)}
        path = create(
            root, "x", description=("s", "größer"), labels=("a{ss}", labels), propagation=("s", "private")
        )
        create(root, "y")

        def seen() -> tuple[dict[str, Any], list[Any]]:
            (properties,) = root.call(path, PROPERTIES, "GetAll", "s", NAMESPACE)
            _, pin = properties.pop("Path")  # of a hidden one, that leads through this very daemon
            assert Path(pin).stat().st_ino == properties["Inode"][1]
            return properties, listed(root)

        before = seen()
        daemon.restart()
        assert seen() == before
        daemon.kill()
        daemon.start()
        assert seen() == before
        assert before[0]["Labels"] == ("a{ss}", labels)

    def test_the_longest_name(self, root: Client) -> None:
        for name in ("n" * 64, "A_.-z", "_", "0", "1.2", "a." * 32):
            path = create(root, name)
            assert path == path_of(name)
            assert root.get(path, NAMESPACE, "Name") == name
            assert root.manager("GetNamespace", "s", name) == (path,)
        assert len(names(root)) == 6


class TestLimits:
    """There is an end to what one may have."""

    @pytest.fixture
    def daemon(self, bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
        """A daemon with small limits."""
        place = directory / "daemon"
        place.mkdir()
        with Daemon(bus, place, "max_namespaces = 4\nmax_namespaces_per_user = 2\n") as running:
            yield running

    def test_of_all(self, daemon: Daemon, root: Client) -> None:
        for number in range(4):
            create(root, f"n{number}")
        error = refused(create, root, "more")
        assert error.name == LIMITS
        assert "max_namespaces" in error.message
        assert create(root, "n0", if_not_exists=("b", True)) == path_of("n0")
        destroy(root, "n0")
        create(root, "more")
        assert len(daemon.pinned()) == 4
        assert root.get(PATH, MANAGER, "MaxNamespaces") == 4

    def test_of_a_user(self, root: Client, user: Client, polkit: Polkit) -> None:
        polkit.allow(action("create"))
        polkit.allow(action("list"))
        create(user, "one")
        create(user, "two")
        error = refused(create, user, "three")
        assert error.name == LIMITS
        assert "max_namespaces_per_user" in error.message
        assert root.get(path_of("one"), NAMESPACE, "OwnerUID") == user.uid
        create(root, "three")
        destroy(root, "one")
        create(user, "one")

    def test_many_at_once(self, daemon: Daemon, root: Client, user: Client, polkit: Polkit) -> None:
        polkit.allow(action("create"))
        calls = [user.send(PATH, MANAGER, "Create", "sa{sv}", f"n{number}", {}) for number in range(20)]
        outcome: list[str] = []
        while len(outcome) < len(calls):
            header = user.connection.receive(timeout=10).header
            if header.fields.get(HeaderFields.reply_serial) in calls:
                outcome.append(header.message_type.name)
        assert sorted(outcome) == ["error"] * 18 + ["method_return"] * 2
        assert len(daemon.pinned()) == len(names(root)) == 2


class TestLooking:
    """List, GetNamespace, GetNamespaceByPID, GetProcesses."""

    def test_list(self, daemon: Daemon, root: Client) -> None:
        assert listed(root) == []
        for name in ("b", "a"):
            create(root, name)
        with somebody_inside(daemon.pins / "a") as pid:
            rows = listed(root)
            assert [row[:2] for row in rows] == [("a", path_of("a")), ("b", path_of("b"))]
            assert {row[2] for row in rows} == daemon.pinned()
            assert [row[3:] for row in rows] == [(0, 1), (0, 0)]
            assert rows[0][2] == Path(f"/proc/{pid}/ns/mnt").stat().st_ino
        wait_until(lambda: listed(root)[0][4] == 0)

    def test_no_such_namespace(self, root: Client) -> None:
        for member in ("GetNamespace", "Open"):
            error = refused(root.manager, member, "s", "none")
            assert error.name == NO_SUCH
            assert "'none'" in error.message

    def test_by_pid(self, daemon: Daemon, root: Client) -> None:
        path = create(root, "x")
        with somebody_inside(daemon.pins / "x") as pid:
            assert root.manager("GetNamespaceByPID", "u", pid) == (path,)
        for gone in (pid, 2**31 - 1):
            error = refused(root.manager, "GetNamespaceByPID", "u", gone)
            assert error.name == NO_NAMESPACE_FOR_PID
            assert "not running" in error.message
        for outside in (0, os.getpid(), 1):
            error = refused(root.manager, "GetNamespaceByPID", "u", outside)
            assert error.name == NO_NAMESPACE_FOR_PID
        for none in (2**31, 2**32 - 1):
            assert refused(root.manager, "GetNamespaceByPID", "u", none).name == INVALID

    def test_the_caller_himself(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        path = create(root, "x")
        pin = os.open(daemon.pins / "x", os.O_RDONLY)

        def join() -> None:
            assert _LIBC.setns(pin, _CLONE_NEWNS) == 0

        try:
            with Client(bus.address, prepare=join) as inside:
                assert inside.manager("GetNamespaceByPID", "u", 0) == (path,)
                assert root.manager("GetNamespaceByPID", "u", inside.pid) == (path,)
        finally:
            os.close(pin)

    def test_processes(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        assert on(root, "x", "GetProcesses") == ([],)
        with somebody_inside(daemon.pins / "x") as one, somebody_inside(daemon.pins / "x") as two:
            found = on(root, "x", "GetProcesses")[0]
            assert [tuple(row) for row in found] == sorted([(one, 0, "sleep"), (two, 0, "sleep")])


class TestOpening:
    """Open's descriptor is the namespace."""

    @pytest.mark.parametrize("own_object", [False, True])
    def test_it_is_the_namespace(self, daemon: Daemon, root: Client, own_object: bool) -> None:
        create(root, "x")
        on(root, "x", "Mount", "ssss", "marked", "/mnt", "tmpfs", "")
        [handle] = on(root, "x", "Open") if own_object else root.manager("Open", "s", "x")
        with handle:
            assert os.fstat(handle.fileno()).st_ino in daemon.pinned()
            command = ["nsenter", f"--mount=/proc/self/fd/{handle.fileno()}", "cat", "/proc/self/mounts"]
            output = subprocess.run(
                command, pass_fds=[handle.fileno()], stdout=subprocess.PIPE, check=True, timeout=10
            )
            assert b"marked /mnt tmpfs" in output.stdout
            script = (
                "import os, sys, ctypes; sys.exit(ctypes.CDLL(None).setns(int(sys.argv[1]), 0x20000) != 0)"
            )
            subprocess.run(
                ["python3", "-I", "-c", script, str(handle.fileno())],
                pass_fds=[handle.fileno()],
                check=True,
                timeout=10,
            )

    def test_it_keeps_the_namespace_without_its_name(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        [handle] = root.manager("Open", "s", "x")
        with handle:
            inode = os.fstat(handle.fileno()).st_ino
            destroy(root, "x")
            assert names(root) == []
            assert daemon.pinned() == set()
            create(root, "x")
            assert listed(root)[0][2] != inode


def changed_here(client: Client, name: str) -> list[str]:
    """What GetChanges says of /mnt; of other places anybody may have changed something meanwhile."""
    return [row[0] for row in on(client, name, "GetChanges")[0] if row[1].startswith("/mnt")]


class TestMounts:
    """Mounts inside are seen, made and unmade from outside, with nobody inside."""

    def test_get_mounts(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        on(root, "x", "Mount", "ssss", "a source", "/mnt", "tmpfs", "size=64k,nosuid,nodev")
        rows = on(root, "x", "GetMounts")[0]
        expected = nsenter(daemon.pins / "x", "cat", "/proc/self/mountinfo").splitlines()
        assert sorted(row[0] for row in rows) == sorted(int(line.split()[0]) for line in expected)
        [row] = [row for row in rows if row[4] == "/mnt"]
        assert (row[3], row[6], row[7]) == ("/", "tmpfs", "a source")
        assert {"rw", "nosuid", "nodev", "size=64k"} <= set(row[5].split(","))
        assert re.fullmatch(r"\d+:\d+", row[2])
        assert row[1] in {other[0] for other in rows}

    def test_get_changes(self, directory: Path, root: Client) -> None:
        with shared_mount(directory / "probe") as probe:
            create(root, "x", propagation=("s", "private"))
            assert changed_here(root, "x") == []
            on(root, "x", "Mount", "ssss", "more", "/mnt", "tmpfs", "")
            on(root, "x", "Unmount", "sa{sv}", str(probe), {})
            changes = {row[1]: tuple(row) for row in on(root, "x", "GetChanges")[0]}
            assert changes["/mnt"][:4] == ("added", "/mnt", "tmpfs", "more")
            assert changes[str(probe)][:4] == ("removed", str(probe), "tmpfs", "probe")
            destroy(root, "x")

    def test_bind(self, daemon: Daemon, directory: Path, root: Client) -> None:
        (directory / "from").mkdir()
        (directory / "from" / "file").write_text("of the host")
        create(root, "x")
        on(root, "x", "Mount", "ssss", str(directory / "from"), "/mnt", "", "bind,ro")
        assert nsenter(daemon.pins / "x", "cat", "/mnt/file") == "of the host"
        with pytest.raises(subprocess.CalledProcessError):
            nsenter(daemon.pins / "x", "touch", "/mnt/more")
        assert not (Path("/mnt") / "file").exists()
        on(root, "x", "Unmount", "sa{sv}", "/mnt", {})
        assert changed_here(root, "x") == []

    def test_what_fails(self, root: Client) -> None:
        create(root, "x")
        wrong = [
            ("x", "/no/such/place", "tmpfs", ""),
            ("x", "/mnt", "nosuchfs", ""),
            ("/no/such/source", "/mnt", "", "bind"),
            ("x", "/mnt", "tmpfs", "size=abc"),
            ("/dev/null", "/mnt", "ext4", ""),
        ]
        for args in wrong:
            error = refused(on, root, "x", "Mount", "ssss", *args)
            assert error.name == MOUNT_FAILED, args
            assert re.search(r"\(E[A-Z]+\)", error.message), error.message
        assert refused(on, root, "x", "Unmount", "sa{sv}", "/mnt", {}).name == MOUNT_FAILED
        assert changed_here(root, "x") == []

    def test_unmount_what_is_in_use(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        on(root, "x", "Mount", "ssss", "t", "/mnt", "tmpfs", "")
        command = ["nsenter", f"--mount={daemon.pins / 'x'}", "--wdns=/mnt", "--", "sleep", "300"]
        with subprocess.Popen(command) as process:
            try:
                wait_until(lambda: os.readlink(f"/proc/{process.pid}/cwd") == "/mnt")
                error = refused(on, root, "x", "Unmount", "sa{sv}", "/mnt", {})
                assert error.name == MOUNT_FAILED
                assert "lazy" in error.message
                on(root, "x", "Unmount", "sa{sv}", "/mnt", {"lazy": ("b", True)})
                assert changed_here(root, "x") == []
            finally:
                process.kill()


class TestDestroying:
    """The name goes, and with it the namespace; not while somebody is inside, unless that is asked for."""

    def test_nobody_is_inside(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        on(root, "x", "Mount", "ssss", "only-here", "/mnt", "tmpfs", "")
        assert destroy(root, "x") == []
        assert not (daemon.pins / "x").exists()
        assert list((daemon.runtime / "meta").iterdir()) == []
        assert daemon.pinned() == set()
        assert refused(destroy, root, "x").name == NO_SUCH
        assert refused(on, root, "x", "GetMounts").name == UNKNOWN_OBJECT

    def test_by_its_own_object(self, root: Client) -> None:
        create(root, "x")
        assert on(root, "x", "Destroy", "a{sv}", {}) == ([],)
        assert names(root) == []

    def test_busy(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        with somebody_inside(daemon.pins / "x") as pid:
            error = refused(destroy, root, "x")
            assert error.name == BUSY
            assert f"{pid} (sleep)" in error.message
            assert "kill" in error.message
            assert "lazy" in error.message
            assert "mountnsctl busy x" in error.message
            assert names(root) == ["x"]
            assert leaks.alive(pid)

    def test_kill(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        with somebody_inside(daemon.pins / "x") as pid:
            assert destroy(root, "x", kill=("b", True)) == [pid]
            wait_until(lambda: not leaks.alive(pid))
            assert names(root) == []
            assert daemon.pinned() == set()

    def test_kill_who_does_not_listen(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        command = [
            "nsenter",
            f"--mount={daemon.pins / 'x'}",
            "sh",
            "-c",
            "trap '' TERM; echo; while :; do sleep 1; done",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            start = time.monotonic()
            call = root.send(PATH, MANAGER, "Destroy", "sa{sv}", "x", {"kill": ("b", True)})
            with Client(daemon.bus.address) as other:
                assert other.manager("List", timeout=2)[0]
            assert process.pid in root.reply(call, 20)[0]
            assert time.monotonic() - start < 9
            wait_until(lambda: not leaks.alive(process.pid))
        assert names(root) == []

    def test_lazy(self, daemon: Daemon, root: Client) -> None:
        create(root, "x")
        with somebody_inside(daemon.pins / "x") as pid:
            assert destroy(root, "x", lazy=("b", True)) == [pid]
            assert names(root) == []
            assert leaks.alive(pid)
            assert daemon.pinned() == set()
            create(root, "x")
            assert on(root, "x", "GetProcesses") == ([],)

    def test_either_but_not_both(self, root: Client) -> None:
        create(root, "x")
        error = refused(destroy, root, "x", kill=("b", True), lazy=("b", True))
        assert error.name == INVALID
        assert names(root) == ["x"]


def test_the_walkthrough(daemon: Daemon, root: Client) -> None:
    """The main job, on the kernel at hand."""
    path = create(root, "walk")
    pin = daemon.pins / "walk"
    nsenter(pin, "sh", "-c", "mount -t tmpfs /mnt /mnt && touch /mnt/hi-there")
    assert not Path("/mnt/hi-there").exists()
    assert not os.path.ismount("/mnt")
    [(name, place, inode, owner, inside)] = listed(root)
    assert (name, place, owner, inside) == ("walk", path, 0, 0)
    assert os.stat(pin).st_ino == inode
    [mount] = leaks.mounts_below(pin)
    assert (mount.fstype, mount.root) == ("nsfs", f"mnt:[{inode}]")
    assert nsenter(pin, "ls", "/mnt") == "hi-there\n"
    destroy(root, "walk")
    assert not pin.exists()
    assert leaks.mounts_below(pin) == []
