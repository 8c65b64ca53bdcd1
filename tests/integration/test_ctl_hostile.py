# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl of root, while another user sends it whatever the bus lets through."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest
from support.buses import PrivateBus
from support.client import MANAGER, PATH, Client
from support.contract import create
from support.daemon import copy_program
from support.raw import (
    DESTINATION,
    INTERFACE,
    MEMBER,
    REPLY_SERIAL,
    SIGNAL,
    SIGNATURE,
    Field,
    RawConnection,
    frame,
    marshal,
)
from support.raw import PATH as PATH_FIELD

TIMEOUT = 20.0


@pytest.fixture
def stranger(bus: PrivateBus, uid: int) -> Iterator[RawConnection]:
    """A connection of an unprivileged user that sends anything."""
    with RawConnection(bus.address, uid) as connection:
        yield connection


def start(bus: PrivateBus, *words: str) -> "subprocess.Popen[str]":
    """Start mountnsctl."""
    return subprocess.Popen(
        [sys.executable, "-m", "mountnsd.ctl", *words],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(copy_program(bus.directory)),
            "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def names_of(root: Client, pid: int) -> list[str]:
    """The unique names that a process has on the bus."""
    (names,) = root.bus_call("ListNames")
    unique = [name for name in names if name.startswith(":")]
    return [name for name in unique if root.bus_call("GetConnectionUnixProcessID", "s", name) == (pid,)]


def send(
    stranger: RawConnection, to: str, signature: str = "", body: bytes = b"", extra: tuple[Field, ...] = ()
) -> None:
    """Send a signal to one connection, as the daemon sends Exited."""
    fields = [
        Field(PATH_FIELD, "o", PATH),
        Field(INTERFACE, "s", MANAGER),
        Field(MEMBER, "s", "Exited"),
        Field(DESTINATION, "s", to),
        *extra,
    ]
    fields += [Field(SIGNATURE, "g", signature)] if signature else []
    stranger.send(frame(fields, body, kind=SIGNAL, serial=stranger.next_serial()))


@pytest.mark.usefixtures("daemon")
def test_the_end_of_a_process_is_the_daemons_to_tell(
    bus: PrivateBus, root: Client, stranger: RawConnection
) -> None:
    create(root, "demo")
    process = start(bus, "enter", "demo", "sh", "-c", "echo $$; read x; exit 7")
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    (name,) = names_of(root, process.pid)
    send(stranger, name)
    send(stranger, name, "s", marshal("s", "x"))
    for _ in range(100):
        send(stranger, name, "usii", marshal("usii", pid, "demo", os.CLD_EXITED, 0))
    stranger.reply(stranger.call(PATH, "org.freedesktop.DBus.Peer", "Ping"))  # the bus has passed them on
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    _, err = process.communicate("go\n", timeout=TIMEOUT)
    assert (process.returncode, err) == (7, "")


class Greeter:
    """Sends a signal to each connection that comes to the bus, at once; a context manager."""

    def __init__(self, stranger: RawConnection, signature: str, body: bytes, *extra: Field) -> None:
        self._stranger = stranger
        self._message = (signature, body, extra)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._greet)
        self.greeted = 0
        rule = marshal("s", "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'")
        driver = ("/org/freedesktop/DBus", "org.freedesktop.DBus")
        stranger.reply(stranger.call(*driver, "AddMatch", "s", rule, destination="org.freedesktop.DBus"))

    def _greet(self) -> None:
        signature, body, extra = self._message
        while not self._ending.is_set():
            try:
                message = self._stranger.receive(0.1)
            except TimeoutError:
                continue
            if message.fields.get(MEMBER) == "NameOwnerChanged":
                name, _, owner = message.decode()
                if owner and name.startswith(":"):
                    send(self._stranger, name, signature, body, extra)
                    self.greeted += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()


@pytest.mark.usefixtures("daemon")
def test_a_header_field_that_is_not_known_breaks_nothing(bus: PrivateBus, stranger: RawConnection) -> None:
    with Greeter(stranger, "", b"", Field(200, "s", "x")) as greeter:
        for number in range(5):
            process = start(bus, "create", f"n{number}")
            _, err = process.communicate(timeout=TIMEOUT)
            assert (process.returncode, err) == (0, "")
    assert greeter.greeted >= 5


@pytest.mark.usefixtures("daemon")
def test_a_signal_is_no_answer(bus: PrivateBus, stranger: RawConnection) -> None:
    """Its header has the serial of the call that mountnsctl makes first after Hello."""
    row = ("forged", "/org/mountnsd1/namespace/forged", 1, 0, 0)
    forged = marshal("a(sotut)", [row])
    with Greeter(stranger, "a(sotut)", forged, Field(REPLY_SERIAL, "u", 2)) as greeter:
        for _ in range(5):
            process = start(bus, "list")
            out, err = process.communicate(timeout=TIMEOUT)
            assert (process.returncode, out, err) == (0, "No namespaces.\n", "")
    assert greeter.greeted >= 5
