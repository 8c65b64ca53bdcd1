# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter: from the call to the process inside, and until it has ended.

Out of scope: how the process is made (launcher.py, transient.py).
"""

import asyncio
import logging
import os
from collections import Counter

from mountnsd import helper, identity, names, options, program
from mountnsd.authority import Action
from mountnsd.bus import Bus
from mountnsd.callers import Caller
from mountnsd.errors import LimitsExceeded
from mountnsd.identity import Identity
from mountnsd.interface import MANAGER, NAMESPACE
from mountnsd.methods import Methods, details_of, plain_options
from mountnsd.named import Namespace
from mountnsd.options import EnterOptions
from mountnsd.plan import Answer, Entry, Plan, Request
from mountnsd.program import Passed
from mountnsd.records import Origin
from mountnsd.registry import Registry
from mountnsd.running import Running, Starter

log = logging.getLogger(__name__)

MAX_PER_USER = 256  # processes that one user but root may have started by Enter and that have not ended


class Entering:
    """The method Enter and the processes that it started."""

    def __init__(self, bus: Bus, registry: Registry, methods: Methods, starter: Starter) -> None:
        self._bus = bus
        self._registry = registry
        self._methods = methods
        self._starter = starter
        self._started: Counter[int] = Counter()  # by the caller's uid
        self._followers: set[asyncio.Task[None]] = set()

    def entries(self) -> dict[tuple[str, str], Entry]:
        """This part of the dispatch table."""
        entry = Entry((Action.ENTER, Action.ENTER_AS), self._enter)
        return {(MANAGER, "Enter"): entry, (NAMESPACE, "Enter"): entry}

    @property
    def running(self) -> int:
        """How many processes that Enter started have not ended."""
        return self._started.total()

    async def close(self) -> None:
        """Follow no process any more; they go on."""
        for follower in self._followers:
            follower.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)

    async def recover(self) -> None:
        """Go on with the processes that an earlier daemon started.  Raises CallError, Disconnected."""
        for origin, process in await self._starter.recover():
            here = origin.bus == self._bus.id
            gone: asyncio.Future[None] | None = None
            if origin.kill_on_disconnect:
                gone = await self._bus.watch(origin.caller) if here else _done()
            self._started[origin.uid] += 1
            self._follow(process, origin, gone)

    async def _enter(self, request: Request) -> Plan:
        found, (argv, fds, given) = self._methods.subject(request)
        assert isinstance(argv, list)  # noqa: S101 - the signature says so, here and below
        assert isinstance(fds, dict)  # noqa: S101
        chosen = options.enter(plain_options(given))  # type: ignore[arg-type]
        program.check(argv, fds, len(request.call.fds), chosen.env, chosen.cwd, tty=chosen.tty)
        caller = request.caller
        self._check_quota(caller)
        who = await helper.run(lambda: _identify(caller, chosen.user), lane="users")
        action = Action.ENTER if who.uid == caller.uid and not chosen.new_privileges else Action.ENTER_AS

        async def run() -> Answer:
            return await self._start(found, tuple(argv), Passed(request.call.fds, fds), chosen, who, caller)

        details = details_of(found) | {
            "user": str(who.uid),
            "program": names.escaped(argv[0], 256) if argv else "",
        }
        return Plan(run, details, action)

    async def _start(
        self,
        found: Namespace,
        argv: tuple[str, ...],
        passed: Passed,
        chosen: EnterOptions,
        who: Identity,
        caller: Caller,
    ) -> Answer:
        gone = await self._bus.watch(caller.name) if chosen.kill_on_disconnect else None
        try:
            self._check_quota(caller)  # again: others may have been started while the question was open
        except LimitsExceeded:
            if gone is not None:
                self._bus.unwatch(caller.name, gone)
            raise
        origin = Origin(
            namespace=found.name,
            inode=found.inode,
            uid=caller.uid,
            caller=caller.name,
            bus=self._bus.id,
            kill_on_disconnect=chosen.kill_on_disconnect,
        )
        self._started[caller.uid] += 1
        namespace = -1
        try:
            namespace = self._registry.open(found)
            process = await self._starter.launch(
                program.Request(
                    namespace=found.name,
                    namespace_fd=namespace,
                    argv=argv,
                    identity=who,
                    env=chosen.env,
                    cwd=chosen.cwd,
                    fds={},
                    passed=passed,
                    tty=chosen.tty,
                    new_privileges=chosen.new_privileges,
                ),
                origin,
            )
        except BaseException:
            self._ended(origin, gone)
            raise
        finally:
            if namespace >= 0:
                os.close(namespace)
        log.info(
            "Process %d of uid %d entered namespace %s for uid %d",
            process.pid,
            who.uid,
            found.name,
            caller.uid,
            extra={"mountns_name": found.name, "mountns_inode": found.inode, "caller_uid": caller.uid},
        )
        pidfd = os.dup(process.pidfd)
        self._follow(process, origin, gone)
        return Answer([process.pid, 0], [pidfd])

    def _check_quota(self, caller: Caller) -> None:
        if caller.uid and self._started[caller.uid] >= MAX_PER_USER:
            raise LimitsExceeded(
                f"You have {MAX_PER_USER} processes inside namespaces, as many as one may have; end one first."
            )

    def _follow(self, process: Running, origin: Origin, gone: asyncio.Future[None] | None) -> None:
        follower = asyncio.ensure_future(self._see_through(process, origin, gone))
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)

    async def _see_through(self, process: Running, origin: Origin, gone: asyncio.Future[None] | None) -> None:
        """Wait until the process has ended, and tell the caller; or end it when the caller has gone."""
        try:
            if gone is not None:
                await asyncio.wait((process.exited, gone), return_when=asyncio.FIRST_COMPLETED)
                if not process.exited.done():
                    log.info("Process %d is killed: its caller has left the bus", process.pid)
                    await process.kill()
            code, status = await asyncio.shield(process.exited)
            if origin.bus == self._bus.id:
                self._bus.signal(
                    names.ROOT_PATH,
                    MANAGER,
                    "Exited",
                    "usii",
                    process.pid,
                    origin.namespace,
                    code,
                    status,
                    destination=origin.caller,
                )
        finally:
            process.close()
            self._ended(origin, gone)

    def _ended(self, origin: Origin, gone: asyncio.Future[None] | None) -> None:
        self._started[origin.uid] -= 1
        if not self._started[origin.uid]:
            del self._started[origin.uid]
        if gone is not None:
            self._bus.unwatch(origin.caller, gone)


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


def _identify(caller: Caller, user: str | None) -> Identity:
    """Who the process is to be: the caller with the groups that he has now, or the user he names.

    May block in NSS: for a helper thread.  Raises NoSuchUser, AccessDenied.
    """
    named = None if user is None else identity.of_user(user)
    if caller.uid == 0:
        return named or identity.of_user("0")
    if named is None or named.uid == caller.uid:
        return identity.of_caller(caller.uid, caller.groups)
    return named
