# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who enters as a user stays that user, whatever somebody has planted inside.

Each trap is tried twice: with *new_privileges*, to see that it is armed, and as a user enters.
Sources: credentials(7), capabilities(7), ld.so(8), PR_SET_NO_NEW_PRIVS in prctl(2).
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.buses import PrivateBus
from support.client import Client
from support.contract import CLD_EXITED, ENTER_FAILED, action, create, entered, refused
from support.daemon import Daemon
from support.ground import enter, forked
from support.ground import run as command
from support.launchers import LAUNCHERS, daemon_with
from support.polkit import Polkit

pytestmark = [
    pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True),
    pytest.mark.usefixtures("planted"),
]

ENTER = "sasa{uh}a{sv}"
_CAP_DAC_READ_SEARCH = 1 << 2
_VFS_CAP_REVISION_2, _EFFECTIVE = 0x02000000, 1
_LIBRARY = """
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void sprung(void) { printf("planted %d\\n", geteuid()); fflush(stdout); }
"""


@dataclass(frozen=True)
class Trap:
    """A way to become root.  Arguments: argv: what is run; proof: what it prints where it works."""

    argv: tuple[str, ...]
    proof: str


TRAPS = {
    "a setuid program": Trap(("/mnt/setuid-id", "-u"), "0\n"),
    "a setgid program": Trap(("/mnt/setgid-id", "-g"), "0\n"),
    "a setuid program by way of a script": Trap(("/mnt/script",), "0\n"),
    "a program with file capabilities": Trap(("/mnt/reader", "/mnt/secret"), "the secret"),
    "su, with a planted /etc/shadow": Trap(("su", "-s", "/bin/sh", "-c", "id -u"), "\n0\n"),
    "su, with a planted ld.so.preload": Trap(("su", "--version"), "planted 0\n"),
    "a setuid program, with a planted libnss": Trap(("/mnt/setuid-id", "-un"), "planted 0\n"),
}


