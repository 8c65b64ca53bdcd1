# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl busy and pids, on the real kernel: what keeps a namespace, and whose it is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.ctl import TIMEOUT, Ctl, wait_until
from support.daemon import Daemon
from support.identity import NOBODY
from support.polkit import Polkit

# Opens the namespace, says so, and waits until its standard input ends.
_HOLDS = "import os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); print(fd, flush=True); sys.stdin.read()"

# Has a thread in the namespace, and its main thread ends if so told.
_HAS_A_THREAD = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_RDONLY)
def inside():
    assert libc.unshare(0x200) == 0 and libc.setns(fd, 0) == 0
    os.close(fd)
    print(threading.get_native_id(), flush=True)
    os.read(0, 1)
    os._exit(0)
thread = threading.Thread(target=inside)
thread.start()
if sys.argv[2] == "ends":
    libc.syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
thread.join()
"""


# Moves into a mount namespace of its own, on one CPU, and mounts there what it is told.
_MOUNTS_IT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.sched_setaffinity(0, {int(sys.argv[1])})
assert libc.unshare(0x20000) == 0
assert libc.mount(None, b"/", None, 0x44000, None) == 0
assert libc.mount(b"t", b"/mnt", b"tmpfs", 0, None) == 0
open("/mnt/pin", "w").close()
print("ready", flush=True)
path = sys.stdin.readline().strip()
print(libc.mount(path.encode(), b"/mnt/pin", None, 0x1000, None), flush=True)
sys.stdin.read()
"""


