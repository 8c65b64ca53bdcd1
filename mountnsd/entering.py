# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter: from the call to the process inside, and until it has ended.

Out of scope: how the process is made (launcher.py, transient.py).
"""

import asyncio
import errno
import logging
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from weakref import WeakValueDictionary

from mountnsd import helper, identity, names, options, program, syscalls, waiting
from mountnsd.authority import Action
from mountnsd.bus import Bus, CallError, Disconnected
from mountnsd.callers import Caller
from mountnsd.errors import EnterFailed, LimitsExceeded, NamespaceBusy
from mountnsd.events import Event, tell
from mountnsd.identity import Identity
from mountnsd.interface import MANAGER, NAMESPACE
from mountnsd.methods import Methods, details_of, plain_options
from mountnsd.named import Key, Namespace
from mountnsd.options import EnterOptions
from mountnsd.plan import Answer, Entry, Plan, Request
from mountnsd.program import Passed
from mountnsd.records import Origin
from mountnsd.registry import Registry
from mountnsd.running import Running, Starter
from mountnsd.turns import Turns

log = logging.getLogger(__name__)

MAX_PER_USER = (
    256  # processes that one user but root may have started by Enter and of which something is left
)
# Of one user but root, looks into the user database at a time: one that waits for a server holds a thread.
MAX_LOOKUPS_PER_USER = 2
_PATIENCE = 60.0  # seconds that a process may be on its way: execve(2) of a file on FUSE or NFS may hang


class Entering:
    """The method Enter and the processes that it started."""

    def __init__(
        self, bus: Bus, registry: Registry, methods: Methods, starter: Starter, turns: Turns
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._methods = methods
        self._starter = starter
        self._turns = turns
        self._lookups: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()  # by uid
        self._started: Counter[int] = Counter()  # by the caller's uid
        self._on_their_way: defaultdict[Key, set[asyncio.Task[Running]]] = defaultdict(set)
        self._ending: Counter[Key] = Counter()
        self._followers: set[asyncio.Task[None]] = set()

    def entries(self) -> dict[tuple[str, str], Entry]:
        """This part of the dispatch table."""
        entry = Entry((Action.ENTER, Action.ENTER_AS), self._enter)
        return {(MANAGER, "Enter"): entry, (NAMESPACE, "Enter"): entry}

    @property
    def running(self) -> int:
        """Of how many processes that Enter started something is left."""
        return self._started.total()

    async def close(self) -> None:
        """Follow no process any more; they go on."""
        for follower in self._followers:
            follower.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)

    def recover(self) -> None:
        """Go on with the processes that an earlier daemon started."""
        for origin, process in self._starter.recover():
            self._started[origin.uid] += 1
            self._follow(process, origin, None)

    def entering(self, found: Namespace) -> int:
        """How many processes are on their way into a namespace, and not yet to be seen inside."""
        return len(self._on_their_way.get(found.key, ()))

    @asynccontextmanager
    async def ending(self, found: Namespace) -> AsyncIterator[None]:
        """While a namespace is cleared by force: end who is on the way, and what was entered, and let nobody in."""
        self._ending[found.key] += 1
        try:
            coming = list(self._on_their_way.get(found.key, ()))
            for task in coming:
                task.cancel()
            if coming:
                await asyncio.wait(coming)
            await self._starter.end_all(found)
            yield
        finally:
            self._ending[found.key] -= 1
            if not self._ending[found.key]:
                del self._ending[found.key]

    async def _enter(self, request: Request) -> Plan:
        found, (argv, fds, given) = self._methods.subject(request)
        assert isinstance(argv, list)  # noqa: S101 - the signature says so, here and below
        assert isinstance(fds, dict)  # noqa: S101
        chosen = options.enter(plain_options(given))  # type: ignore[arg-type]
        program.check(argv, fds, len(request.call.fds), chosen.env, chosen.cwd, tty=chosen.tty)
        caller = request.caller
        self._check_quota(caller)
        if caller.uid == 0:  # nobody is asked whether he may
            self._starter.expect()
        who = await self._identify(caller, chosen.user)
        action = Action.ENTER if who.uid == caller.uid and not chosen.new_privileges else Action.ENTER_AS

        async def run() -> Answer:
            return await self._start(found, tuple(argv), Passed(request.call.fds, fds), chosen, who, caller)

        details = details_of(found) | {
            "user": str(who.uid),
            "program": names.escaped(argv[0], 256) if argv else "",
        }
        if chosen.new_privileges:  # what is inside may make him root: a rule for who he is to be must not do
            details |= {"user": "0", "target": str(who.uid), "new_privileges": "yes"}
        return Plan(run, details, action)

    async def _identify(self, caller: Caller, user: str | None) -> Identity:
        """Who the process is to be.  Raises NoSuchUser, AccessDenied."""
        work = partial(_identify, caller, user)
        if caller.uid == 0:
            return await helper.run(work, lane="users")
        slots = self._lookups.setdefault(caller.uid, asyncio.Semaphore(MAX_LOOKUPS_PER_USER))
        async with slots:
            return await helper.run(work, lane="users")

    async def _start(
        self,
        found: Namespace,
        argv: tuple[str, ...],
        passed: Passed,
        chosen: EnterOptions,
        who: Identity,
        caller: Caller,
    ) -> Answer:
        gone = await self._watch(caller.name) if chosen.kill_on_disconnect else None
        origin = Origin(
            namespace=found.name,
            inode=found.inode,
            id=found.id,
            created_usec=found.created_usec,
            uid=caller.uid,
            caller=caller.name,
            bus=self._bus.id,
            kill_on_disconnect=chosen.kill_on_disconnect,
        )
        counted = False
        namespace = -1
        try:
            self._check_quota(caller)  # again: others may have been started while the question was open
            self._started[caller.uid] += 1
            counted = True
            namespace = self._registry.open(found)
            request = program.Request(
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
            )
            process = await self._launch(found, request, origin, gone)
        except BaseException:
            if counted:
                self._ended(origin)
            if gone is not None:
                self._bus.unwatch(origin.caller, gone)
            raise
        finally:
            if namespace >= 0:
                syscalls.close(namespace)
        entered = partial(_tell_entered, process.pid, found, request, caller)
        try:
            pidfd = os.dup(process.pidfd)
        except OSError as error:
            entered()
            await process.kill()
            what = f"Cannot run {names.shown(program.shown(request))} in namespace '{found.name}'"
            raise EnterFailed(what, "dup", error.errno or errno.EIO, "It was ended again.") from error
        finally:
            self._follow(process, origin, gone)
        return Answer([process.pid, 0], [pidfd], told=entered)

    async def _launch(
        self, found: Namespace, request: program.Request, origin: Origin, gone: asyncio.Future[None] | None
    ) -> Running:
        """Start it, unless the caller leaves, the namespace is ended, or it takes too long.

        Raises: EnterFailed, NamespaceBusy.
        """
        if found.key in self._ending:
            raise NamespaceBusy(f"Namespace '{found.name}' is just being cleared; nobody can enter it.")
        # A task of its own, which is not a step of its caller: it takes its own turns, for it forks.
        launch = self._turns.run(origin.uid, self._starter.launch(request, origin))
        launching: asyncio.Task[Running] = asyncio.ensure_future(launch)
        self._on_their_way[found.key].add(launching)
        try:
            await asyncio.wait(
                (launching, gone) if gone is not None else (launching,),
                timeout=_PATIENCE,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not launching.done():
                launching.cancel()
                await asyncio.wait((launching,))
        except asyncio.CancelledError:
            launching.cancel()
            await asyncio.wait((launching,))  # it works with descriptors of ours
            raise
        finally:
            self._on_their_way[found.key].discard(launching)
            if not self._on_their_way[found.key]:
                del self._on_their_way[found.key]
        if launching.cancelled():
            what = f"Cannot run {names.shown(program.shown(request))} in namespace '{found.name}'"
            raise EnterFailed(what, "start", errno.ECANCELED, "It was ended before it ran.")
        return launching.result()

    async def _watch(self, name: str) -> asyncio.Future[None]:
        """As Bus.watch; raises LimitsExceeded where the bus refuses."""
        try:
            return await self._bus.watch(name)
        except CallError as error:
            raise LimitsExceeded(f"The bus does not let us watch you: {error.message}.") from None

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
        """Wait until the process has ended, and tell the caller; end it when he has gone.  See it over."""
        try:
            if (
                origin.kill_on_disconnect and not origin.told and gone is None
            ):  # an earlier daemon watched him
                gone = await self._watch_again(origin)
            if gone is not None:
                await asyncio.wait((process.exited, gone), return_when=asyncio.FIRST_COMPLETED)
                if not process.exited.done():
                    log.info("Process %d is killed: its caller has left the bus", process.pid)
                    await process.kill()
            code, status = await asyncio.shield(process.exited)
            if origin.bus == self._bus.id and process.pid and not origin.told:
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
                self._bus.flush()  # what follows takes as long as systemd took
            if not origin.told:
                _tell_exited(process.pid, origin, code, status)
            process.told()
            process.close()
            await asyncio.shield(process.over)
        except Disconnected:
            pass  # the daemon ends; the next one goes on from here
        finally:
            process.close()
            self._ended(origin)
            if gone is not None:
                self._bus.unwatch(origin.caller, gone)

    async def _watch_again(self, origin: Origin) -> asyncio.Future[None]:
        """Watch the caller of an earlier daemon.  On another bus he is gone, whoever has his name there."""
        if origin.bus != self._bus.id:
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            gone.set_result(None)
            return gone
        async for _ in waiting.patience():
            with suppress(CallError):
                return await self._bus.watch(origin.caller)
        raise AssertionError  # patience has no end

    def _ended(self, origin: Origin) -> None:
        self._started[origin.uid] -= 1
        if not self._started[origin.uid]:
            del self._started[origin.uid]


def _tell_entered(pid: int, found: Namespace, request: program.Request, caller: Caller) -> None:
    tell(
        Event.ENTERED,
        found.name,
        found.inode,
        "Process %d of uid %d entered namespace %s for uid %d",
        pid,
        request.identity.uid,
        found.name,
        caller.uid,
        mountns_pid=pid,
        mountns_uid=request.identity.uid,
        mountns_program=program.shown(request)[:256],
        **caller.fields(),
    )


def _tell_exited(pid: int, origin: Origin, code: int, status: int) -> None:
    """Say how a process ended; codes and statuses as waitid(2) has them."""
    how = "exited with status" if code == os.CLD_EXITED else "was ended by signal"
    tell(
        Event.EXITED,
        origin.namespace,
        origin.inode,
        "Process %s in namespace %s %s %d",
        pid or "of an earlier mountnsd",
        origin.namespace,
        how,
        status,
        mountns_pid=pid,
        mountns_code=code,
        mountns_status=status,
        caller_uid=origin.uid,
    )


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
