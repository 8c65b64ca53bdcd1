# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may: polkit, asked about the connection that calls, and root.

All authorization is here.  It denies by default: without an answer that says
yes, whatever the reason, the answer is no.

Source: polkit(8), org.freedesktop.PolicyKit1.Authority.
"""

import asyncio
import itertools
import logging
from collections.abc import Mapping
from enum import StrEnum
from weakref import WeakValueDictionary

from mountnsd import names
from mountnsd.bus import Bus, CallError, Variant
from mountnsd.callers import Caller
from mountnsd.errors import AccessDenied, InteractiveAuthorizationRequired, LimitsExceeded
from mountnsd.log import Seldom

log = logging.getLogger(__name__)

_POLKIT = "org.freedesktop.PolicyKit1"
_PATH = "/org/freedesktop/PolicyKit1/Authority"
_INTERFACE = "org.freedesktop.PolicyKit1.Authority"
_ALLOW_USER_INTERACTION = 0x1


class Action(StrEnum):
    """The polkit actions, as org.mountnsd1.policy declares them."""

    CREATE = "org.mountnsd1.create"
    ENTER = "org.mountnsd1.enter"
    ENTER_AS = "org.mountnsd1.enter-as"
    OPEN = "org.mountnsd1.open"
    MOUNT = "org.mountnsd1.mount"
    DESTROY = "org.mountnsd1.destroy"
    LIST = "org.mountnsd1.list"


# Questions of one user that polkit has at once; further ones wait.  A bus lets one connection wait for so many
# answers only (dbus-daemon: 128), and a question to a person may stay open for as long as its caller likes.
MAX_QUESTIONS_PER_USER = 16
# The same of all users together.  What only the rules decide is answered soon, and must not wait for persons.
MAX_QUESTIONS_TO_PERSONS = 48
MAX_QUESTIONS_TO_RULES = 32


class CallerVanished(Exception):
    """The caller left the bus while its question was open: there is nobody to answer."""


class Authority:
    """Asks polkit over one bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._numbers = itertools.count(1)
        self._no_answer = Seldom(log)
        self._to_persons = asyncio.Semaphore(MAX_QUESTIONS_TO_PERSONS)
        self._to_rules = asyncio.Semaphore(MAX_QUESTIONS_TO_RULES)
        self._slots: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()  # by uid

    async def check(
        self, caller: Caller, action: Action, details: Mapping[str, str], interactive: bool
    ) -> bool:
        """Return where `caller` may do `action`.

        Arguments: details: what polkit's rules may look at; interactive: a person may be asked, and the
            question then stays open for as long as the caller stays on the bus.
        Returns: whether that was a question, and so took its time.
        Raises: AccessDenied, InteractiveAuthorizationRequired, LimitsExceeded, CallerVanished, bus.Disconnected.
        """
        if caller.uid == 0:
            return False
        slots = self._slots.setdefault(caller.uid, asyncio.Semaphore(MAX_QUESTIONS_PER_USER))
        async with slots:
            if interactive and not self._to_persons.locked():
                async with self._to_persons:
                    answer = await self._ask_while_there(caller, action, details)
                _judge(answer, action, interactive=True)
                return True
            async with self._to_rules:
                answer = await self._ask(caller, action, details, 0, "")
        try:
            _judge(answer, action, interactive=False)
            return True
        except InteractiveAuthorizationRequired:
            if not interactive:
                raise
            raise LimitsExceeded(
                f"This needs authentication ({action.value}), and {MAX_QUESTIONS_TO_PERSONS} others are just asked "
                "for theirs, as many as can be; try again later, or call as root."
            ) from None

    async def _ask_while_there(self, caller: Caller, action: Action, details: Mapping[str, str]) -> object:
        """Ask with interaction, and take the question back when the caller leaves."""
        cancellation = f"mountnsd-{next(self._numbers)}"
        gone = await self._bus.watch(caller.name)
        question = asyncio.ensure_future(
            self._ask(caller, action, details, _ALLOW_USER_INTERACTION, cancellation)
        )
        try:
            await asyncio.wait((question, gone), return_when=asyncio.FIRST_COMPLETED)
            if question.done():
                return question.result()
            raise CallerVanished
        finally:
            self._bus.unwatch(caller.name, gone)
            if question.done():
                question.cancelled() or question.exception()  # seen: the bus may have ended with ours cancelled
            else:
                question.cancel()
                self._bus.send_only(_POLKIT, _PATH, _INTERFACE, "CancelCheckAuthorization", "s", cancellation)

    async def _ask(
        self, caller: Caller, action: Action, details: Mapping[str, str], flags: int, cancellation: str
    ) -> object:
        subject = ["system-bus-name", {"name": Variant("s", caller.name)}]
        question = (subject, action.value, dict(details), flags, cancellation)
        try:
            (answer,) = await self._bus.call(
                _POLKIT,
                _PATH,
                _INTERFACE,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                question,
                **({"timeout": None} if flags else {}),
            )
        except CallError as error:
            self._no_answer.warning(
                "polkit gave no answer, so uid %d may not: %s", caller.uid, names.shown(str(error), 200)
            )
            raise AccessDenied(
                f"Only root may do this ({action.value}): polkit gave no answer. "
                "Check that polkitd is installed and running, or call as root."
            ) from None
        except ValueError:
            raise AccessDenied(f"polkit's answer about {action.value} makes no sense.") from None
        return answer


def _judge(answer: object, action: Action, interactive: bool) -> None:
    """Return for a yes; raise for anything else."""
    match answer:
        case [True, bool(), dict()]:
            return
        case [False, True, dict()] if not interactive:
            raise InteractiveAuthorizationRequired(
                f"This needs authentication ({action.value}); call with interactive authorization allowed, "
                "with a polkit agent running, or as root."
            )
        case [False, bool(), dict() as details] if "polkit.dismissed" in details:
            raise AccessDenied(f"The authentication ({action.value}) was dismissed.")
        case _:
            raise AccessDenied(
                f"You may not do this ({action.value}); an administrator can allow it with a polkit rule."
            )
