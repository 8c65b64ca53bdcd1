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
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from mountnsd import cgroup, handover, names, program, starter, units
from mountnsd.bus import CallError, Disconnected, Variant
from mountnsd.channel import failure_of, follow
from mountnsd.errors import EnterFailed
from mountnsd.program import Request
from mountnsd.records import Origin, Records
from mountnsd.units import Units

log = logging.getLogger(__name__)
T = TypeVar("T")

# Python's own flags: isolated, and without site-packages.
_STARTER = (sys.executable or "/usr/bin/python3", "-I", "-S", str(Path(starter.__file__).resolve()))
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL when a unit is stopped
_BEGIN = 30.0  # seconds that systemd and the starter may take until the process says who it is
_UCRED = struct.Struct("3i")
_UNKNOWN = (os.CLD_EXITED, 255)  # where nobody can know how a process ended


class UnitProcess:
    """A process that was entered, until its unit has been seen to end.

    Attributes: pid; pidfd: ours until `close`; exited: as of launcher.Process; over: done when the unit is gone.
    """

    def __init__(self, owner: "TransientLauncher", number: str, origin: Origin, pid: int, pidfd: int) -> None:
        """Take over `pidfd` (-1 where the process has ended), and watch over the unit in the running event loop."""
        self.pid = pid
        self.pidfd = pidfd
        self.origin = origin
        self.number = number
        self.unit = units.service_in(origin.namespace, number)
        self._owner = owner
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[tuple[int, int]] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self._running = pidfd >= 0
        self._closed = False
        self._task = asyncio.ensure_future(self._watch())

    async def kill(self) -> None:
        """Send SIGKILL to all that is in the unit."""
        await _tolerant(self._owner.units.kill(self.unit, signal.SIGKILL))

    async def stop(self) -> None:
        """Have the unit stopped: SIGTERM and SIGHUP, then SIGKILL, to all that is in it."""
        await _tolerant(self._owner.units.stop(self.unit))

    def close(self) -> None:
        """Give up the pidfd.  The unit is watched until nothing is left in it."""
        self._closed = True
        self._close_if_unused()

    async def end(self) -> None:
        """Kill it and give up the pidfd; wait for its end a second, and leave what takes longer to the event loop."""
        await self.kill()
        try:
            await asyncio.wait((self.over,), timeout=1.0)
        finally:
            self.close()

    async def forsake(self) -> None:
        """Watch no longer: the next daemon will."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _watch(self) -> None:
        try:
            if self._running:
                await _readable(self.pidfd)
            status = await self._status()
            if not self.exited.done():
                self.exited.set_result(status)
            self._close_if_unused()
            await self._owner.see_off(self)
            self.over.set_result(None)
        except Disconnected:
            pass  # the daemon ends; the next one goes on from here
        except Exception:
            log.exception("The unit %s cannot be watched", self.unit)

    async def _status(self) -> tuple[int, int]:
        """How the main process ended, by systemd's word, which may be a moment late."""
        async for _ in _patience(10.0):
            with contextlib.suppress(CallError):  # it is busy
                main = await self._owner.units.main(self.unit)
                if main is None:
                    break
                if main.code:
                    return main.code, main.status
        log.warning("How the process of %s ended is not known", self.unit)
        return _UNKNOWN

    def _close_if_unused(self) -> None:
        if self._closed and self._task.done() | self.exited.done() and self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class TransientLauncher:
    """Starts processes in units, and finds those that an earlier daemon started.

    Arguments: systemd; records: of this daemon's runtime directory, ours; kept: whether there is a namespace of
        that name.
    """

    def __init__(self, systemd: Units, records: Records, kept: Callable[[str], bool]) -> None:
        self.units = systemd
        self._records = records
        self._kept = kept
        self._processes: dict[str, UnitProcess] = {}
        self._chores: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Watch no unit any more; all go on."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await asyncio.gather(*(process.forsake() for process in self._processes.values()))
        self._records.close()

    async def launch(self, request: Request, origin: Origin) -> UnitProcess:
        """Start what the request says in a unit of its own, and wait until it runs.

        Cancelled, it kills the process.  The borrowed descriptors must stay open until it returns.

        Arguments: request: checked by `program.check`.
        Raises: EnterFailed: the step, its errno, and a hint.
        """
        what = f"Cannot run {names.shown(program.shown(request))} in namespace '{request.namespace}'"
        try:
            number = self._records.write(origin)
        except OSError as error:
            raise failure_of(what, "open", error.errno) from error
        begun = False
        try:
            with contextlib.ExitStack() as stack:
                channel = await self._begin(request, origin, number, what, stack)
                pid, pidfd = await _introduced(channel, what)
                process = UnitProcess(self, number, origin, pid, pidfd)
                self._processes[number] = process
                begun = True
                try:
                    await follow(channel, what)
                except BaseException:
                    await asyncio.shield(process.end())
                    raise
                return process
        finally:
            if not begun:
                self._later(self._abandon(number, origin))

    async def recover(self) -> list[tuple[Origin, UnitProcess]]:
        """Take over the units that an earlier daemon started, those that have ended meanwhile among them.

        What systemd does not answer for is left to the next daemon.  Raises: Disconnected.
        """
        found = []
        for number, origin in self._records.all().items():
            process = await _tolerant(self._adopt(number, origin))
            if process is not None:
                self._processes[number] = process
                found.append((origin, process))
        return found

    async def _adopt(self, number: str, origin: Origin) -> UnitProcess | None:
        unit = units.service_in(origin.namespace, number)
        main = await self.units.main(unit)
        if main is None or not main.pid:
            await self._abandon(number, origin)
            return None
        await self.units.hold(unit)
        return UnitProcess(self, number, origin, main.pid, await self._pidfd(unit, main))

    async def _pidfd(self, unit: str, main: units.Main) -> int:
        """A pidfd of the main process of a unit; -1 where it has ended."""
        if main.code:
            return -1
        try:
            pidfd = os.pidfd_open(main.pid)
        except ProcessLookupError:
            return -1
        again = await self.units.main(unit)
        if again is None or again.code:  # then the pid may be another process's by now
            os.close(pidfd)
            return -1
        return pidfd

    async def end_all(self, namespace: str) -> None:
        """Stop every unit of a namespace, and wait until they are gone, or will not go."""
        ending = [process for process in self._processes.values() if process.origin.namespace == namespace]
        if not ending:
            return
        await asyncio.gather(*(process.stop() for process in ending))
        await asyncio.wait([process.over for process in ending], timeout=2 * _GRACE)

    async def namespace_gone(self, namespace: str) -> None:
        """Stop the unit that stands for the namespace if it is active, so that units bound to it stop as well."""
        keeper = units.keeper_of(namespace)
        if await _tolerant(self.units.active(keeper)):
            await _tolerant(self.units.stop(keeper, "fail"))
        await self._retire_slice(namespace)

    async def see_off(self, process: UnitProcess) -> None:
        """Take the unit of a process away once nothing is left in it."""
        async for _ in _patience():
            state = await _tolerant(self.units.sub_state(process.unit))
            if state == "running":  # the main process has left others behind
                group = await _tolerant(self.units.control_group(process.unit))
                with contextlib.suppress(OSError):
                    await cgroup.emptied(group or "")
            elif state in ("exited", "failed", "dead"):
                break
        self._processes.pop(process.number, None)
        await self._abandon(process.number, process.origin)
        if not self._kept(process.origin.namespace):
            await self._retire_slice(process.origin.namespace)

    async def _abandon(self, number: str, origin: Origin) -> None:
        """Stop a unit, if it is there, and forget it."""
        unit = units.service_in(origin.namespace, number)
        await _tolerant(self.units.stop(unit))
        await _tolerant(self.units.reset(unit))
        await _tolerant(self.units.release(unit))
        self._records.remove(number)

    async def _retire_slice(self, namespace: str) -> None:
        """Have systemd forget the slice of a namespace that is gone, if nothing is left in it."""
        name = units.slice_of(namespace)
        if not await _tolerant(self.units.active(name)):
            return
        group = await _tolerant(self.units.control_group(name, units.SLICE))
        try:
            empty = not group or not cgroup.populated(group)
        except FileNotFoundError:
            empty = True
        except OSError:
            empty = False
        if empty and not self._kept(namespace):
            await _tolerant(self.units.stop(name, "fail"))

    async def _begin(
        self, request: Request, origin: Origin, number: str, what: str, stack: contextlib.ExitStack
    ) -> socket.socket:
        """Start the unit and hand the plan over; returns our end of the channel.  Raises EnterFailed."""
        try:
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            sending, taking = socket.socketpair()
            stack.enter_context(sending)
            stack.enter_context(taking)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            fds = dict(request.fds)
            if 0 not in request.numbers:
                fds[0] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
                stack.callback(os.close, fds[0])
            stdin = os.dup(taking.fileno())
        except OSError as error:
            raise failure_of(what, "open", error.errno) from error
        kept = tuple(fd for fd in (1, 2) if fd not in request.numbers)
        plan = program.plan(request, fds, theirs.fileno())
        header, data, sent = handover.pack(plan, kept)
        try:
            unit = units.service_in(origin.namespace, number)
            await self.units.start(unit, _properties(request, origin, bool(kept)), [stdin])
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
                handover.send_header(sending, header, sent)
                await asyncio.get_running_loop().sock_sendall(sending, data)
        except (OSError, TimeoutError) as error:
            code = error.errno if isinstance(error, OSError) and error.errno else errno.ETIMEDOUT
            raise failure_of(what, "sendmsg", code) from error
        theirs.close()
        return ours

    def _later(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def _properties(request: Request, origin: Origin, journal: bool) -> dict[str, Variant]:
    """What is in the unit.  The first handle is the starter's standard input."""
    uid = request.identity.uid
    output = "journal" if journal else "null"
    fields = {
        "MOUNTNS_NAME": origin.namespace,
        "MOUNTNS_INODE": str(origin.inode),
        "CALLER_UID": str(origin.uid),
    }
    return {
        "Description": Variant("s", f"Process of uid {uid} in mount namespace {origin.namespace}"),
        "Slice": Variant("s", units.slice_of(origin.namespace)),
        "Type": Variant("s", "exec"),
        # "true": whatever its exit status, it is no failure of the system's.
        "ExecStart": Variant("a(sasb)", [[_STARTER[0], list(_STARTER), True]]),
        "ExitType": Variant("s", "cgroup"),
        "RemainAfterExit": Variant("b", True),
        "StandardInputFileDescriptor": Variant("h", 0),
        "StandardOutput": Variant("s", output),
        "StandardError": Variant("s", output),
        "SyslogIdentifier": Variant("s", f"mountns-{origin.namespace}"),
        # A line of a program's that begins with <0> is no emergency.
        "SyslogLevelPrefix": Variant("b", False),
        "LogExtraFields": Variant("aay", [f"{key}={value}".encode() for key, value in fields.items()]),
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
            await _readable(channel.fileno())
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
        return pid, os.pidfd_open(pid)
    except TimeoutError as error:
        raise failure_of(what, "start", errno.ETIMEDOUT) from error
    except OSError as error:
        raise failure_of(what, "pidfd_open", error.errno) from error


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _patience(most: float | None = None) -> AsyncIterator[None]:
    """Times to look again, ever further apart: at once, then after 1 ms up to 0.5 s; for `most` seconds in all."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    pause = 0.001
    while most is None or loop.time() < start + most:
        yield
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.5)


async def _tolerant(asked: Awaitable[T]) -> T | None:
    """What systemd answers, or None, logged, where it refuses."""
    try:
        return await asked
    except CallError as error:
        log.warning("systemd refuses: %s", names.shown(str(error), 300))
        return None
