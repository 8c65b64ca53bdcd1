# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one user may have at once, however many connections he has: nobody else has less, and he gets it back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.buses import PrivateBus
from support.client import INTERACTIVE, MANAGER, PATH, Client
from support.contract import LIMITS, create, destroy, names, wait_until
from support.daemon import Daemon
from support.quick_polkit import HOLD, YES, QuickPolkit
from support.raw import RawConnection, marshal
from support.storms import ENTER, KEPT
from support.weather import STORMER_UID, settled, strange_lines

from mountnsd.entering import MAX_PER_USER
from mountnsd.quota import MAX_PENDING_PER_USER
from mountnsd.unread import MAX_DESCRIPTORS_PER_USER

CONNECTIONS = 20
_CREATE = marshal("sa{sv}", "held", {})
_SLEEP = marshal(ENTER, KEPT, ["/bin/sleep", "300"], {}, {})


@contextmanager
def crowd(bus: PrivateBus, count: int = CONNECTIONS) -> Iterator[list[RawConnection]]:
    """Many connections of one user, whom the daemon knows."""
    with ExitStack() as stack:
        found = [stack.enter_context(RawConnection(bus.address, STORMER_UID)) for _ in range(count)]
        for raw in found:
            assert not raw.reply(raw.call(PATH, MANAGER, "List")).error_name
        yield found


def answers(raw: RawConnection, count: int) -> list[str]:
    """The names of the errors in the next answers, '' for those that are none."""
    found: list[str] = []
    while len(found) < count:
        message = raw.receive(30)
        message.close_fds()
        if message.reply_to:
            found.append(message.error_name)
    return found


@pytest.fixture(autouse=True)
def _no_fault(daemon: Daemon) -> Iterator[None]:
    yield
    assert strange_lines(daemon.log()) == []


def test_calls_that_are_not_answered_yet(
    bus: PrivateBus, daemon: Daemon, root: Client, other: Client
) -> None:
    each = 10
    with QuickPolkit(bus, {"list": YES, "create": HOLD}):
        assert names(other) == []
        before = settled(daemon, root)
        with crowd(bus) as many:
            for raw in many:
                for _ in range(each):
                    raw.call(PATH, MANAGER, "Create", "sa{sv}", _CREATE, flags=INTERACTIVE)
            wait_until(lambda: is_refused(many[-1]))  # the daemon has taken all that came before
            refused_calls = 0
            for raw in many[: CONNECTIONS // 2]:
                refused_calls += refusals(raw)
            assert refused_calls >= CONNECTIONS // 2 * each - MAX_PENDING_PER_USER
            for _ in range(20):
                assert names(other) == []
            asked = [
                other.send(PATH, MANAGER, "Create", "sa{sv}", "his", {}, flags=INTERACTIVE) for _ in range(5)
            ]
            assert names(other) == []
            assert not set(asked) & set(other._answers)  # they are open, and not refused
        with RawConnection(bus.address, STORMER_UID) as again:
            wait_until(lambda: not again.reply(again.call(PATH, MANAGER, "List")).error_name)
        other.close()
        wait_until(lambda: settled(daemon, root) == before)


def is_refused(raw: RawConnection) -> bool:
    """Whether a call is refused; one that came before the others' waits with them, and is not answered."""
    try:
        return raw.reply(raw.call(PATH, MANAGER, "List"), 1.0).error_name == LIMITS
    except TimeoutError:
        return False


def refusals(raw: RawConnection) -> int:
    """How many of a connection's calls were refused; the others have no answer."""
    found = 0
    while True:
        try:
            message = raw.receive(0.2)
        except TimeoutError:
            return found
        if message.reply_to:
            assert message.error_name == LIMITS
            found += 1


def test_processes_that_were_entered(bus: PrivateBus, daemon: Daemon, root: Client, other: Client) -> None:
    create(root, KEPT)
    with QuickPolkit(bus, {"list": YES, "enter": YES}):
        before = settled(daemon, root)
        let_in = 0
        for turn in range(MAX_PER_USER // MAX_DESCRIPTORS_PER_USER + 2):
            with crowd(
                bus, MAX_DESCRIPTORS_PER_USER
            ) as many:  # who leaves does not wait for the next descriptor
                for raw in many:
                    raw.call(PATH, MANAGER, "Enter", ENTER, _SLEEP)
                told = [name for raw in many for name in answers(raw, 1)]
                assert set(told) <= {"", LIMITS}, turn
                let_in += told.count("")
        assert let_in == MAX_PER_USER
        his, pidfd = other.manager("Enter", ENTER, KEPT, ["/bin/sleep", "300"], {}, {})
        pidfd.close()
        assert his in destroy(root, KEPT, kill=("b", True))
        create(root, KEPT)
        with crowd(bus, 1) as (first,):

            def comes_in() -> bool:
                answer = first.reply(
                    first.call(PATH, MANAGER, "Enter", ENTER, marshal(ENTER, KEPT, ["/bin/true"], {}, {}))
                )
                answer.close_fds()
                return not answer.error_name

            wait_until(comes_in)
        wait_until(lambda: settled(daemon, root) == before, timeout=30)
