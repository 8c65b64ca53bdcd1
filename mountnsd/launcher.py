# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enter: a process inside a namespace, with the right identity.

`launch` answers when the program runs, or with the step that failed.  The way
there is in child.py; here is what happens before the fork and in the parent.

Out of scope: who may (authority.py), who that is (identity.py), and systemd
units: the process is a plain child and lives in the daemon's control group.

Sources: fork(2), execve(2), environ(7), pidfd_open(2), waitid(2), passwd(5).
"""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mountnsd import child, disposal, names, output
from mountnsd.descriptors import MAX_FDS, Descriptors
from mountnsd.errors import EnterFailed, InvalidArgs
from mountnsd.identity import Identity

MAX_FD = 1023  # the highest number a program that uses select(2) can handle
MAX_PATH = 4095  # PATH_MAX without its NUL
# What execve(2) grants however small the stack limit (ARG_MAX), counted as it counts: with each string its NUL
# and a pointer.  No single string can then exceed MAX_ARG_STRLEN, which is as much.
MAX_ARGUMENTS = 128 * 1024
_POINTER = 8

_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USER_PATH = "/usr/local/bin:/usr/bin:/bin"
_REAP_PATIENCE = 1.0  # seconds; one that was killed can sit in the kernel for longer, say for a FUSE server

_HINTS = {
    ("execve", errno.ENOENT): "There is no such program in the namespace, or no interpreter for it.",
    ("execve", errno.EACCES): "It is not executable for the user, or lies on a mount with the option noexec.",
    ("execve", errno.ENOEXEC): "It is no program; a script needs a first line like #!/bin/sh.",
    ("execve", errno.E2BIG): "Pass fewer or shorter arguments and environment variables.",
    ("execve", errno.EAGAIN): "The user has as many processes as his limit allows; end some.",
    ("chdir", errno.ENOENT): "There is no such directory in the namespace; pass another cwd.",
    ("chdir", errno.EACCES): "The directory is looked up as the user; pass a cwd that he may enter.",
    ("TIOCSCTTY", errno.ENOTTY): "Descriptor 0 is no terminal; pass one, or leave out the option tty.",
    ("TIOCSCTTY", errno.EPERM): "The terminal has a session already, or is not readable; pass a new one.",
    ("setns", errno.EPERM): "The daemon lacks CAP_SYS_ADMIN or CAP_SYS_CHROOT.",
    ("setns", errno.EINVAL): "What was opened is no mount namespace.",
    ("fork", errno.EAGAIN): "The daemon has as many processes as its limit allows; end some.",
}
_DEFAULT_HINT = "The daemon's log may say more."


@dataclass(frozen=True, slots=True)
class Passed:
    """Descriptors that a caller passed on: they are never in our own table, and are taken out by the child.

    Arguments: parcel: borrowed; handles: the child's number of each descriptor, to its place in the parcel.
    """

    parcel: Descriptors
    handles: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Request:
    """What to run where, as whom.  `check` has seen to everything that came from a caller.

    Arguments: namespace: the name, for messages and the log; namespace_fd: of it, borrowed; argv: empty for the
        login shell; env: on top of PATH, HOME, USER, LOGNAME and SHELL; cwd: an absolute path inside, or None
        for the home directory of a login shell and / otherwise; fds: the child's number of each descriptor, to
        ours, borrowed; passed: those that came from a caller; tty: descriptor 0 becomes the controlling terminal;
        new_privileges: leave a user who is not root the privileges that setuid programs give.
    """

    namespace: str
    namespace_fd: int
    argv: tuple[str, ...]
    identity: Identity
    env: Mapping[str, str]
    cwd: str | None
    fds: Mapping[int, int]
    tty: bool
    new_privileges: bool
    passed: Passed | None = None

    @property
    def numbers(self) -> set[int]:
        """The numbers of all descriptors that the process is given."""
        return {*self.fds, *(self.passed.handles if self.passed is not None else ())}


def check(
    argv: Sequence[str],
    fds: Mapping[int, int],
    fd_count: int,
    env: Mapping[str, str],
    cwd: str | None,
    *,
    tty: bool = False,
) -> None:
    """See that what came over the bus can be asked of the kernel; nothing has happened when it cannot.

    Arguments: argv, env, cwd, tty: as in `Request`; fds: the child's number of each descriptor, to the index among
        the descriptors that came with the message; fd_count: how many those are.
    Raises: InvalidArgs that names the argument.
    """
    _check_arguments(argv, env)
    if cwd is not None:
        _check_string("cwd", cwd)
        if not cwd.startswith("/") or len(cwd.encode()) > MAX_PATH:
            raise InvalidArgs(f"The option cwd takes an absolute path of at most {MAX_PATH} bytes.")
    if len(fds) > MAX_FDS:
        raise InvalidArgs(f"At most {MAX_FDS} descriptors can be passed, not {len(fds)}.")
    for number, handle in fds.items():
        if not 0 <= number <= MAX_FD:
            raise InvalidArgs(f"The process can have a descriptor 0 to {MAX_FD}, not {number}.")
        if not 0 <= handle < fd_count:
            raise InvalidArgs(
                f"fds maps {number} to handle {handle}, but the message carries {fd_count} descriptors."
            )
    if tty and 0 not in fds:
        raise InvalidArgs("The option tty makes descriptor 0 the controlling terminal; pass it in fds.")


def _check_arguments(argv: Sequence[str], env: Mapping[str, str]) -> None:
    for argument in argv:
        _check_string("argv", argument)
    if argv and not argv[0]:
        raise InvalidArgs("argv begins with an empty string; name a program, or pass none for a login shell.")
    for key, value in env.items():
        _check_string("env", key)
        _check_string("env", value)
        if not key or "=" in key:
            raise InvalidArgs(f"{names.shown(key)} is no name for an environment variable.")
    size = sum(len(text.encode()) + 1 + _POINTER for text in argv)
    size += sum(len(key.encode()) + len(value.encode()) + 2 + _POINTER for key, value in env.items())
    if size > MAX_ARGUMENTS:
        raise InvalidArgs(f"argv and env take {size} bytes together, of at most {MAX_ARGUMENTS}.")


def _check_string(where: str, text: str) -> None:
    if "\0" in text:
        raise InvalidArgs(f"{where} has a string with a NUL in it: {names.shown(text)}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgs(f"{where} has a string that is no UTF-8: {names.shown(text)}.") from None


class Process:
    """A child of ours that was started, until it has been waited for.

    Attributes: pid; pidfd: ours until `close`; exited: (si_code, si_status) as in waitid(2).  A task that may be
        cancelled awaits `asyncio.shield(process.exited)`.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        """Take over `pidfd`, and wait for the process in the running event loop."""
        self.pid = pid
        self.pidfd = pidfd
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        self._reaped = False
        self._closed = False
        self._loop.add_reader(pidfd, self._reap)

    def signal(self, number: int) -> None:
        """Send a signal, pidfd_send_signal(2).  Raises: ProcessLookupError: the process has ended."""
        if self._reaped or self._closed:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Give up the pidfd.  A process that still runs goes on, and is waited for when it ends."""
        if not self._closed:
            self._closed = True
            self._close_if_unused()

    async def end(self) -> None:
        """Kill it and give up the pidfd; wait for it a second, and leave what takes longer to the event loop."""
        with contextlib.suppress(OSError):
            self.signal(signal.SIGKILL)
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

    def _close_if_unused(self) -> None:
        if self._reaped and self._closed:
            os.close(self.pidfd)
            self.pidfd = -1


class Launcher:
    """Starts processes as plain children: without systemd, and where its units are not wanted."""

    async def launch(self, request: Request) -> Process:
        """Start what the request says, and wait until it runs.

        Cancelled, it kills the process.  The borrowed descriptors must stay open until it returns.

        Arguments: request: checked by `check`.
        Raises: EnterFailed: the step, its errno (that of the system call it is named after, or EMFILE, ENFILE,
            EAGAIN and ENOMEM before the fork; ECANCELED when the process was killed on its way), and a hint.
        """
        what = f"Cannot run {names.shown(_program(request))} in namespace '{request.namespace}'"
        with contextlib.ExitStack() as stack:
            try:
                fds = await _all_descriptors(request, stack)
                ours, theirs = socket.socketpair()
            except OSError as error:
                raise _failure(what, "open", error.errno) from error
            stack.enter_context(ours)
            stack.enter_context(theirs)
            ours.setblocking(False)
            plan = _plan(request, fds.numbers, theirs.fileno())
            await disposal.begun()  # so that the child inherits no descriptor of other callers
            try:
                pid = _fork(plan)
            except OSError as error:
                raise _failure(what, "fork", error.errno) from error
            theirs.close()
            process = _hold(pid, what)
            try:
                await _follow(ours, what)
            except BaseException:
                await process.end()
                raise
            if fds.opened is not None:
                fds.opened.started(pid)
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
        stack.callback(os.close, numbers[0])
    absent = [number for number in (1, 2) if number not in request.numbers]
    if not absent:
        return _Descriptors(numbers, None)
    identity = request.identity
    opened = await output.open_for(request.namespace, identity.uid, identity.gid)
    stack.callback(opened.close)
    return _Descriptors(numbers | dict.fromkeys(absent, opened.fd), opened)


def _plan(request: Request, fds: Mapping[int, int], channel: int) -> child.Plan:
    identity = request.identity
    env = {key.encode(): value.encode() for key, value in request.env.items()}
    env = _default_environment(identity) | env
    home, shell = os.fsencode(identity.home), os.fsencode(identity.shell)
    if request.argv:
        argv = [argument.encode() for argument in request.argv]
        programs = _candidates(argv[0], env[b"PATH"])
        directories = [b"/"]
    else:
        argv = [b"-" + shell.rpartition(b"/")[2]]
        programs = [shell]
        directories = [home, b"/"]
    if request.cwd is not None:
        directories = [request.cwd.encode()]
    return child.Plan(
        channel=channel,
        namespace=request.namespace_fd,
        fds=fds,
        parcel=request.passed.parcel.parcel if request.passed is not None else None,
        parcel_size=len(request.passed.parcel) if request.passed is not None else 0,
        handles=request.passed.handles if request.passed is not None else {},
        uid=identity.uid,
        gid=identity.gid,
        groups=identity.groups,
        tty=request.tty,
        no_new_privs=identity.uid != 0 and not request.new_privileges,
        directories=directories,
        directory_needed=request.cwd is not None,
        programs=programs,
        argv=argv,
        env=env,
    )


def _default_environment(identity: Identity) -> dict[bytes, bytes]:
    """As login(1) sets it; nothing of the daemon's own environment."""
    return {
        b"PATH": (_ROOT_PATH if identity.uid == 0 else _USER_PATH).encode(),
        b"HOME": os.fsencode(identity.home),
        b"USER": os.fsencode(identity.name),
        b"LOGNAME": os.fsencode(identity.name),
        b"SHELL": os.fsencode(identity.shell),
    }


