# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter under systemd: each process is the main process of a transient unit in the slice of its namespace.

So it has nothing of the daemon's sandbox, and outlives the daemon.  systemd keeps its exit status until we have
seen it: the unit stays when all of its processes have ended, and we take it away.

Out of scope: what the process does on its way (starter.py, child.py), who may (authority.py).

Sources: org.freedesktop.systemd1(5) (StartTransientUnit), systemd.service(5) (ExitType=, RemainAfterExit=),
systemd.kill(5), unix(7) (SCM_CREDENTIALS).
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Coroutine

from mountnsd import bundle, cgroup, handover, names, program, starter, syscalls, units, waiting
from mountnsd.bus import CallError, Disconnected, Variant
from mountnsd.channel import close, failure_of, follow, pair
from mountnsd.errors import EnterFailed
from mountnsd.headstart import HeadStart
from mountnsd.named import Namespace
from mountnsd.program import Request
from mountnsd.records import Origin, Records
from mountnsd.unitprocess import UnitProcess
from mountnsd.units import Units

log = logging.getLogger(__name__)

_GRACE = 5.0  # seconds between SIGTERM and SIGKILL when a unit is stopped
_BEGIN = 20.0  # seconds that systemd and the starter may take until the process says who it is
_UCRED = struct.Struct("3i")


class TransientLauncher:
    """Starts processes in units, and finds those that an earlier daemon started.

    Arguments: systemd; records: of this daemon's runtime directory, ours; kept: whether there is a namespace of
        that name.
    """

    def __init__(self, systemd: Units, records: Records, kept: Callable[[str], bool]) -> None:
        self._units = systemd
        self._records = records
        self._kept = kept
        self._processes: set[UnitProcess] = set()
        self._chores: set[asyncio.Task[None]] = set()
        self._head_start = HeadStart()
        self._code = bundle.made()

    async def close(self) -> None:
        """Watch no unit any more; all go on."""
        await self._head_start.close()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await asyncio.gather(*(process.forsake() for process in self._processes))
        self._records.close()

    def expect(self) -> None:
        """Begin to wait for what systemd will wait for."""
        self._head_start.coming()

    async def launch(self, request: Request, origin: Origin) -> UnitProcess:
        """Start what the request says in a unit of its own, and wait until it runs.

        Cancelled, it kills the process.  The borrowed descriptors must stay open until it returns.

        Arguments: request: checked by `program.check`.
        Raises: EnterFailed: the step, its errno, and a hint.
        """
        what = f"Cannot run {names.shown(program.shown(request))} in namespace '{request.namespace}'"
        self._head_start.coming()
        try:
            number = self._records.write(origin)
        except OSError as error:
            raise failure_of(what, "open", error.errno) from error
        process = None
        try:
            with contextlib.ExitStack() as stack:
                channel = await self._begin(request, origin, number, what, stack)
                pid, pidfd = await _introduced(channel, what)
                process = self._look_after(
                    UnitProcess(self._units, self._records, number, origin, pid, pidfd)
                )
                try:
                    await follow(channel, what)
                except BaseException:
                    await asyncio.shield(process.end())
                    raise
                return process
        finally:
            if process is None:  # there may be a unit, or may come to be one
                self._look_after(UnitProcess(self._units, self._records, number, origin, abandoned=True))

    def recover(self) -> list[tuple[Origin, UnitProcess]]:
        """Take over the units that an earlier daemon started, those that have ended meanwhile among them."""
        self._do(self._suit())
        return [
            (origin, self._look_after(UnitProcess(self._units, self._records, number, origin)))
            for number, origin in self._records.all().items()
        ]

    async def end_all(self, namespace: Namespace) -> None:
        """Stop every unit of a namespace, and wait until they are gone, or will not go."""
        ending = [process for process in self._processes if process.origin.is_in(namespace)]
        if ending:
            stopping = [asyncio.ensure_future(process.stop()) for process in ending]
            await asyncio.wait([process.over for process in ending], timeout=2 * _GRACE)
            for order in stopping:
                order.cancel()

    async def namespace_gone(self, namespace: str) -> None:
        """Stop the unit that stands for the namespace if it is active, so that units bound to it stop as well."""
        if not self._kept(namespace):  # stopping it would end the one that has the name by now
            await self._units.stop_if_active(names.keeper_of(namespace))
        await self._retire_slice(namespace)

    def _look_after(self, process: UnitProcess) -> UnitProcess:
        self._processes.add(process)
        process.over.add_done_callback(lambda _: self._forget(process))
        return process

    def _forget(self, process: UnitProcess) -> None:
        self._processes.discard(process)
        if not self._kept(process.origin.namespace):
            self._do(self._tidy(process.origin.namespace))

    def _do(self, work: Coroutine[None, None, None]) -> None:
        """Have it done meanwhile, unless we end first."""
        chore = asyncio.ensure_future(work)
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    async def _suit(self) -> None:
        """Have head starts suit this systemd, which is no loss where it does not answer."""
        with contextlib.suppress(CallError, Disconnected):
            self._head_start.suit(await self._units.version())

    async def _tidy(self, namespace: str) -> None:
        """As `_retire_slice`, which is no loss where it fails."""
        with contextlib.suppress(CallError, Disconnected):
            await self._retire_slice(namespace)

    async def _retire_slice(self, namespace: str) -> None:
        """Have systemd forget the slice of a namespace that is gone, if nothing is left in it.  Raises CallError."""
        name = names.slice_of(namespace)
        if not await self._units.active(name):
            return
        try:
            group = await self._units.control_group(name, units.SLICE)
            empty = not group or not cgroup.populated(group)
        except OSError:
            empty = False
        if empty and not self._kept(namespace):
            await self._units.stop_if_active(name)

    async def _begin(
        self, request: Request, origin: Origin, number: str, what: str, stack: contextlib.ExitStack
    ) -> socket.socket:
        """Start the unit and hand the plan over; returns our end of the channel.  Raises EnterFailed."""
        try:
            ours, theirs = pair(stack)
            sending, taking = pair(stack)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            fds = dict(request.fds)
            if 0 not in request.numbers:
                fds[0] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
                stack.callback(syscalls.close, fds[0])
        except OSError as error:
            raise failure_of(what, "open", error.errno) from error
        kept = tuple(fd for fd in (1, 2) if fd not in request.numbers)
        plan = program.plan(request, fds, theirs.fileno())
        header, data, sent = handover.pack(plan, kept)
        try:
            unit = names.service_in(origin.namespace, number)
            # Ours no more: that nobody has that end is how we see that nothing was started.
            stdin = taking.detach()
            await self._units.start(unit, _properties(request, origin, bool(kept)), [stdin])
            self._head_start.ordered()
        except CallError as error:
            raise EnterFailed(
                what,
                "StartTransientUnit",
                errno.ECANCELED,
                f"systemd says: {names.shown(error.message, 300)}",
            ) from error
        for sock in (ours, sending):
            sock.setblocking(False)
        try:
            async with asyncio.timeout(_BEGIN):
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(sending, self._code)
                handover.send_header(sending, header, sent)
                await loop.sock_sendall(sending, data)
        except (OSError, TimeoutError) as error:
            code = error.errno if isinstance(error, OSError) and error.errno else errno.ETIMEDOUT
            raise failure_of(what, "sendmsg", code) from error
        close(theirs)
        return ours


