# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter: a process inside a namespace, with the right identity.

`launch` answers when the program runs, or with the step that failed.  The ways
there are in child.py, for all, and in spawn.py, for most of root's; here is
what happens before and in the parent.

The process is a plain child, in the daemon's control group and with the
daemon's sandbox: for systems without systemd.  Out of scope: who may
(authority.py), who that is (identity.py), units of systemd (transient.py).

Sources: fork(2), execve(2), environ(7), pidfd_open(2), waitid(2), passwd(5).
"""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import threading
from dataclasses import dataclass

from mountnsd import channel, child, disposal, names, output, program, spawn, syscalls
from mountnsd.channel import failure_of, follow
from mountnsd.named import Namespace
from mountnsd.program import Request
from mountnsd.records import Origin

_REAP_PATIENCE = 1.0  # seconds; one that was killed can sit in the kernel for longer, say for a FUSE server


class Process:
    """A child of ours that was started, until it has been waited for.

    Attributes: pid; pidfd: ours until `close`; exited: (si_code, si_status) as in waitid(2); over: done with it.  A
        task that may be cancelled awaits `asyncio.shield(process.exited)`.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        """Take over `pidfd`, and wait for the process in the running event loop."""
        self.pid = pid
        self.pidfd = pidfd
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._reaped = False
        self._closed = False
        self._loop.add_reader(pidfd, self._reap)

    def signal(self, number: int) -> None:
        """Send a signal, pidfd_send_signal(2).  Raises: ProcessLookupError: the process has ended."""
        if self._reaped or self._closed:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        signal.pidfd_send_signal(self.pidfd, number)

    def told(self) -> None:
        """Nothing: another daemon could not tell."""

    def close(self) -> None:
        """Give up the pidfd.  A process that still runs goes on, and is waited for when it ends."""
        if not self._closed:
            self._closed = True
            self._close_if_unused()

    async def kill(self) -> None:
        """Send SIGKILL; harmless once it has ended."""
        with contextlib.suppress(OSError):
            self.signal(signal.SIGKILL)

    async def end(self) -> None:
        """Kill it and give up the pidfd; wait for it a second, and leave what takes longer to the event loop."""
        await self.kill()
        try:
            await asyncio.wait((self.exited,), timeout=_REAP_PATIENCE)
        finally:
            self.close()

    def _reap(self) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # somebody else waited for it, or SIGCHLD is ignored: nobody can know
            status = (os.CLD_EXITED, 255)
        else:
            if result is None:
                return
            status = (result.si_code, result.si_status)
        self._reaped = True
        self._loop.remove_reader(self.pidfd)
        self._close_if_unused()
        if not self.exited.done():
            self.exited.set_result(status)
        if not self.over.done():
            self.over.set_result(None)

    def _close_if_unused(self) -> None:
        if self._reaped and self._closed:
            syscalls.close(self.pidfd)
            self.pidfd = -1


class Launcher:
    """Starts processes as plain children: without systemd, and where its units are not wanted."""

    def expect(self) -> None:
        """Nothing: there is nothing to wait for."""

    def recover(self) -> list[tuple[Origin, Process]]:
        """None: what was the child of an earlier daemon is nobody's now."""
        return []

    async def end_all(self, namespace: Namespace) -> None:
        """Nothing: that the processes belong together, only their mount namespace tells."""

    async def namespace_gone(self, namespace: str) -> None:
        """Nothing: there is no unit that stands for it."""

    async def close(self) -> None:
        """Nothing: what was started goes on."""

    async def launch(self, request: Request, _origin: Origin | None = None) -> Process:
        """Start what the request says, and wait until it runs.

        Cancelled, it kills the process.  The borrowed descriptors must stay open until it returns.

        Arguments: request: checked by `check`.
        Raises: EnterFailed: the step, its errno (that of the system call it is named after, or EMFILE, ENFILE,
            EAGAIN and ENOMEM before the fork; ECANCELED when the process was killed on its way), and a hint.
        """
        what = f"Cannot run {names.shown(program.shown(request))} in namespace '{request.namespace}'"
        with contextlib.ExitStack() as stack:
            try:
                fds = await _all_descriptors(request, stack)
            except OSError as error:
                raise failure_of(what, "open", error.errno) from error
            process = await _spawned(request, fds.numbers, what) or await _forked(request, fds.numbers, what)
            if fds.opened is not None:
                fds.opened.started(process.pid)
            return process