def _candidates(program: bytes, path: bytes) -> list[bytes]:
    """Where execvp(3) would look for `program`; an empty entry of PATH is the current directory."""
    if b"/" in program:
        return [program]
    return [os.path.join(directory, program) for directory in path.split(b":")]


def _program(request: Request) -> str:
    return request.argv[0] if request.argv else request.identity.shell


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


def _hold(pid: int, what: str) -> Process:
    """The child as a Process; it waits for our word meanwhile.  Raises: EnterFailed."""
    pidfd = -1
    try:
        pidfd = os.pidfd_open(pid)
        return Process(pid, pidfd)
    except OSError as error:
        if pidfd >= 0:
            os.close(pidfd)
        # It ends soon; but nothing that another process has a hand in may hold up the event loop.
        os.kill(pid, signal.SIGKILL)
        threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
        raise _failure(what, "pidfd_open", error.errno) from error


async def _follow(channel: socket.socket, what: str) -> None:
    """Let the child go on, and return when execve has closed its end of the channel.  Raises: EnterFailed."""
    loop = asyncio.get_running_loop()
    told = b""
    with contextlib.suppress(ConnectionError):  # it has failed already, and says with what
        channel.send(child.START)
    with contextlib.suppress(ConnectionError):  # it ended without reading our word
        while data := await loop.sock_recv(channel, 64):
            told += data
    executing = told.startswith(child.EXECUTING)
    failure = told.removeprefix(child.EXECUTING)
    if failure:
        number, low, high = failure
        raise _failure(what, child.STEPS[number][0], low | high << 8)
    if not executing:
        raise _failure(what, "start", errno.ECANCELED)


def _failure(what: str, step: str, code: int | None) -> EnterFailed:
    code = code or errno.EIO
    return EnterFailed(what, step, code, _HINTS.get((step, code), _DEFAULT_HINT))