def _properties(request: Request, origin: Origin, journal: bool) -> dict[str, Variant]:
    """What is in the unit.  The first handle is the starter's standard input.

    No LogExtraFields=: of each unit that had some, systemd (up to 257 at least) leaves a file in /run.
    """
    uid = request.identity.uid
    output = "journal" if journal else "null"
    return {
        "Description": Variant("s", f"Process of uid {uid} in mount namespace {origin.namespace}"),
        "Slice": Variant("s", names.slice_of(origin.namespace)),
        "Type": Variant("s", "exec"),
        # "true": whatever its exit status, it is no failure of the system's.
        "ExecStart": Variant("a(sasb)", [[starter.COMMAND[0], list(starter.COMMAND), True]]),
        "ExitType": Variant("s", "cgroup"),
        "RemainAfterExit": Variant("b", True),
        "StandardInputFileDescriptor": Variant("h", 0),
        "StandardOutput": Variant("s", output),
        "StandardError": Variant("s", output),
        "SyslogIdentifier": Variant("s", f"mountns-{origin.namespace}"),
        # A line of a program's that begins with <0> is no emergency.
        "SyslogLevelPrefix": Variant("b", False),
        # Shells do not end by SIGTERM.
        "SendSIGHUP": Variant("b", True),
        "TimeoutStopUSec": Variant("t", int(_GRACE * 1_000_000)),
        "AddRef": Variant("b", True),
        "OOMPolicy": Variant("s", "continue"),
    }


async def _introduced(channel: socket.socket, what: str) -> tuple[int, int]:
    """The pid and a pidfd of the process at the other end, which waits for our word.  Raises EnterFailed."""
    try:
        async with asyncio.timeout(_BEGIN):
            await waiting.readable(channel.fileno())
        hello, ancillary, _, _ = channel.recvmsg(len(starter.HELLO), socket.CMSG_SPACE(_UCRED.size))
        pid, uid, _ = next(
            (
                _UCRED.unpack(content)
                for level, kind, content in ancillary
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
            ),
            (0, -1, -1),
        )
        if hello != starter.HELLO or uid != 0 or pid <= 0:
            raise failure_of(what, "start", errno.ECANCELED)
        pidfd = os.pidfd_open(pid)
    except TimeoutError as error:
        raise failure_of(what, "start", errno.ETIMEDOUT) from error
    except OSError as error:
        raise failure_of(what, "pidfd_open", error.errno) from error
    # As long as the other end is open the process lives that said its pid: then it was its.
    code: int | None = errno.ECANCELED
    try:
        channel.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return pid, pidfd
    except OSError as error:
        code = error.errno
    syscalls.close(pidfd)
    raise failure_of(what, "start", code)
