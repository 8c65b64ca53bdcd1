# SPDX-License-Identifier: LGPL-2.1-or-later
"""A polkitd for python-dbusmock that records what it is asked.

dbusmock's own template answers yes or no by action.  This one also knows users,
challenges and late answers, keeps subject, details and flags of each question,
and lets itself be cancelled.  Controls are methods of org.freedesktop.DBus.Mock.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import dbus.service
from dbusmock import MOCK_IFACE

import dbus

F = TypeVar("F", bound=Callable[..., Any])

BUS_NAME = "org.freedesktop.PolicyKit1"
MAIN_OBJ = "/org/freedesktop/PolicyKit1/Authority"
MAIN_IFACE = "org.freedesktop.PolicyKit1.Authority"
SYSTEM_BUS = True

_method: Callable[..., Callable[[F], F]] = dbus.service.method
_INTERACTIVE = 1
_CANCELLED = "org.freedesktop.PolicyKit1.Error.Cancelled"
_ANYBODY = -1


def load(mock: Any, _parameters: dict[str, Any]) -> None:
    """Set the object up: everything is refused."""
    features = dbus.UInt32(1, variant_level=1)
    properties = {"BackendName": "mock", "BackendVersion": "1", "BackendFeatures": features}
    mock.AddProperties(MAIN_IFACE, dbus.Dictionary(properties, signature="sv"))
    mock.verdicts = {}
    mock.holding = False
    mock.held = []
    mock.questions = []
    mock.cancelled = []


def _uid(name: str) -> int:
    try:
        return int(dbus.SystemBus().get_unix_user(name))
    except dbus.exceptions.DBusException:
        return _ANYBODY


def _verdict(mock: Any, action: str, uid: int, flags: int) -> tuple[bool, bool]:
    """What to answer: authorized, challenge."""
    verdict = mock.verdicts.get((action, uid), mock.verdicts.get((action, _ANYBODY), "no"))
    if verdict == "yes":
        return True, False
    if verdict == "no":
        return False, False
    if not flags & _INTERACTIVE:
        return False, True
    return verdict == "challenge-yes", False


@_method(
    MAIN_IFACE,
    in_signature="(sa{sv})sa{ss}us",
    out_signature="(bba{ss})",
    async_callbacks=("answer", "fail"),
)
def CheckAuthorization(  # noqa: N802
    self: Any,
    subject: Any,
    action: str,
    details: dict[str, str],
    flags: int,
    cancellation: str,
    answer: Any,
    fail: Any,
) -> None:
    """Record the question; answer it now, or on Release if questions are held."""
    kind, data = str(subject[0]), {str(key): str(value) for key, value in subject[1].items()}
    uid = _uid(data["name"]) if kind == "system-bus-name" else _ANYBODY
    question = {
        "action": str(action),
        "kind": kind,
        "subject": data,
        "uid": uid,
        "details": {str(key): str(value) for key, value in details.items()},
        "flags": int(flags),
        "cancellation": str(cancellation),
    }
    self.questions.append(question)

    def give() -> None:
        authorized, challenge = _verdict(self, str(action), uid, int(flags))
        answer((authorized, challenge, dbus.Dictionary({}, signature="ss")))

    if self.holding:
        self.held.append((str(cancellation), give, fail))
    else:
        give()
    self.EmitSignal(MOCK_IFACE, "Asked", "s", [json.dumps(question)])


@_method(MAIN_IFACE, in_signature="s", out_signature="")
def CancelCheckAuthorization(self: Any, cancellation: str) -> None:  # noqa: N802
    """Answer a held question with the error that polkitd gives."""
    self.cancelled.append(str(cancellation))
    for item in [item for item in self.held if item[0] == cancellation]:
        self.held.remove(item)
        item[2](dbus.exceptions.DBusException("cancelled", name=_CANCELLED))
    self.EmitSignal(MOCK_IFACE, "Cancelled", "s", [cancellation])


@_method(MOCK_IFACE, in_signature="sis", out_signature="")
def SetVerdict(self: Any, action: str, uid: int, verdict: str) -> None:  # noqa: N802
    """Set the answer for an action: yes, no, challenge-yes or challenge-no; uid -1 is anybody."""
    self.verdicts[(str(action), int(uid))] = str(verdict)


@_method(MOCK_IFACE, in_signature="", out_signature="")
def Hold(self: Any) -> None:  # noqa: N802
    """Answer nothing until Release."""
    self.holding = True


@_method(MOCK_IFACE, in_signature="", out_signature="u")
def Release(self: Any) -> int:  # noqa: N802
    """Answer what was held, by the verdicts of now; returns how many."""
    held, self.held, self.holding = self.held, [], False
    for _, give, _ in held:
        give()
    return len(held)


@_method(MOCK_IFACE, in_signature="", out_signature="s")
def GetState(self: Any) -> str:  # noqa: N802
    """The questions and cancellations so far and how many are held, as JSON."""
    state = {"questions": self.questions, "cancelled": self.cancelled, "held": len(self.held)}
    return json.dumps(state)


@_method(MOCK_IFACE, in_signature="", out_signature="")
def Forget(self: Any) -> None:  # noqa: N802
    """Forget the questions and cancellations, and every verdict."""
    self.questions = []
    self.cancelled = []
    self.verdicts = {}
