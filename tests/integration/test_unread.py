# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who does not read his answers keeps nobody else from theirs: dbus-daemon counts them against who sent them."""

import contextlib

from support.buses import PrivateBus
from support.client import MANAGER, PATH, Client
from support.contract import PEER, action, create, names, wait_until
from support.daemon import Daemon
from support.identity import NOBODY
from support.polkit import Polkit
from support.raw import RawConnection, marshal

from mountnsd.unread import MAX_DESCRIPTORS_PER_USER

OTHER = 1
ENTER = "sasa{uh}a{sv}"
MANY = 80  # answers with a descriptor: more than the 64 that dbus-daemon lets lie unread


def fill(connection: RawConnection, root: Client) -> None:
    """Have so many answers come that no more of them fit into the connection's socket."""
    for _ in range(1500):
        connection.call(PATH, PEER, "Ping")
    root.call(PATH, PEER, "Ping", timeout=20)


def ask(connection: RawConnection, root: Client, member: str, signature: str, body: bytes) -> None:
    """Ask for many answers with a descriptor; root is answered all the while.

    dbus-broker may hang up on who does not read.
    """
    with contextlib.suppress(ConnectionError):
        for _ in range(MANY):
            connection.call(PATH, MANAGER, member, signature, body)
            root.call(PATH, PEER, "Ping", timeout=20)


def entered(daemon: Daemon) -> int:
    """How many programs the daemon has let in."""
    return daemon.log().count("entered namespace")


def test_answers_with_descriptors(bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client) -> None:
    polkit.allow(action("enter"))
    create(root, "kept")
    with RawConnection(bus.address, NOBODY) as deaf:
        fill(deaf, root)
        ask(deaf, root, "Enter", ENTER, marshal(ENTER, "kept", ["/bin/true"], {}, {}))
        assert names(root) == ["kept"]
        with Client(bus.address, OTHER) as other:
            other.call(PATH, MANAGER, "Enter", ENTER, "kept", ["/bin/true"], {}, {}, timeout=20)
        if bus.kind == "dbus-daemon":  # dbus-broker holds it against who does not read
            wait_until(lambda: entered(daemon) > MAX_DESCRIPTORS_PER_USER, timeout=20)
            root.call(PATH, PEER, "Ping", timeout=20)
            assert entered(daemon) <= 2 * MAX_DESCRIPTORS_PER_USER + 1
    assert daemon.process is not None
    assert daemon.process.poll() is None


def test_who_has_left_may_come_again(bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client) -> None:
    """Each mountnsctl enter is a connection of its own, of which there may be any number one after the other."""
    polkit.allow(action("enter"))
    create(root, "kept")
    for _ in range(2 * MAX_DESCRIPTORS_PER_USER):
        with Client(bus.address, NOBODY) as user:
            user.call(PATH, MANAGER, "Enter", ENTER, "kept", ["/bin/true"], {}, {}, timeout=10)
    assert entered(daemon) == 2 * MAX_DESCRIPTORS_PER_USER


def test_who_reads_has_any_number(bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client) -> None:
    """On one connection, and more at once than he may have unread."""
    polkit.allow(action("enter"))
    create(root, "kept")
    with Client(bus.address, NOBODY) as user:
        for _ in range(4):
            calls = [
                user.send(PATH, MANAGER, "Enter", ENTER, "kept", ["/bin/true"], {}, {})
                for _ in range(MAX_DESCRIPTORS_PER_USER + 4)
            ]
            for call in calls:
                _, pidfd = user.reply(call, timeout=10)
                pidfd.close()
    assert entered(daemon) == 4 * (MAX_DESCRIPTORS_PER_USER + 4)


def test_a_bus_that_takes_nothing_more_is_left(bus: PrivateBus, daemon: Daemon, root: Client) -> None:
    """Root is not bounded, and stands here for several users together."""
    create(root, "kept")
    with RawConnection(bus.address) as deaf:
        fill(deaf, root)
        if bus.kind == "dbus-broker":
            ask(deaf, root, "Open", "s", marshal("s", "kept"))
            assert names(root) == ["kept"]
            return
        for _ in range(MANY):
            deaf.call(PATH, MANAGER, "Open", "s", marshal("s", "kept"))
        assert daemon.wait(60) == 1
        assert "the bus has taken nothing from us" in daemon.log()
        assert "Traceback" not in daemon.log()
        daemon.start()  # as systemd does
        with Client(bus.address) as again:
            assert names(again) == ["kept"]
