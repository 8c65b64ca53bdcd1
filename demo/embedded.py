# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private system-type bus with mountnsd's own policy, and the daemon on it.

For a look at mountnsd where it is not installed: nothing outside one temporary
directory is touched, and nothing is left when it ends.  `python3 -m demo.embedded`
keeps both in the foreground until Ctrl-C.

Out of scope: polkit.  Without it the daemon refuses everybody but root.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape

REPOSITORY = Path(__file__).resolve().parent.parent
SHIPPED_POLICY = REPOSITORY / "dbus" / "org.mountnsd1.conf"

_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
{user}  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>

  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"
          send_member="UpdateActivationEnvironment"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
  </policy>

{includes}
</busconfig>
"""


def user_exists(name: str) -> bool:
    """Whether the user database knows the user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def write_bus_config(path: Path, bus_socket: Path, policies: Sequence[Path]) -> None:
    """Write the configuration of a bus with the policy of a distribution's system bus.

    Arguments: path: the file to write; bus_socket: where the bus listens;
        policies: files to include after the default policy, as a system bus does.
    """
    user = "  <user>messagebus</user>\n" if user_exists("messagebus") else ""
    includes = "\n".join(f"  <include>{escape(str(policy))}</include>" for policy in policies)
    path.write_text(_CONFIG.format(user=user, socket=escape(str(bus_socket)), includes=includes))


def end_process(process: "subprocess.Popen[bytes]", timeout: float = 5.0) -> None:
    """Ask a process that we started to end, and kill it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def start_dbus_daemon(config: Path, log_file: Path) -> "subprocess.Popen[bytes]":
    """Start a dbus-daemon, and return once it listens.

    Raises: RuntimeError with the bus's own words if it does not start.
    """
    reading, writing = os.pipe()
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--nosyslog"]
    with log_file.open("ab") as log, os.fdopen(reading, "rb") as address:
        try:
            process = subprocess.Popen(
                [*command, f"--print-address={writing}"],
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(writing)
        if not address.readline():
            end_process(process)
            raise RuntimeError(f"dbus-daemon did not start: {log_file.read_text(errors='replace')}")
    return process


class EmbeddedBus:
    """A private dbus-daemon that enforces the shipped policy.

    Arguments: directory: an existing directory that every user can reach;
        policies: policy files besides the shipped one.
    """

    def __init__(self, directory: Path, policies: Sequence[Path] = ()) -> None:
        self.socket = directory / "bus"
        self.address = f"unix:path={self.socket}"
        self._config = directory / "bus.conf"
        self._log = directory / "bus.log"
        write_bus_config(self._config, self.socket, [*policies, SHIPPED_POLICY])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the bus."""
        assert self._process is not None, "the bus is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the bus, and return once it listens.

        Raises: RuntimeError with the bus's own words if it does not start.
        """
        self._process = start_dbus_daemon(self._config, self._log)

    def stop(self) -> None:
        """Stop the bus; everybody on it is disconnected."""
        if self._process is not None:
            end_process(self._process)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class EmbeddedDaemon:
    """The daemon of this tree, on some bus, with its own directories.

    Arguments: address: of the bus; directory: for runtime and configuration files.
    """

    def __init__(self, address: str, directory: Path) -> None:
        self.runtime = directory / "run"
        self.environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address, "PYTHONPATH": str(REPOSITORY)}
        self._configuration = directory / "etc"
        self._notify = directory / "notify"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pins(self) -> Path:
        """The directory of the pins."""
        return self.runtime / "ns"

    def start(self, log: Path | None = None, timeout: float = 10.0) -> None:
        """Start the daemon, and return once it says that it is ready.

        Arguments: log: a file for what it says; None is our standard error.
        Raises: RuntimeError if it ends or stays silent instead.
        """
        self._configuration.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "mountnsd", f"--runtime-directory={self.runtime}"]
        command += [f"--config-directory={self._configuration}", "--log-target=stderr"]
        command += ["--allow-foreign-namespace"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self._notify))
            notify.settimeout(0.1)
            with (log or Path("/dev/stderr")).open("ab") as output:
                self.process = subprocess.Popen(
                    command,
                    env={**self.environment, "NOTIFY_SOCKET": str(self._notify)},
                    stdin=subprocess.DEVNULL,
                    stderr=output,
                    start_new_session=True,
                )
            try:
                self._await_ready(notify, timeout)
            finally:
                self._notify.unlink()

    def _await_ready(self, notify: socket.socket, timeout: float) -> None:
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
            except TimeoutError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"mountnsd ended with status {self.process.returncode}") from None
        end_process(self.process)
        raise RuntimeError(f"mountnsd was not ready within {timeout:.0f} s")

    def stop(self) -> None:
        """Stop the daemon and take down its namespaces, which it leaves alone itself."""
        if self.process is not None:
            end_process(self.process)
            self.process = None
        detach_below(self.runtime)


def mounts_below(directory: Path) -> list[Path]:
    """The mount points at or below a directory, the innermost first."""
    found = []
    prefix = str(directory.resolve())
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        raw = line.split(b" ")[4]
        point = os.fsdecode(raw.decode("unicode_escape").encode("latin-1"))
        if point == prefix or point.startswith(prefix + "/"):
            found.append(Path(point))
    return found[::-1]


def detach_below(directory: Path) -> None:
    """Unmount everything at or below a directory of ours."""
    for point in mounts_below(directory):
        subprocess.run(["umount", "--lazy", "--no-canonicalize", "--", point], check=True)


def temporary_directory(prefix: str = "mountnsd-demo-") -> Path:
    """Make a temporary directory that every user can reach."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o755)
    return directory


def remove_directory(directory: Path) -> None:
    """Remove a temporary directory; refuses while something is mounted below it."""
    left = mounts_below(directory)
    if left:
        raise RuntimeError(f"something is still mounted below {directory}: {left}")
    shutil.rmtree(directory)


def interrupted(_signal: int, _frame: object) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Keep a bus and a daemon in the foreground until Ctrl-C."""
    if os.geteuid() != 0:
        print("mount namespaces are made by root: run this as root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, interrupted)
    directory = temporary_directory()
    try:
        with EmbeddedBus(directory) as bus:
            daemon = EmbeddedDaemon(bus.address, directory)
            try:
                daemon.start()
                python = f"PYTHONPATH={REPOSITORY} {sys.executable}"
                print("mountnsd runs on a private bus.  In another root shell:\n")
                print(f"  export DBUS_SYSTEM_BUS_ADDRESS={bus.address}")
                print(f"  export MOUNTNSD_RUNTIME_DIRECTORY={daemon.runtime}")
                print(f'  alias mountnsctl="{python} -m mountnsd.ctl"')
                print("  mountnsctl create demo")
                print("  mountnsctl exec demo sh -c 'mount -t tmpfs tmpfs /mnt && touch /mnt/hi-there'")
                print("  mountnsctl list")
                print("  mountnsctl enter demo ls /mnt")
                print("  busctl call org.mountnsd1 /org/mountnsd1 org.mountnsd1.Manager List")
                print(f"  nsenter --mount={daemon.pins}/demo ls /mnt")
                print("  mountnsctl destroy demo\n")
                print("Ctrl-C stops it and leaves nothing behind.", flush=True)
                assert daemon.process is not None
                status = daemon.process.wait()
                print(f"mountnsd ended with status {status}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print("\nstopping")
                return 0
            finally:
                daemon.stop()
    finally:
        remove_directory(directory)


if __name__ == "__main__":
    sys.exit(main())