def _plant(pin: Path, library: Path) -> None:
    enter(pin)
    shutil.copy(library, "/root")
    command("mount", "-t", "tmpfs", "-o", "mode=0755,suid,exec", "planted", "/mnt")
    shutil.copy("/root/planted.so", "/mnt/planted.so")
    Path("/root/planted.so").unlink()
    for place in ("etc", "usr/lib"):
        upper, spare = Path("/mnt/.upper", place), Path("/mnt/.work", place)
        upper.mkdir(parents=True)
        spare.mkdir(parents=True)
        options = f"lowerdir=/{place},upperdir={upper},workdir={spare}"
        command("mount", "-t", "overlay", "-o", options, "planted", f"/{place}")
    for name, mode in (("setuid-id", 0o4755), ("setgid-id", 0o2755)):
        shutil.copy("/usr/bin/id", f"/mnt/{name}")
        Path("/mnt", name).chmod(mode)
    Path("/mnt/script").write_text("#!/mnt/setuid-id -u\n")
    Path("/mnt/script").chmod(0o755)
    Path("/mnt/secret").write_text("the secret")
    Path("/mnt/secret").chmod(0o600)
    shutil.copy("/usr/bin/cat", "/mnt/reader")
    capabilities = (_VFS_CAP_REVISION_2 | _EFFECTIVE, _CAP_DAC_READ_SEARCH, 0, 0, 0)
    os.setxattr("/mnt/reader", "security.capability", struct.pack("<5I", *capabilities))
    Path("/etc/passwd").write_text("root::0:0::/:/bin/sh\nnobody::0:0::/:/bin/sh\n")
    Path("/etc/shadow").write_text("root::19000::::::\nnobody::19000::::::\n")
    Path("/etc/pam.d/su").write_text("auth sufficient pam_permit.so\naccount sufficient pam_permit.so\n")
    Path("/etc/nsswitch.conf").write_text("passwd: planted files\ngroup: planted files\n")
    Path("/etc/ld.so.preload").write_text("/mnt/planted.so\n")
    multiarch = next(Path("/usr/lib").glob("*-linux-gnu"))
    shutil.copy("/mnt/planted.so", multiarch / "libnss_planted.so.2")
    Path("/mnt/closed/in").mkdir(parents=True)
    Path("/mnt/closed").chmod(0o700)
    Path("/mnt/to-root").symlink_to("/root")
    Path("/mnt/to-closed").symlink_to("closed/in")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that says who has loaded it."""
    place = tmp_path_factory.mktemp("library")
    (place / "planted.c").write_text(_LIBRARY)
    built = place / "planted.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, place / "planted.c"], check=True, timeout=60)
    return built


@pytest.fixture(params=LAUNCHERS)
def daemon(request: pytest.FixtureRequest, bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    with daemon_with(request.param, bus, directory) as running:
        yield running


@pytest.fixture
def planted(daemon: Daemon, root: Client, library: Path) -> None:
    create(root, "x")
    forked(lambda: _plant(daemon.pins / "x", library))


@pytest.fixture
def allowed(polkit: Polkit, user: Client) -> Client:
    polkit.allow(action("enter"), user.uid)
    return user


def output(client: Client, *argv: str, **options: Any) -> str:
    """What a program prints, however it ends."""
    reading, writing = os.pipe()
    fds = {1: writing, 2: writing}
    with os.fdopen(reading) as printed, entered(client, "x", argv, fds=fds, **options) as process:
        os.close(writing)
        text = printed.read()
        assert process.wait()[0] == CLD_EXITED, text
    return text


class TestTraps:
    """What would make a user root."""

    def test_they_are_armed(self, root: Client) -> None:
        options = {"user": ("s", "65534"), "new_privileges": ("b", True)}
        for what, trap in TRAPS.items():
            assert trap.proof in "\n" + output(root, *trap.argv, **options), what

    def test_and_make_nobody_root(self, allowed: Client) -> None:
        for what, trap in TRAPS.items():
            printed = output(allowed, *trap.argv)
            assert trap.proof not in "\n" + printed, what
            assert "planted 0" not in printed, what

    def test_nor_whom_root_has_enter_as_a_user(self, root: Client) -> None:
        for what, trap in TRAPS.items():
            assert trap.proof not in "\n" + output(root, *trap.argv, user=("s", "65534")), what

    def test_who_may_only_enter_cannot_arm_them(self, polkit: Polkit, allowed: Client) -> None:
        options = {"new_privileges": ("b", True)}
        refused(allowed.manager, "Enter", ENTER, "x", ["/mnt/setuid-id"], {}, options)
        assert polkit.questions()[-1].action == action("enter-as")


class TestDirectories:
    """The working directory is one that the user can go to himself."""

    def test_closed_ones(self, daemon: Daemon, allowed: Client, root: Client) -> None:
        closed = ["/root", "/mnt/closed", "/mnt/closed/in", "/mnt/to-root", "/mnt/to-closed"]
        closed += [
            f"/proc/{daemon.pid}/{where}" for where in ("cwd", "root", "fd", "task/1/cwd", "map_files")
        ]
        closed += [f"/proc/1/{where}" for where in ("cwd", "root", "root/root")]
        for cwd in closed:
            options = {"cwd": ("s", cwd)}
            error = refused(allowed.manager, "Enter", ENTER, "x", ["/bin/true"], {}, options)
            assert error.name == ENTER_FAILED
            assert "chdir" in error.message, cwd
        # Root gets there, so that it is not for want of the directory.
        assert output(root, "/bin/pwd", "-P", cwd=("s", "/mnt/to-closed")).endswith("/mnt/closed/in\n")

    def test_it_is_looked_up_inside(self, allowed: Client) -> None:
        """And by no descriptor of ours: the links of /proc lead where the user himself could go."""
        for cwd in ("/proc/self/cwd", "/proc/self/root", "/proc/thread-self/root"):
            assert output(allowed, "/bin/pwd", "-P", cwd=("s", cwd)).endswith("/\n"), cwd


class TestPrograms:
    """What is no program is not waited for, not read, and nothing happens by it."""

    def test_what_is_no_program(self, daemon: Daemon, allowed: Client) -> None:
        def plant() -> None:
            enter(daemon.pins / "x")
            os.mkfifo("/mnt/fifo")
            Path("/mnt/fifo").chmod(0o777)
            command("mknod", "--mode=0777", "/mnt/null", "c", "1", "3")
            command("mknod", "--mode=0777", "/mnt/disk", "b", "7", "0")
            scripts = {
                "no-interpreter": "#!/nonexistent\n",
                "fifo-interpreter": "#!/mnt/fifo\n",
                "self-interpreter": "#!/mnt/self-interpreter\n",
                "secret-interpreter": "#!/mnt/secret\n",
                "empty-interpreter": "#!\n",
            }
            for name, text in scripts.items():
                Path("/mnt", name).write_text(text)
                Path("/mnt", name).chmod(0o755)

        forked(plant)
        for name in (
            *("fifo", "null", "disk", "secret", "closed", "closed/in"),
            *("no-interpreter", "fifo-interpreter", "self-interpreter", "secret-interpreter"),
        ):
            error = refused(allowed.manager, "Enter", ENTER, "x", [f"/mnt/{name}"], {}, {})
            assert error.name == ENTER_FAILED, name
            assert "execve" in error.message, name
