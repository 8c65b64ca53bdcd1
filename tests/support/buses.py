# SPDX-License-Identifier: LGPL-2.1-or-later
"""Private system-type buses that enforce the shipped policy.

Both are the real thing: dbus-daemon, and dbus-broker under dbus-broker-launch,
which reads the same configuration file.  The launcher wants a socket from
systemd and a journal to talk to: the first is handed over as systemd does, the
second is a socket of ours which the launcher sees in a mount namespace of its
own, so that it runs where there is no systemd and its warnings can be read.

Out of scope: service activation.
"""

import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from demo.embedded import SHIPPED_POLICY, end_process, start_dbus_daemon, user_exists, write_bus_config

from . import leaks

Kind = Literal["dbus-daemon", "dbus-broker"]
KINDS: tuple[Kind, ...] = ("dbus-daemon", "dbus-broker")

# In the launcher's own mount namespace: no namespace that somebody else pinned is kept alive here, and /run
# holds nothing but a journal socket.  Then what systemd does for a service with a socket.
_LAUNCH = """\
set -e
findmnt --raw --noheadings --output TARGET --types nsfs | xargs --no-run-if-empty umount --lazy --
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir -p "$1/systemd/journal"
: > "$1/systemd/journal/socket"
mount --bind "$2" "$1/systemd/journal/socket"
mount --rbind "$1" /run
exec 3<&0 < /dev/null
LISTEN_FDS=1 LISTEN_PID=$$ exec dbus-broker-launch --scope system --config-file "$3"
"""

_POLKIT_POLICY = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <policy user="root">
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.freedesktop.PolicyKit1" send_interface="org.freedesktop.DBus.Mock"/>
    <allow send_interface="org.freedesktop.PolicyKit1.AuthenticationAgent"/>
    <allow own="org.freedesktop.systemd1"/>
    <allow send_destination="org.freedesktop.systemd1"/>
  </policy>
{polkitd}  <policy context="default">
    <allow send_destination="org.freedesktop.PolicyKit1"/>
    <deny send_destination="org.freedesktop.PolicyKit1" send_interface="org.freedesktop.DBus.Mock"/>
  </policy>
</busconfig>
"""
_POLKITD_POLICY = """\
  <policy user="polkitd">
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_interface="org.freedesktop.PolicyKit1.AuthenticationAgent"/>
  </policy>
"""


class _Journal:
    """A journal's socket that is always read: dbus-broker waits for a journal that does not take its words.

    Arguments: path: where.  Attributes: messages: what was written so far; ready: the launcher has said so.
    """

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.messages: list[str] = []
        self.ready = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while data := self._socket.recv(1 << 16):
            lines = data.decode(errors="replace").splitlines()
            self.messages += [line.removeprefix("MESSAGE=") for line in lines if line.startswith("MESSAGE=")]
            if "MESSAGE=Ready" in lines:
                self.ready.set()

    def close(self) -> None:
        """Read what is there and end."""
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()


class PrivateBus:
    """A private bus; a context manager that has it running inside.

    Arguments: kind: which program; directory: an existing directory that every user can reach and that is not
        below /run; policies: more policy files, after the shipped one.
    """

    def __init__(self, kind: Kind, directory: Path, policies: Sequence[Path] = ()) -> None:
        self.kind = kind
        self.directory = directory
        self.socket = directory / "bus"
        self.address = f"unix:path={self.socket}"
        self.config = directory / "bus.conf"
        polkit = directory / "polkit.conf"
        polkit.write_text(_POLKIT_POLICY.format(polkitd=_POLKITD_POLICY if user_exists("polkitd") else ""))
        write_bus_config(self.config, self.socket, [polkit, SHIPPED_POLICY, *policies])
        self._log = directory / "bus.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._journal: _Journal | None = None
        self._messages: list[str] = []

    @property
    def pid(self) -> int:
        """The process id of the bus (of the launcher, with dbus-broker)."""
        assert self._process is not None, "the bus is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the bus, and return once a client can connect.

        Raises: RuntimeError with the bus's own words.
        """
        assert self._process is None, "the bus runs already"
        self.socket.unlink(missing_ok=True)
        if self.kind == "dbus-daemon":
            self._process = start_dbus_daemon(self.config, self._log)
        else:
            self._start_broker()

    def _start_broker(self) -> None:
        run = self.directory / "broker-run"
        run.mkdir(exist_ok=True)
        journal_path = self.directory / "journal"
        self._journal = _Journal(journal_path)
        arguments = [str(run), str(journal_path), str(self.config)]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, self._log.open("ab") as log:
            listener.bind(str(self.socket))
            self.socket.chmod(0o666)
            listener.listen(128)
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", "--", "sh", "-c", _LAUNCH, "sh", *arguments],
                env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.address},
                stdin=listener.fileno(),
                stderr=log,
                start_new_session=True,
            )
        for _ in range(200):
            if self._journal.ready.wait(0.05):
                return
            if self._process.poll() is not None:
                break
        self.stop()
        raise RuntimeError(f"dbus-broker-launch did not start: {self.log()}")

    def log(self) -> str:
        """What the bus has said so far, to standard error and (dbus-broker) to the journal."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        messages = self._messages + (self._journal.messages if self._journal is not None else [])
        return text + "".join(f"{message}\n" for message in messages)

    def stop(self) -> None:
        """Stop the bus: every client is disconnected."""
        if self._process is None:
            return
        below = leaks.descendants(self._process.pid)
        end_process(self._process)
        self._process = None
        for pid in below:
            if not leaks.wait_gone(pid):
                leaks.end(pid)
        if self._journal is not None:
            self._journal.close()
            self._messages += self._journal.messages
            self._journal = None

    def restart(self) -> None:
        """Stop the bus and start it again at the same address."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


# As many descriptors as a message can carry: a bus lets fewer through by default.
_GENEROUS = """\
<busconfig>
  <limit name="max_message_unix_fds">253</limit>
  <limit name="max_incoming_unix_fds">4096</limit>
  <limit name="max_outgoing_unix_fds">4096</limit>
</busconfig>
"""


def generous(kind: Kind, place: Path) -> PrivateBus:
    """A bus that lets more descriptors through than one has by default.  Arguments: as of PrivateBus."""
    limits = place / "limits.conf"
    limits.write_text(_GENEROUS)
    return PrivateBus(kind, place, [limits])
