# SPDX-License-Identifier: LGPL-2.1-or-later
"""polkitd hangs, or another takes its place in the middle of a question: nobody is let in, and nobody waits for ever.

What it answers that makes no sense, that it dies, or is not there at all: test_authority.py.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from support.buses import PrivateBus
from support.client import INTERACTIVE, Client
from support.contract import DENIED, action, create, destroy, names, refused, run, settled_fds, wait_until
from support.daemon import Daemon
from support.polkit import Polkit

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

MANAGER, PATH = "org.mountnsd1.Manager", "/org/mountnsd1"
ENTER = "sasa{uh}a{sv}"
PATIENCE = 60.0  # the daemon's own is 25 s


@pytest.fixture
def hung(polkit: Polkit, daemon: Daemon, root: Client) -> Iterator[Polkit]:
    """A polkitd that owns its name and answers nothing; it would say yes."""
    assert daemon.process is not None
    create(root, "x")
    for word in ("list", "enter", "create"):
        polkit.allow(action(word))
    os.kill(polkit.pid, signal.SIGSTOP)
    yield polkit
    with suppress(ProcessLookupError):
        os.kill(polkit.pid, signal.SIGCONT)


def send_all(user: Client, flags: int = 0) -> list[int]:
    """A question of each kind."""
    return [
        user.send(PATH, MANAGER, "List", flags=flags),
        user.send(PATH, MANAGER, "Enter", ENTER, "x", ["/bin/true"], {}, {}, flags=flags),
        user.send(PATH, MANAGER, "Create", "sa{sv}", "made", {}, flags=flags),
    ]


def test_who_does_not_wait_for_a_person_is_refused(
    daemon: Daemon, hung: Polkit, root: Client, user: Client
) -> None:
    """In the time that a call of D-Bus takes at most; root is not held up meanwhile."""
    before = settled_fds(daemon, root)
    serials = send_all(user)
    assert run(root, "x", "/bin/echo", "root goes on") == "root goes on\n"
    for serial in serials:
        with pytest.raises(Exception, match="polkit gave no answer") as caught:
            user.reply(serial, timeout=PATIENCE)
        assert getattr(caught.value, "name", "") == DENIED
        assert "Check that polkitd is installed and running" in str(caught.value)
    assert names(root) == ["x"]
    # What it says once it goes on again comes too late.
    os.kill(hung.pid, signal.SIGCONT)
    assert names(user) == ["x"]
    assert names(root) == ["x"]
    assert settled_fds(daemon, root) == before


def test_who_waits_for_a_person_may_leave(
    bus: PrivateBus, daemon: Daemon, hung: Polkit, root: Client, uid: int
) -> None:
    """Nothing of his questions is left, and they are taken back."""
    before = settled_fds(daemon, root)
    with Client(bus.address, uid) as leaving:
        send_all(leaving, INTERACTIVE)
        leaving.call(PATH, "org.freedesktop.DBus.Peer", "Ping")
    os.kill(hung.pid, signal.SIGCONT)
    assert len(hung.wait_for_cancelled(3)) == 3
    assert names(root) == ["x"]
    assert settled_fds(daemon, root) == before


@pytest.mark.parametrize("flags", [0, INTERACTIVE])
def test_killed_while_it_hangs(daemon: Daemon, hung: Polkit, root: Client, user: Client, flags: int) -> None:
    serials = send_all(user, flags)
    user.call(PATH, "org.freedesktop.DBus.Peer", "Ping")
    os.kill(hung.pid, signal.SIGKILL)
    for serial in serials:
        assert refused(user.reply, serial).name == DENIED
    assert names(root) == ["x"]
    assert daemon.process is not None


@pytest.mark.parametrize("flags", [0, INTERACTIVE])
def test_another_takes_its_place(
    bus: PrivateBus, daemon: Daemon, hung: Polkit, root: Client, user: Client, flags: int
) -> None:
    """The question was the first one's: the yes of the second is for those that it is asked itself."""
    serials = send_all(user, flags)
    user.call(PATH, "org.freedesktop.DBus.Peer", "Ping")
    os.kill(hung.pid, signal.SIGKILL)
    for serial in serials:
        assert refused(user.reply, serial).name == DENIED
    hung.stop()
    hung.start()
    hung.allow(action("list"))
    assert names(user) == ["x"]
    assert {question.action for question in hung.questions()} == {action("list")}
    wait_until(lambda: names(root) == ["x"])
    destroy(root, "x")
