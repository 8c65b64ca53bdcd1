# SPDX-License-Identifier: LGPL-2.1-or-later
"""The D-Bus contract as the tests know it: names, paths, error names, the XML, and calls that are often made.

Written from the contract and not from the code under test.
"""

import os
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .client import MANAGER, NAMESPACE, PATH, TIMEOUT, Client, DBusError, Signals
from .daemon import REPOSITORY, Daemon

INTERFACES = REPOSITORY / "dbus"
PEER = "org.freedesktop.DBus.Peer"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PREFIX = PATH + "/namespace/"

_OWN = "org.mountnsd1.Error."
_STANDARD = "org.freedesktop.DBus.Error."
NO_SUCH = _OWN + "NoSuchNamespace"
EXISTS = _OWN + "NamespaceExists"
BUSY = _OWN + "NamespaceBusy"
STALE = _OWN + "NamespaceStale"
NO_SUCH_USER = _OWN + "NoSuchUser"
NO_NAMESPACE_FOR_PID = _OWN + "NoNamespaceForPID"
MOUNT_FAILED = _OWN + "MountFailed"
ENTER_FAILED = _OWN + "EnterFailed"
INVALID = _STANDARD + "InvalidArgs"
DENIED = _STANDARD + "AccessDenied"
INTERACTIVE_REQUIRED = _STANDARD + "InteractiveAuthorizationRequired"
LIMITS = _STANDARD + "LimitsExceeded"
FAILED = _STANDARD + "Failed"
UNKNOWN_METHOD = _STANDARD + "UnknownMethod"
UNKNOWN_OBJECT = _STANDARD + "UnknownObject"
UNKNOWN_INTERFACE = _STANDARD + "UnknownInterface"
UNKNOWN_PROPERTY = _STANDARD + "UnknownProperty"
READ_ONLY = _STANDARD + "PropertyReadOnly"

CLD_EXITED, CLD_KILLED, CLD_DUMPED = 1, 2, 3


def action(word: str) -> str:
    """The polkit action of that last word."""
    return f"org.mountnsd1.{word}"


def path_of(name: str) -> str:
    """The object path of a namespace, escaped as sd_bus_path_encode(3) does."""
    out = ""
    for index, byte in enumerate(name.encode()):
        character = chr(byte)
        plain = byte < 128 and (character.isalpha() or (character.isdigit() and index))
        out += character if plain else f"_{byte:02x}"
    return _PREFIX + out


@dataclass(frozen=True)
class Method:
    """A method as its XML has it: the signatures of what it takes and gives."""

    interface: str
    name: str
    takes: str
    gives: str


def described(kind: str) -> Iterator[tuple[str, ET.Element]]:
    """Every method, signal or property of the XML files, with its interface."""
    for file in sorted(INTERFACES.glob("*.xml")):
        for interface in ET.parse(file).iter("interface"):
            for element in interface.iter(kind):
                yield interface.attrib["name"], element


def methods() -> list[Method]:
    """Every method of the XML files."""
    found = []
    for interface, element in described("method"):
        sides: dict[str, str] = {"in": "", "out": ""}
        for argument in element.iter("arg"):
            sides[argument.attrib["direction"]] += argument.attrib["type"]
        found.append(Method(interface, element.attrib["name"], sides["in"], sides["out"]))
    return found


def refused(call: Callable[..., object], *args: Any, **more: Any) -> DBusError:
    """The error that `call(*args, **more)` gets; and it says nothing of our insides."""
    with pytest.raises(DBusError) as caught:
        call(*args, **more)
    error = caught.value
    for word in ("Traceback", ".py", "/mountnsd/", "site-packages", "0x7f"):
        assert word not in error.message, error.message
    assert "\n" not in error.message
    assert error.message, error.name
    return error


def create(client: Client, name: str, **options: tuple[str, Any]) -> str:
    """Create a namespace; returns its object path.  Arguments: options: signature and value of each."""
    given = {key.rstrip("_"): value for key, value in options.items()}
    return str(client.manager("Create", "sa{sv}", name, given)[0])


def destroy(client: Client, name: str, **options: tuple[str, Any]) -> list[int]:
    """Destroy a namespace; returns the pids that were inside."""
    return list(client.manager("Destroy", "sa{sv}", name, dict(options), timeout=20)[0])


def listed(client: Client) -> list[tuple[str, str, int, int, int]]:
    """What List says."""
    return [tuple(row) for row in client.manager("List")[0]]


def names(client: Client) -> list[str]:
    """The names that List says."""
    return [row[0] for row in listed(client)]


def on(
    client: Client, name: str, member: str, signature: str = "", *args: Any, **more: Any
) -> tuple[Any, ...]:
    """Call a method of a namespace's own object."""
    return client.call(path_of(name), NAMESPACE, member, signature, *args, **more)


def mounted_at_mnt(client: Client, name: str) -> int:
    """How often something is mounted on /mnt inside; of other places anybody may change something meanwhile."""
    return sum(row[4] == "/mnt" for row in on(client, name, "GetMounts")[0])


@dataclass(frozen=True)
class Entered:
    """What Enter gave.

    Attributes: pid; exits: the subscription to Exited that was made before.
    """

    pid: int
    exits: Signals

    def wait(self, timeout: float = TIMEOUT) -> tuple[int, int]:
        """Wait for Exited of this process: code and status."""
        signal = self.exits.wait(timeout, lambda signal: signal.body[0] == self.pid)
        return signal.body[2], signal.body[3]


@contextmanager
def entered(
    client: Client,
    name: str,
    argv: Sequence[str],
    *,
    fds: dict[int, int] | None = None,
    flags: int = 0,
    **options: tuple[str, Any],
) -> Iterator[Entered]:
    """Enter a namespace.  Arguments: fds: the child's number of each of our descriptors."""
    with client.signals(MANAGER, "Exited") as exits:
        body = (name, list(argv), dict(fds or {}), dict(options))
        pid, pidfd = client.manager("Enter", "sasa{uh}a{sv}", *body, flags=flags)
        pidfd.close()
        yield Entered(int(pid), exits)


def run(client: Client, name: str, *argv: str, flags: int = 0, **options: tuple[str, Any]) -> str:
    """Run a command inside to its end; returns its output.  Fails unless it exits with 0."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as output:
        try:
            with entered(client, name, argv, fds={1: writing, 2: writing}, flags=flags, **options) as process:
                os.close(writing)
                writing = -1
                text = output.read()
                assert process.wait() == (CLD_EXITED, 0), text
        finally:
            if writing >= 0:
                os.close(writing)
    return text


def nsenter(pin: Path | str, *command: str) -> str:
    """Run a command in a namespace by util-linux's nsenter; returns its output."""
    result = subprocess.run(
        ["nsenter", f"--mount={pin}", "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=20,
        check=True,
    )
    return result.stdout


@contextmanager
def somebody_inside(pin: Path | str) -> Iterator[int]:
    """A process in a namespace that the daemon did not start; gives its pid."""
    with subprocess.Popen(
        ["nsenter", f"--mount={pin}", "--", "sleep", "300"], stdin=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
            yield process.pid
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], timeout: float = TIMEOUT) -> None:
    """Wait for what sends no event.  Raises: TimeoutError."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.01)


def settled_fds(daemon: Daemon, client: Client) -> dict[int, str]:
    """The daemon's descriptors once it has dealt with everything that was sent before."""
    client.call(PATH, PEER, "Ping")
    found = daemon.open_fds()
    while True:  # what callers sent is closed in threads
        time.sleep(0.05)
        last, found = found, daemon.open_fds()
        if found == last:
            return found