@dataclass(frozen=True, slots=True)
class _Descriptors:
    numbers: dict[int, int]
    opened: output.Output | None


async def _all_descriptors(request: Request, stack: contextlib.ExitStack) -> _Descriptors:
    """The request's descriptors and what stands in for an absent 0, 1 or 2; what is opened here ends with `stack`."""
    numbers = dict(request.fds)
    if 0 not in request.numbers:
        numbers[0] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        stack.callback(syscalls.close, numbers[0])
    absent = [number for number in (1, 2) if number not in request.numbers]
    if not absent:
        return _Descriptors(numbers, None)
    identity = request.identity
    opened = await output.open_for(request.namespace, identity.uid, identity.gid)
    stack.callback(opened.close)
    return _Descriptors(numbers | dict.fromkeys(absent, opened.fd), opened)


async def _spawned(request: Request, fds: dict[int, int], what: str) -> Process | None:
    """The process by the short way, where that is for it; None where it is not, or failed.

    Raises: EnterFailed: it cannot be held.
    """
    await disposal.begun()  # so that the child inherits no descriptor of other callers
    try:
        spawning = spawn.begin(request, fds)
    except OSError:
        return None
    if spawning is None:
        return None
    try:
        started = await spawning.started
    except asyncio.CancelledError:
        late = spawning.give_up()
        late.add_done_callback(_end_late)
        await asyncio.wait((late,), timeout=_REAP_PATIENCE)
        raise
    if started is None:
        return None
    pid, pidfd = started
    return _hold(pid, what, pidfd)


def _end_late(starting: asyncio.Future[tuple[int, int] | None]) -> None:
    """End and wait for what nobody waited to see started."""
    started = None if starting.cancelled() else starting.result()
    if started is not None:
        pid, pidfd = started
        if pidfd >= 0:
            syscalls.close(pidfd)
        _end_unheld(pid)


async def _forked(request: Request, fds: dict[int, int], what: str) -> Process:
    """The process by the way that is for all.  Raises EnterFailed."""
    with contextlib.ExitStack() as stack:
        try:
            ours, theirs = channel.pair(stack)
        except OSError as error:
            raise failure_of(what, "open", error.errno) from error
        ours.setblocking(False)
        await disposal.begun()  # so that the child inherits no descriptor of other callers
        try:
            pid = _fork(program.plan(request, fds, theirs.fileno()))
        except OSError as error:
            raise failure_of(what, "fork", error.errno) from error
        channel.close(theirs)
        process = _hold(pid, what)
        try:
            await follow(ours, what)
        except BaseException:
            await process.end()
            raise
        return process


def _fork(plan: child.Plan) -> int:
    """Fork a process that carries out `plan`, and return its pid.

    Raises: OSError: EAGAIN, ENOMEM, fork(2).
    """
    # Until the child has its own dispositions a signal to it would run our handlers, which write to a socket
    # that we read.  And a finalizer that a collection runs there could unregister what our epoll instance,
    # which is shared, waits for.
    collecting = gc.isenabled()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        gc.disable()
        pid = os.fork()
        if pid == 0:
            try:
                child.run(plan)
            finally:
                os._exit(127)
        return pid
    finally:
        if collecting:
            gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _hold(pid: int, what: str, pidfd: int = -1) -> Process:
    """The child as a Process; a forked one waits for our word meanwhile.

    Arguments: pidfd: ours, -1 where there is none yet.
    Raises: EnterFailed.
    """
    try:
        pidfd = os.pidfd_open(pid) if pidfd < 0 else pidfd
        return Process(pid, pidfd)
    except OSError as error:
        if pidfd >= 0:
            syscalls.close(pidfd)
        _end_unheld(pid)
        raise failure_of(what, "pidfd_open", error.errno) from error


def _end_unheld(pid: int) -> None:
    """Kill and wait for a child of which there is no pidfd."""
    os.kill(pid, signal.SIGKILL)
    # It ends soon; but nothing that another process has a hand in may hold up the event loop.
    threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
