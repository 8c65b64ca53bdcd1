# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine of the system tests: a Debian that systemd has booted, in systemd-nspawn(1)."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from . import leaks
from .roots import Release

_CONTAINER = Path(__file__).with_name("container.py")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}
_BOOT = 60.0  # seconds
_POWEROFF = 60.0


def _reap_orphans() -> None:
    """Collect what was started in a machine and has lost its parent here: the machine waits for that."""
    for pid in leaks.children(os.getpid()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            if any(line.startswith("NSpid:") and len(line.split()) > 2 for line in status):
                leaks.reap(pid)


class Failed(AssertionError):
    """A command in the machine ended otherwise than it should."""


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill a command in a machine, if it runs still, and wait for it.

    nsenter(1) is not killed itself: what it runs would be nobody's child in the machine, which waits for that one's
    end when it goes down.
    """
    if process.poll() is None:
        for pid in leaks.descendants(process.pid):
            leaks.end(pid)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Machine:
    """A booted machine; a context manager that has it running inside.

    Arguments: release: what it is; tree: its root tree, which is not written to; place: an existing directory, in
        which it makes one of its own.

    Attributes: pid: its PID 1, as seen from here; console: the file with what it wrote there.
    """

    def __init__(self, release: Release, tree: Path, place: Path) -> None:
        self.release = release
        self._tree = tree
        self._directory = Path(tempfile.mkdtemp(prefix=f"machine-{release.name}-", dir=place))
        self.console = self._directory / "console"
        self._name = f"mountnsd-test-{release.name}-{os.getpid()}"
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._cgroups = -1
        self.pid = 0

    def boot(self) -> None:
        """Start it and return once it is up.

        Raises: Failed with what it wrote on its console.
        """
        leaks.become_subreaper()
        disk = self._directory / "disk"
        disk.mkdir()
        with self.console.open("wb") as console:
            self._supervisor = subprocess.Popen(
                [
                    "unshare",
                    "--mount",
                    "--propagation=private",
                    sys.executable,
                    "-I",
                    str(_CONTAINER),
                    str(self._tree),
                    str(disk),
                    self._name,
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self.wait_up()
        self._cgroups = os.open(
            f"/proc/{self._supervisor.pid}/root/sys/fs/cgroup", os.O_RDONLY | os.O_DIRECTORY
        )

    def wait_up(self, old: int = 0) -> None:
        """Wait until it has come up, with another PID 1 than OLD.

        Raises: Failed if it does not, or not well.
        """
        deadline = time.monotonic() + _BOOT
        state = ""
        while time.monotonic() < deadline:
            self.pid = self._first(old)
            if self.pid and self.pid != old:
                answer = self.run("systemctl", "is-system-running", "--wait", check=False, timeout=_BOOT)
                state = answer.stdout.strip()
                if state == "running":
                    return
                if state == "degraded":
                    failed = self.run("systemctl", "--failed", "--no-legend", "--plain").stdout
                    raise Failed(f"{self.release.name} came up without: {failed}\n{self.said()}")
            time.sleep(0.05)
        raise Failed(
            f"{self.release.name} did not come up ({state or 'no PID 1'}); its console:\n{self.said()}"
        )

    def _first(self, old: int) -> int:
        """PID 1 of the machine, or 0 while there is none; OLD is not it."""
        assert self._supervisor is not None, "the machine is not started"
        if self._supervisor.poll() is not None:
            raise Failed(f"systemd-nspawn ended with {self._supervisor.returncode}:\n{self.said()}")
        for child in leaks.descendants(self._supervisor.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{child}/status").read_text()
                first = any(
                    line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines()
                )
                if child != old and first and Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return child
        return 0

    def command(self, *argv: str, user: str = "") -> list[str]:
        """The command line, here, of a command in the machine."""
        identity = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        return ["nsenter", f"--target={self.pid}", "--all", "--", *identity, *argv]

    def environment(self, user: str = "", env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a command in the machine: nothing of ours."""
        own = {"HOME": f"/home/{user}", "USER": user, "LOGNAME": user} if user else {}
        return {**_ENVIRONMENT, **own, **(env or {})}

    def run(
        self,
        *argv: str,
        user: str = "",
        env: Mapping[str, str] | None = None,
        input: str = "",  # noqa: A002
        check: bool = True,
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as root or as a user of it.

        Raises: Failed if it does not succeed, unless not CHECK; subprocess.TimeoutExpired.
        """
        result = subprocess.run(
            self.command(*argv, user=user),
            env=self.environment(user, env),
            cwd="/",
            input=input,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and result.returncode != 0:
            raise Failed(f"{' '.join(argv)}: status {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def out(self, *argv: str, user: str = "", timeout: float = 30.0) -> str:
        """What a command in the machine writes, without the last newline.  Raises: as `run`."""
        return self.run(*argv, user=user, timeout=timeout).stdout.rstrip("\n")

    @contextlib.contextmanager
    def start(self, *argv: str, user: str = "") -> Iterator[subprocess.Popen[str]]:
        """A command that runs in the machine meanwhile, and is killed at the end if it does so still."""
        process = subprocess.Popen(
            self.command(*argv, user=user),
            env=self.environment(user),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            yield process
        finally:
            end(process)

    def path(self, path: str) -> Path:
        """A path of the machine as it can be used here; symlinks on it must be relative."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, with the directories that it needs."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def put(self, file: Path, path: str) -> None:
        """Copy a file into the machine."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)

    def wait_for(self, what: str, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until a condition holds.  Raises: Failed that says what never was."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(f"not within {timeout} s: {what}")
            time.sleep(0.05)

    def said(self) -> str:
        """What it wrote on its console."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def journal(self, *arguments: str) -> str:
        """What its journal has.  Raises: as `run`."""
        self.run("journalctl", "--sync", check=False)
        return self.out("journalctl", "--no-pager", "--quiet", *arguments)

    def reboot(self) -> float:
        """Reboot it and wait until it is up again; returns how long it took to go down, in seconds."""
        old, start = self.pid, time.monotonic()
        self.run("systemctl", "reboot", check=False)

        def down() -> bool:
            _reap_orphans()
            return not leaks.alive(old)

        self.wait_for("the machine goes down", down, _POWEROFF)
        took = time.monotonic() - start
        self.wait_up(old)
        return took

    def power_off(self) -> float:
        """Switch it off as an administrator does; returns how long it took, in seconds.

        Raises: Failed if it hangs.
        """
        assert self._supervisor is not None, "the machine is not started"
        start = time.monotonic()
        self.run("systemctl", "poweroff", check=False)
        while self._supervisor.poll() is None:
            if time.monotonic() - start > _POWEROFF:
                raise Failed(f"{self.release.name} does not go down; its console:\n{self.said()}")
            _reap_orphans()
            time.sleep(0.02)
        return time.monotonic() - start

    @property
    def runs(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def close(self) -> None:
        """Switch it off and take its traces away.

        Raises: Failed if it has to be killed, or something of it stays.
        """
        problem: Failed | None = None
        try:
            if self.runs and self.pid:
                self.power_off()
        except (Failed, subprocess.TimeoutExpired) as error:
            problem = Failed(str(error))
        finally:
            if self._supervisor is not None and self._supervisor.poll() is None:
                self._supervisor.send_signal(signal.SIGKILL)
                self._supervisor.wait()
            left = self._leave_cgroups()
            shutil.rmtree(self._directory)
        if problem is not None:
            raise problem
        assert not left, f"processes of {self.release.name} outlive it: {left}"

    def _leave_cgroups(self) -> list[str]:
        """Remove its control groups; returns the processes that are in them still."""
        if self._cgroups < 0:
            return []
        place = Path(f"/proc/self/fd/{self._cgroups}") / self._name
        deadline = time.monotonic() + 5
        left: list[str] = []
        try:
            while place.exists() and time.monotonic() < deadline:
                for directory, _, _ in os.walk(place, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(directory)
                time.sleep(0.02)
            if place.exists():
                pids = [pid for file in place.rglob("cgroup.procs") for pid in file.read_text().split()]
                left = [leaks.describe(int(pid)) for pid in pids] or [str(place)]
        finally:
            os.close(self._cgroups)
            self._cgroups = -1
        return left

    def __enter__(self) -> Self:
        try:
            self.boot()
        except BaseException:
            with contextlib.suppress(Failed):
                self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
