# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the three capabilities of `mountnsctl exec` in a user's service could be abused for, by that user.

The process has them from its start until it has moved.  Sources: capabilities(7), ptrace(2), ld.so(8).
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import leaks
from support.attempts import REFUSALS, attempts_at
from support.contract import wait_until
from support.entering import CAPABILITY_SETS, status_of
from support.execute import ENVIRONMENT, WAY_IN, Exec, service_world, user
from support.ground import as_user
from support.ground import run as command
from support.identity import NOBODY
from support.silent import waiting_for_it

from mountnsd import syscalls
from mountnsd.ctl import capabilities

# The numbers of its descriptors, and not what they lead to; which process goes first when memory ends; what a core of
# it would have, which only root could have written.
NO_SECRET = {"list fd", "write oom_score_adj", "write coredump_filter"}
_TELL = """
import os
with open({told!r}, "a") as file:
    file.write(__name__ + " " + open("/proc/self/status").read().split("CapEff:")[1].split()[0] + "\\n")
raise ImportError(__name__)
"""


@pytest.fixture
def ns(directory: Path) -> Iterator[Exec]:
    with service_world(directory) as made:
        yield made


@contextmanager
def held(ns: Exec, directory: Path) -> Iterator[int]:
    """The process, with its capabilities: it waits for the directory of the pins, which never answers."""
    place = directory / "silent"
    place.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={server},rootmode=40755,user_id=0,group_id=0,allow_other"
        syscalls.mount("silent", str(place), "fuse", 0, options)
        shell = ns.shell("true", identity=user(*WAY_IN), options=(f"--runtime-directory={place}",))
        with subprocess.Popen(shell, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: waiting_for_it(process.pid))
                yield process.pid
            finally:
                process.kill()
    finally:
        os.close(server)
        command("umount", "--lazy", place)


class TestWhileItHasThem:
    """Other processes of the same user, which have none."""

    def test_it_has_them(self, ns: Exec, directory: Path) -> None:
        with held(ns, directory) as pid:
            status = status_of(pid)
            assert status["Uid"].split() == [str(NOBODY)] * 4
            assert {int(status[name], 16) for name in CAPABILITY_SETS} == {capabilities.USERS_WAY_IN}

    def test_nothing_of_it_can_be_seen_or_changed(self, ns: Exec, directory: Path) -> None:
        """The kernel lets nobody look into who has more than he."""
        with held(ns, directory) as pid:
            told = as_user(NOBODY, lambda: attempts_at(pid))
            open_to_all = {what for what, code in told.items() if code not in REFUSALS}
            assert open_to_all <= NO_SECRET

    def test_a_signal_ends_it_and_does_no_more(self, ns: Exec, directory: Path) -> None:
        with held(ns, directory) as pid:
            assert leaks.signals(status_of(pid)["SigCgt"]) & ~(1 << 1) == 0  # but SIGINT, until it is near
            as_user(NOBODY, lambda: os.kill(pid, 9))
            wait_until(lambda: not leaks.alive(pid))


class TestWhatTheUserHasAHandIn:
    """Environment and working directory have no say in what the interpreter loads."""

    @pytest.fixture
    def planted(self, directory: Path) -> Path:
        """A directory of modules that tell who has imported them."""
        place = directory / "planted"
        told = directory / "told"
        told.touch()
        told.chmod(0o666)
        for name in (
            *("os", "site", "sitecustomize", "usercustomize", "encodings/__init__", "codecs", "io", "errno"),
            *(
                "mountnsd/__init__",
                "mountnsd/syscalls",
                "mountnsd/ctl/__init__",
                "signal",
                "_signal",
                "ctypes",
            ),
        ):
            file = place / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_TELL.format(told=str(told)))
        return place

    @pytest.mark.parametrize(
        "variable",
        [
            *(
                "PYTHONPATH",
                "PYTHONHOME",
                "PYTHONSTARTUP",
                "PYTHONINSPECT",
                "PYTHONUSERBASE",
                "PYTHONPLATLIBDIR",
            ),
            *(
                "PYTHONBREAKPOINT",
                "PYTHONWARNINGS",
                "PYTHONPYCACHEPREFIX",
                "PYTHONEXECUTABLE",
                "HOME",
                "TMPDIR",
            ),
        ],
    )
    def test_variables(self, ns: Exec, directory: Path, planted: Path, variable: str) -> None:
        environment = {**ENVIRONMENT, variable: str(planted)}
        result = ns("env", identity=user(*WAY_IN), env=environment)
        assert result.returncode == 0, result.stderr
        assert f"{variable}={planted}\n" in result.stdout  # the command's it is
        assert (directory / "told").read_text() == ""

    def test_working_directory(self, ns: Exec, directory: Path, planted: Path) -> None:
        result = ns("true", identity=user(*WAY_IN), cwd=planted)
        assert result.returncode == 0, result.stderr
        assert (directory / "told").read_text() == ""

    def test_arguments(self, ns: Exec, directory: Path) -> None:
        """What the unit says is not the user's; but a name leads to no other file."""
        secret = directory / "run" / "secret"
        secret.write_text("secret")
        for name in ("../secret", "/etc/shadow", "ns/../../secret", ".", "..", ""):
            shell = ns.shell("true", identity=user(*WAY_IN))
            shell[shell.index("ns")] = name
            result = subprocess.run(
                shell, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=30
            )
            assert result.returncode != 0, name
            assert "secret" not in result.stdout


class TestAfterwards:
    """The command has nothing of it, and gets nothing of it back."""

    def test_not_by_a_program_with_file_capabilities_nor_by_a_setuid_one(
        self, ns: Exec, directory: Path
    ) -> None:
        pin = ns.run / "ns" / "ns"
        script = (
            f"mount -o remount,suid,exec {directory} && cp /usr/bin/id {directory}/id && "
            f"chmod 4755 {directory}/id"
        )
        command("nsenter", f"--mount={pin}", "sh", "-c", script)
        assert ns(f"{directory}/id", "-u", identity=user(*WAY_IN)).stdout == f"{NOBODY}\n"
        assert ns(f"{directory}/id", "-u", options=()).stdout == "0\n"

    @pytest.mark.parametrize(
        "what",
        [
            "nsenter --mount=/proc/THIS/ns/mnt true",
            "unshare --mount true",
            "chroot / true",
            "mount -t tmpfs none /mnt",
            "umount --lazy /proc",
            "cat /etc/shadow",
            "ls /root",
        ],
    )
    def test_what_they_were_for(self, ns: Exec, what: str) -> None:
        """Each works for who has the capabilities, so that it is not for want of a program."""
        words = what.replace("THIS", str(os.getpid())).split()
        path = {**ENVIRONMENT, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        assert ns(*words, identity=user(*WAY_IN), env=path).returncode != 0
        assert ns(*words, env=path).returncode == 0
