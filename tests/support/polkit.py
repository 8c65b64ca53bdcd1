# SPDX-License-Identifier: LGPL-2.1-or-later
"""polkit on a private bus: one that records, and the real one."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from demo.embedded import REPOSITORY, end_process

from .buses import PrivateBus
from .client import TIMEOUT, Client

NAME = "org.freedesktop.PolicyKit1"
PATH = "/org/freedesktop/PolicyKit1/Authority"
AUTHORITY = "org.freedesktop.PolicyKit1.Authority"
MOCK = "org.freedesktop.DBus.Mock"
ACTIONS = REPOSITORY / "dbus" / "org.mountnsd1.policy"
_TEMPLATE = Path(__file__).with_name("polkit_template.py")
_ANYBODY = -1

# In a mount namespace of its own: our actions and the test's rules, and nothing that somebody else pinned.
_POLKITD = """\
set -e
findmnt --raw --noheadings --output TARGET --types nsfs | xargs --no-run-if-empty umount --lazy --
mount --bind "$1" /usr/share/polkit-1/actions
mount --bind "$2" /etc/polkit-1/rules.d
exec "$3" --no-debug
"""


@dataclass(frozen=True)
class Question:
    """What polkit was asked.

    Attributes: action; kind: of the subject (`system-bus-name`); subject: its data (`name`); uid: of that
        connection, -1 if it is gone; details; flags: 1 is AllowUserInteraction; cancellation: the id to
        cancel it by.
    """

    action: str
    kind: str
    subject: Mapping[str, str]
    uid: int
    details: Mapping[str, str]
    flags: int
    cancellation: str


def _environment(bus: PrivateBus) -> dict[str, str]:
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    return {"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PATH": path, "LC_ALL": "C.UTF-8"}


class _Service:
    """A process that owns polkit's name on a bus."""

    def __init__(self, bus: PrivateBus, directory: Path) -> None:
        self.bus = bus
        self.directory = directory
        self._log = directory / "polkit.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "polkit is not running"
        return self._process.pid

    @property
    def client(self) -> Client:
        """Root's connection to it."""
        assert self._client is not None, "polkit is not running"
        return self._client

    def _command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it and return once it owns its name.  Raises: RuntimeError with its log."""
        assert self._process is None, "polkit runs already"
        self._client = Client(self.bus.address, destination=NAME)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                env=_environment(self.bus),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._client.wait_for_name(NAME)
        except TimeoutError:
            self.stop()
            raise RuntimeError(f"polkit did not start:\n{self.log()}") from None

    def log(self) -> str:
        """What it said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """Stop it; its name is free when this returns."""
        if self._process is not None:
            end_process(self._process)
            self._process = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Polkit(_Service):
    """The recording one.  Refuses everything until told otherwise; a context manager.

    Arguments: bus; directory: for its log.
    """

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "dbusmock", "--template", str(_TEMPLATE)]

    def _mock(self, member: str, signature: str = "", *args: Any) -> tuple[Any, ...]:
        return self.client.call(PATH, MOCK, member, signature, *args)

    def allow(self, action: str, uid: int | None = None) -> None:
        """Say yes to an action, of one user or of anybody.  A user's own verdict goes before anybody's."""
        self._mock("SetVerdict", "sis", action, _ANYBODY if uid is None else uid, "yes")

    def deny(self, action: str, uid: int | None = None) -> None:
        """Say no, as by default."""
        self._mock("SetVerdict", "sis", action, _ANYBODY if uid is None else uid, "no")

    def challenge(self, action: str, uid: int | None = None, passes: bool = True) -> None:
        """Answer that it needs a password; where one may be asked for, `passes` says if the user knows it."""
        verdict = "challenge-yes" if passes else "challenge-no"
        self._mock("SetVerdict", "sis", action, _ANYBODY if uid is None else uid, verdict)

    def hold(self) -> None:
        """Leave every question unanswered from now on."""
        self._mock("Hold")

    def release(self) -> int:
        """Answer what was held, by the verdicts of now, and hold no more; returns how many were held."""
        return int(self._mock("Release")[0])

    def forget(self) -> None:
        """Forget questions, cancellations and verdicts."""
        self._mock("Forget")

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._mock("GetState")[0])
        return state

    def questions(self) -> list[Question]:
        """What it was asked, in order."""
        return [Question(**question) for question in self._state()["questions"]]

    def cancelled(self) -> list[str]:
        """The ids that CancelCheckAuthorization named, in order."""
        return [str(item) for item in self._state()["cancelled"]]

    def held(self) -> int:
        """How many questions wait for an answer."""
        return int(self._state()["held"])

    def wait_for_questions(self, count: int = 1, timeout: float = TIMEOUT) -> list[Question]:
        """Wait until it was asked so many questions; returns all.  Raises: TimeoutError."""
        deadline = time.monotonic() + timeout
        with self.client.signals(MOCK, "Asked") as asked:
            while len(questions := self.questions()) < count:
                asked.wait(max(deadline - time.monotonic(), 0))
        return questions

    def wait_for_cancelled(self, count: int = 1, timeout: float = TIMEOUT) -> list[str]:
        """Wait until so many questions were cancelled; returns all ids.  Raises: TimeoutError."""
        deadline = time.monotonic() + timeout
        with self.client.signals(MOCK, "Cancelled") as cancelled:
            while len(ids := self.cancelled()) < count:
                cancelled.wait(max(deadline - time.monotonic(), 0))
        return ids


def polkitd() -> Path | None:
    """The real polkitd's program, if it is installed."""
    for place in ("/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd", "/usr/libexec/polkit-1/polkitd"):
        if Path(place).exists():
            return Path(place)
    return None


class RealPolkit(_Service):
    """The real polkitd with our actions, and with the given rules alone beside the distribution's.

    Arguments: bus; directory: for its files, which every user can reach; rules: as in a .rules file.

    Nothing of the host is changed: polkitd sees its directories through a mount namespace of its own.
    """

    def __init__(self, bus: PrivateBus, directory: Path, rules: str = "") -> None:
        super().__init__(bus, directory)
        self._actions = directory / "polkit-actions"
        self._rules = directory / "polkit-rules"
        for path in (self._actions, self._rules):
            path.mkdir(mode=0o755)
        shutil.copy(ACTIONS, self._actions)
        if rules:
            (self._rules / "10-test.rules").write_text(rules)

    def _command(self) -> list[str]:
        program = polkitd()
        assert program is not None, "polkitd is not installed"
        arguments = [str(self._actions), str(self._rules), str(program)]
        return ["unshare", "--mount", "--propagation=private", "--", "sh", "-c", _POLKITD, "sh", *arguments]

    def check(
        self, action: str, subject: str, details: Mapping[str, str], flags: int = 0
    ) -> tuple[bool, bool]:
        """Ask it as root: authorized, challenge."""
        question = (("system-bus-name", {"name": ("s", subject)}), action, dict(details), flags, "")
        answer = self.client.call(PATH, AUTHORITY, "CheckAuthorization", "(sa{sv})sa{ss}us", *question)[0]
        return bool(answer[0]), bool(answer[1])


__all__ = ["ACTIONS", "Polkit", "Question", "RealPolkit", "polkitd"]
