# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon under test, as a process of its own in a directory of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from . import hidden, leaks
from .buses import PrivateBus

REPOSITORY = Path(__file__).resolve().parents[2]


def copy_program(directory: Path) -> Path:
    """Copy the program to where every user can read it, as he can where it is installed; returns a PYTHONPATH."""
    there = directory / "program"
    if not there.exists():
        shutil.copytree(
            REPOSITORY / "mountnsd", there / "mountnsd", ignore=shutil.ignore_patterns("__pycache__")
        )
    return there


class Daemon:
    """A mountnsd on a private bus; a context manager that has it running inside.

    Arguments: bus: where it shall live; directory: an existing directory of its own; config: text of
        mountnsd.toml; env: more environment; arguments: more of the command line.

    Attributes: runtime, configuration, vendor: its directories; holder: the visible one; process.
    """

    def __init__(
        self,
        bus: PrivateBus,
        directory: Path,
        config: str = "",
        *,
        env: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.bus = bus
        self.directory = directory
        self.runtime = directory / "run"
        self.configuration = directory / "etc"
        self.vendor = directory / "vendor"
        self.holder = self.runtime / "ns"
        self.configuration.mkdir(parents=True, exist_ok=True)
        if hidden.HIDE and "holder" not in config:
            config += '\nholder = "hidden"\n'
        if config:
            (self.configuration / "mountnsd.toml").write_text(config)
        self._env = dict(env or {})
        self._arguments = arguments
        self._log = directory / "mountnsd.log"
        self._notify = directory / "notify"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pins(self) -> Path:
        """The directory of the pins: the holder, or where one that is hidden can be looked at."""
        return hidden.shown(self.holder)

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self.process is not None, "the daemon is not running"
        return self.process.pid

    def command(self) -> list[str]:
        """The command line."""
        return [
            sys.executable,
            "-m",
            "mountnsd",
            "--runtime-directory",
            str(self.runtime),
            "--config-directory",
            str(self.configuration),
            "--vendor-directory",
            str(self.vendor),
            "--log-target=stderr",
            "--allow-foreign-namespace",
            *self._arguments,
        ]

    def environment(self) -> dict[str, str]:
        """The environment that the daemon gets: nothing of a desktop session, and this tree's code."""
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "LC_ALL", "TERM")}
        return {
            **kept,
            "DBUS_SYSTEM_BUS_ADDRESS": self.bus.address,
            "NOTIFY_SOCKET": str(self._notify),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            **self._env,
        }

    def start(self, timeout: float = 15.0) -> None:
        """Start it and return once it has said that it is ready.

        Raises: RuntimeError with its log if it ends or stays silent instead.
        """
        assert self.process is None, "the daemon runs already"
        self._notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self._log.open("ab") as log:
            notify.bind(str(self._notify))
            self.process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            if not self._ready(notify, time.monotonic() + timeout):
                status = self.process.poll()
                self.kill(signal.SIGKILL)
                what = f"ended with status {status}" if status is not None else "did not become ready"
                raise RuntimeError(f"mountnsd {what}; its log:\n{self.log()}")

    def _ready(self, notify: socket.socket, deadline: float) -> bool:
        assert self.process is not None
        notify.settimeout(0.05)
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return True
            except TimeoutError:
                if self.process.poll() is not None:
                    return False
        return False

    def log(self) -> str:
        """Everything it has said to standard error, over all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait_for_log(self, text: str, timeout: float = 5.0) -> None:
        """Wait until the log has a text.  Raises: TimeoutError with the log."""
        deadline = time.monotonic() + timeout
        while text not in self.log():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the log never said {text!r}:\n{self.log()}")
            time.sleep(0.01)

    def kill(self, number: int = signal.SIGKILL, timeout: float = 10.0) -> int:
        """Send it a signal and wait for its end; returns the exit status as Popen gives it.

        Raises: RuntimeError if it does not end (it is killed then).
        """
        assert self.process is not None, "the daemon is not running"
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            name = signal.Signals(number).name
            raise RuntimeError(f"mountnsd did not end on {name}; its log:\n{self.log()}") from None

    def stop(self) -> int:
        """End it as systemd does; returns the exit status.  Its namespaces stay."""
        return self.kill(signal.SIGTERM)

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for it to end of its own accord; returns the exit status."""
        assert self.process is not None, "the daemon is not running"
        status = self.process.wait(timeout)
        self.process = None
        return status

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def open_fds(self) -> dict[int, str]:
        """Its open descriptors and what they lead to."""
        return leaks.fds_of(self.pid)

    def rss_kib(self) -> int:
        """Its resident memory."""
        return leaks.rss_kib(self.pid)

    def pinned(self) -> set[int]:
        """The inodes of the mount namespaces that are pinned in its holder, by the kernel's word."""
        below = leaks.mounts_below(self.pins)
        return {int(mount.root[5:-1]) for mount in below if mount.root.startswith("mnt:[")}

    def close(self) -> None:
        """Stop it if it runs and take down what it leaves by design: holder, pins, and processes inside.

        Raises: AssertionError that says what else was mounted below its directory (it is detached as well).
        """
        if self.process is not None:
            self.stop()
        for pid in leaks.processes_in(self.pinned()):
            leaks.end(pid)
        hidden.close(self.holder)
        below = leaks.mounts_below(self.directory)
        at = [mount for mount in below if mount.point == str(self.holder)]
        ours = [mount for mount in at if mount.source == "mountnsd" or mount.root.endswith("/run/ns")]
        pins = [
            mount for mount in below if mount.fstype == "nsfs" and Path(mount.point).parent == self.holder
        ]
        stray = [mount for mount in below if mount not in ours and mount not in pins]
        for mount in reversed(below):
            leaks.detach(mount)
        assert not stray, f"the daemon left mounts that are none of its pins: {stray}"
        assert not leaks.mounts_below(self.directory), "mounts are left below the daemon's directory"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
