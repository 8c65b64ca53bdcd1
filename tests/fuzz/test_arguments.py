# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every method with every kind of argument, by root and by a user who may do everything: an answer, and no harm."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from support import contract
from support.buses import PrivateBus
from support.client import BUS_NAME, INTERACTIVE, Client
from support.contract import create, methods, names, on
from support.daemon import Daemon
from support.hostile_arguments import PLACE, Arguments, Attempt
from support.quick_polkit import YES, QuickPolkit
from support.raw import ERROR, SENDER, Frame, RawConnection
from support.storms import KEPT
from support.weather import SEED, STORMER_UID, Report, strange_lines

CALLS = 2_000
ACTIONS = ("create", "enter", "enter-as", "open", "mount", "destroy", "list")
ERRORS = {
    value
    for key, value in vars(contract).items()
    if key.isupper() and isinstance(value, str) and ".Error." in value
}
INSIDE = ("Traceback", ".py", "/mountnsd/", "site-packages", "0x7f", "dbus_next", "asyncio")
# A mount namespace of its own: whatever a call should bring about, the host's mounts are out of its reach.
_APART = """\
set -e
findmnt --raw --noheadings --output TARGET --types nsfs | xargs --no-run-if-empty umount --lazy --
exec "$@"
"""


class Apart(Daemon):
    """A daemon in a mount namespace of its own, in which everything is private."""

    def command(self) -> list[str]:
        """The command line."""
        return [
            "unshare",
            "--mount",
            "--propagation=private",
            "--",
            "sh",
            "-c",
            _APART,
            "sh",
            *super().command(),
        ]


@pytest.fixture
def daemon(bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    """A running mountnsd, apart."""
    place = directory / "daemon"
    place.mkdir()
    with Apart(bus, place) as running:
        yield running


class _Caller:
    """Makes calls and judges the answers; connects anew when the bus hangs up.

    Attributes: answers: how often each error came, '' for success; hung_up: how often the bus did.
    """

    def __init__(self, address: str, uid: int) -> None:
        self._address, self._uid = address, uid
        self._null = os.open("/dev/null", os.O_RDWR)
        self._raw = RawConnection(address, uid)
        self.answers: Counter[str] = Counter()
        self.hung_up = 0

    def call(self, attempt: Attempt) -> None:
        """Make a call."""
        method = attempt.method
        try:
            serial = self._raw.call(
                attempt.path,
                method.interface,
                method.name,
                method.takes,
                attempt.body,
                flags=INTERACTIVE,
                fds=[self._null] * attempt.fds,
            )
            answer = self._raw.reply(serial, 60)
        except (ConnectionError, BrokenPipeError):
            self.hung_up += 1
            self._raw.close()
            self._raw = RawConnection(self._address, self._uid)
            return
        answer.close_fds()
        self._judge(answer, attempt)

    def _judge(self, answer: Frame, attempt: Attempt) -> None:
        self.answers[answer.error_name] += 1
        if answer.kind != ERROR or answer.fields.get(SENDER) == BUS_NAME:
            return
        assert answer.error_name in ERRORS, (answer.error_name, attempt)
        (message,) = answer.decode()
        assert message, attempt
        assert message.isprintable(), (message, attempt)
        assert not any(word in message for word in INSIDE), (message, attempt)

    def close(self) -> None:
        """Leave."""
        os.close(self._null)
        self._raw.close()


@pytest.mark.parametrize("uid", [0, STORMER_UID], ids=["root", "user"])
def test_every_method_with_any_arguments(
    bus: PrivateBus, daemon: Daemon, root: Client, report: Report, directory: Path, uid: int
) -> None:
    create(root, KEPT)
    on(root, KEPT, "Mount", "ssss", "tmpfs", PLACE, "tmpfs", "size=4m,mode=0755")
    for name in ("a", "b", "a/b"):
        on(root, KEPT, "Mount", "ssss", "tmpfs", f"{PLACE}/{name}", "tmpfs", "X-mount.mkdir,size=1m")
    place = directory / "bound"
    place.mkdir()
    seen: Counter[tuple[str, str, int | None]] = Counter()
    with (
        QuickPolkit(bus, dict.fromkeys(ACTIONS, YES)),
        contextlib.closing(_Caller(bus.address, uid)) as caller,
    ):
        for attempt in islice(Arguments(SEED, str(place)).attempts(), CALLS):
            caller.call(attempt)
            seen[attempt.method.interface, attempt.method.name, attempt.hostile] += 1
    assert KEPT in names(root)
    assert strange_lines(daemon.log()) == []
    assert caller.answers[""] > CALLS // 20
    assert caller.answers.total() > CALLS // 2
    assert all(seen[method.interface, method.name, None] for method in methods())
    told = ", ".join(
        f"{count} × {name.rpartition('.')[2] or 'success'}" for name, count in caller.answers.most_common()
    )
    report.line(
        f"arguments, {bus.kind}, uid {uid}, seed {SEED}: {CALLS} calls, {caller.hung_up} hung up on; {told}"
    )