@contextmanager
def program(code: str, *arguments: str, uid: int = 0) -> Iterator[tuple[int, int]]:
    """A Python program that runs while the block does: its pid, and the number that it says first."""
    identity: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **identity,
    )
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        try:
            process.communicate("", TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def holders(ctl: Ctl, name: str, uid: int = 0) -> list[dict[str, Any]]:
    """What keeps a namespace."""
    found = _busy(ctl, name, uid)["holders"]
    assert isinstance(found, list)
    return found


def _busy(ctl: Ctl, name: str, uid: int = 0) -> dict[str, Any]:
    result = ctl("busy", name, "-j", uid=uid)
    assert result.returncode == 0, result
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_nothing_but_its_name(ctl: Ctl, daemon: Daemon) -> None:
    found = _busy(ctl, "demo")
    assert (found["name"], found["inode"]) == ("demo", (daemon.pins / "demo").stat().st_ino)
    assert found["holders"] == []
    assert ctl("busy", "demo").stdout == "No holders.\n"


def test_a_process_inside(ctl: Ctl) -> None:
    process = ctl.start("exec", "demo", "sh", "-c", "echo ready; read x")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (found,) = holders(ctl, "demo")
    assert (found["kind"], found["pid"], found["uid"], found["comm"]) == ("process", process.pid, 0, "sh")
    out = ctl("busy", "demo", "--no-legend").stdout
    assert re.fullmatch(rf" *{process.pid} root +\S+ +sh +being inside\n", out)
    busy = ctl("destroy", "demo")
    assert "'mountnsctl busy demo'" in busy.stderr
    process.communicate("x\n", TIMEOUT)


@pytest.mark.parametrize("by_its_link", [False, True])
def test_an_open_descriptor(ctl: Ctl, daemon: Daemon, by_its_link: bool) -> None:
    """Opened by the pin, or by /proc/PID/ns/mnt: /proc shows the two in different ways."""
    process = ctl.start("exec", "demo", "sh", "-c", "echo ready; read x")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    path = f"/proc/{process.pid}/ns/mnt" if by_its_link else str(daemon.pins / "demo")
    with program(_HOLDS, path) as (pid, fd):
        process.communicate("x\n", TIMEOUT)
        wait_until(lambda: [row["kind"] for row in holders(ctl, "demo")] == ["descriptor"])
        (found,) = holders(ctl, "demo")
        assert (found["pid"], found["fd"], found["uid"]) == (pid, fd, 0)
        assert f"descriptor {fd}\n" in ctl("busy", "demo").stdout
    assert holders(ctl, "demo") == []


def test_a_descriptor_of_another_namespace(ctl: Ctl, daemon: Daemon) -> None:
    ctl.ok("create", "other")
    with program(_HOLDS, str(daemon.pins / "other")) as (pid, _), program(_HOLDS, "/etc/passwd"):
        assert holders(ctl, "demo") == []
        assert [row["pid"] for row in holders(ctl, "other")] == [pid]


def test_a_descriptor_of_what_was_detached(ctl: Ctl, daemon: Daemon, directory: Path) -> None:
    """Its path says nothing any more."""
    place = directory / "place"
    place.touch()
    subprocess.run(["mount", "--bind", str(daemon.pins / "demo"), str(place)], check=True)
    with program(_HOLDS, str(place)) as (pid, fd):
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        assert leaks.fds_of(pid)[fd] == "/"
        assert [(row["kind"], row["pid"], row["fd"]) for row in holders(ctl, "demo")] == [
            ("descriptor", pid, fd)
        ]


@pytest.mark.parametrize("main", ["stays", "ends"])
def test_a_thread(ctl: Ctl, daemon: Daemon, main: str) -> None:
    """A process counts where its main thread is, which may have ended before the others."""
    with program(_HAS_A_THREAD, str(daemon.pins / "demo"), main) as (pid, thread):
        if main == "ends":
            wait_until(lambda: leaks.is_zombie(pid))
        inside = [row["pid"] for row in ctl.json("pids", "demo")]
        (found,) = holders(ctl, "demo")
        assert found["pid"] == pid
        if main == "ends":
            assert (inside, found["kind"]) == ([pid], "process")
            return
        assert (inside, found["kind"], found["thread"]) == ([], "thread", thread)
        assert f"its thread {thread} inside\n" in ctl("busy", "demo").stdout


def test_another_mount_of_it(ctl: Ctl, daemon: Daemon, directory: Path) -> None:
    place = directory / "a place\x1b[2J"
    place.touch()
    subprocess.run(["mount", "--bind", str(daemon.pins / "demo"), str(place)], check=True)
    try:
        (found,) = holders(ctl, "demo")
        assert (found["kind"], found["path"]) == ("mount", str(place))
        assert "/a place\\x1b[2J\n" in ctl("busy", "demo").stdout
        ctl.ok("destroy", "demo")  # the name goes, and the namespace stays
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_mount_of_it_elsewhere(ctl: Ctl, daemon: Daemon) -> None:
    """In the mount table of a process that is in a mount namespace of its own.

    The kernel lets a namespace be mounted in older ones only, and since Linux 6.18 each CPU has numbers of its own:
    so it is tried until it is the younger one.
    """
    cpus = sorted(os.sched_getaffinity(0))
    for attempt in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", _MOUNTS_IT, str(cpus[attempt % len(cpus)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            name = f"try-{attempt}"
            ctl.ok("create", name)
            with (daemon.pins / name).open("rb") as pin:
                process.stdin.write(f"/proc/{os.getpid()}/fd/{pin.fileno()}\n")
                process.stdin.flush()
                mounted = process.stdout.readline() == "0\n"
            if mounted:
                (found,) = holders(ctl, name)
                assert (found["kind"], found["path"], found["pid"]) == ("mount", "/mnt/pin", process.pid)
                return
        finally:
            process.communicate("", TIMEOUT)
    raise AssertionError("the kernel never let it be mounted")


def test_as_somebody_else(ctl: Ctl, daemon: Daemon, polkit: Polkit, directory: Path) -> None:
    """He sees who is inside, and what he holds himself; and is told that this may not be all."""
    polkit.allow("org.mountnsd1.list")
    place = directory / "open-to-all"
    place.touch()
    subprocess.run(["mount", "--bind", str(daemon.pins / "demo"), str(place)], check=True)
    inside = ctl.start("exec", "demo", "sh", "-c", "echo ready; read x")
    assert inside.stdout is not None
    assert inside.stdout.readline() == "ready\n"
    try:
        with program(_HOLDS, str(place)) as (roots, _), program(_HOLDS, str(place), uid=NOBODY) as (own, _):
            found = _busy(ctl, "demo", NOBODY)
            assert not found["complete"]
            kinds = {(row["kind"], row["pid"]) for row in found["holders"]}
            assert {("process", inside.pid), ("descriptor", own)} <= kinds
            assert ("descriptor", roots) not in kinds
            assert ("descriptor", roots) in {(row["kind"], row["pid"]) for row in holders(ctl, "demo")}
            result = ctl("busy", "demo", uid=NOBODY)
            assert result.stderr == (
                "Only root sees what all processes hold: there may be more. Try it with sudo.\n"
            )
            assert ctl("busy", "demo", "--quiet", uid=NOBODY).stderr == ""
    finally:
        inside.communicate("x\n", TIMEOUT)
        subprocess.run(["umount", str(place)], check=True)


def test_who_may_not_look(ctl: Ctl, polkit: Polkit) -> None:
    polkit.deny("org.mountnsd1.list")
    result = ctl("busy", "demo", uid=NOBODY)
    assert (result.returncode, result.stdout) == (1, "")


def test_a_filesystem_that_hangs_is_not_asked(ctl: Ctl, daemon: Daemon, directory: Path) -> None:
    """A process holds a file of a FUSE filesystem whose server never answers again: stat(2) of it would wait."""
    server = """
import ctypes, os, struct, sys
where = sys.argv[1]
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
assert ctypes.CDLL(None).mount(b"x", where.encode(), b"fuse", 6, options.encode()) == 0
request = os.read(fd, 65536)
length, opcode, unique = struct.unpack_from("=IIQ", request)
assert opcode == 26
os.write(fd, struct.pack("=IiQ", 80, 0, unique) + struct.pack("=IIII", 7, 31, 65536, 0).ljust(64, b"\\0"))
held = os.open(where, os.O_PATH)
print(held, flush=True)
sys.stdin.read()
"""
    place = directory / "fuse"
    place.mkdir()
    with program(server, str(place)) as (pid, fd):
        try:
            assert leaks.fds_of(pid)[fd] == str(place)
            assert holders(ctl, "demo") == []
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
    assert daemon.process is not None
