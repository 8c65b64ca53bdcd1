# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel before Linux 6.11 tells namespaces apart by the inode alone, and uses that again at once.

What was allowed for a namespace that is gone is not done to the next one that has its name and its number.

The kernel here numbers namespaces by CPU, which before Linux 6.18 none did.  Kept from the numbers, the daemon cannot
know which of its namespaces a hidden one can hold; so it has a visible holder here, which can hold all.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import INTERACTIVE, MANAGER, NAMESPACE, PATH, Client
from support.contract import (
    DENIED,
    NO_SUCH,
    action,
    create,
    destroy,
    listed,
    mounted_at_mnt,
    path_of,
    refused,
)
from support.daemon import Daemon
from support.oldkernel import DaemonWithoutIds
from support.polkit import Polkit

pytestmark = pytest.mark.visible_holder

TRIES = 20
CALLS = {
    "Open": (PATH, MANAGER, "Open", "s", "x"),
    "Enter": (PATH, MANAGER, "Enter", "sasa{uh}a{sv}", "x", ["/bin/true"], {}, {}),
    "Destroy": (PATH, MANAGER, "Destroy", "sa{sv}", "x", {}),
    "from": (PATH, MANAGER, "Create", "sa{sv}", "copy", {"from": ("s", "x")}),
    "Mount": (path_of("x"), NAMESPACE, "Mount", "ssss", "t", "/mnt", "tmpfs", ""),
    "GetMounts": (path_of("x"), NAMESPACE, "GetMounts"),
}


@pytest.fixture
def daemon(bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    place = directory / "daemon"
    place.mkdir()
    with DaemonWithoutIds(bus, place) as running:
        yield running


def inode(root: Client) -> int:
    """The number of x."""
    return next(row[2] for row in listed(root) if row[0] == "x")


def replaced(root: Client) -> bool:
    """Make x anew; whether it has the number that it had, which somebody else may have taken."""
    before = inode(root)
    for _ in range(TRIES):
        destroy(root, "x")
        create(root, "x")
        if inode(root) == before:
            return True
    return False


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_replaced_while_the_question_was_open(
    polkit: Polkit, root: Client, user: Client, call: tuple[str, ...]
) -> None:
    create(root, "x")
    path, interface, member, *arguments = call
    while True:  # until the number is free again: the test is bounded in time
        polkit.hold()
        sent = user.send(path, interface, member, *arguments, flags=INTERACTIVE)
        [question] = polkit.wait_for_questions()
        if replaced(root):
            break
        polkit.release()
        assert refused(user.reply, sent).name == DENIED
        polkit.forget()
    before = listed(root)
    for word in ("create", "enter", "open", "mount", "destroy", "list"):
        polkit.allow(action(word))
    assert polkit.release() == 1
    error = refused(user.reply, sent)
    assert error.name == NO_SUCH, question.action
    assert (listed(root), mounted_at_mnt(root, "x")) == (before, 0)


@pytest.mark.usefixtures("daemon")
def test_one_that_stays_is_still_the_one(daemon: Daemon, polkit: Polkit, user: Client) -> None:
    """A look at the holder meanwhile makes no other namespace of it."""
    with Client(daemon.bus.address) as root:
        create(root, "x")
        polkit.hold()
        sent = user.send(PATH, MANAGER, "Open", "s", "x", flags=INTERACTIVE)
        polkit.wait_for_questions()
        create(root, "y")
        destroy(root, "y")
        polkit.allow(action("open"))
        polkit.release()
        user.reply(sent)[0].close()
