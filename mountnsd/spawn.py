# SPDX-License-Identifier: LGPL-2.1-or-later
"""The short way into a namespace: for a program of root's, of whom nothing has to be changed.

A fork copies the whole interpreter, which is most of what it costs to start a
process (child.py).  posix_spawn(3) copies nothing: the new process uses our
memory until it executes the program, and only one thread waits for that.  But
it can do little on the way.  So that thread enters the namespace and makes
ready what a process inherits of a thread: directory, umask, descriptors,
keyring, capabilities.  It is not for other users: for the moment that it takes
to spawn, a thread of ours would be one that they may send signals to.

What fails is tried again by the long way, which knows what it was.

Out of scope: the child's further life (launcher.py), and all that child.py can do and this cannot: another user, a
terminal, a directory, priorities to be taken back.

Sources: posix_spawn(3), vfork(2), unshare(2) (CLONE_FILES), unix(7) (MSG_PEEK with SCM_RIGHTS), credentials(7),
proc_pid_task(5) (children).
"""

import _thread
import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import threading

from mountnsd import becoming, channel, child, passing, program, room, syscalls
from mountnsd.program import Request

_FAILED = 0  # for a pid
_SIZE = 4  # bytes of a pid, as the thread sends it
_ALL = signal.valid_signals()
# An execve that failed so says only that the next directory of PATH is to be tried, as in execvp(3).
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)


def _suits(plan: child.Plan) -> bool:
    """Whether the process would differ from us in nothing that the short way cannot give it.

    Changes our soft limit of descriptors to that of the process where it can.  Raises: OSError.
    """
    return (
        plan.uid == plan.gid == 0
        and not (plan.tty or plan.no_new_privs or plan.clean)
        and not plan.directory_needed
        and plan.directories[0] == b"/"
        and {*os.getresuid(), *os.getresgid()} == {0}
        and becoming.get_securebits() == 0
        and signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL  # else a pid need not stay its own
        and os.sched_getscheduler(0) == os.SCHED_OTHER
        and os.getpriority(os.PRIO_PROCESS, 0) == 0
        and _oom_score_adj() == b"0\n"
        and room.be_usual(plan.channel)
    )


def begin(request: Request, fds: dict[int, int]) -> "Spawning | None":
    """Begin to spawn what a request says; None where the long way has to be taken.

    Arguments: fds: the program's number of each descriptor, to ours.
    Raises: OSError: there is no room for it.
    """
    ours, theirs = socket.socketpair()
    try:
        plan = program.plan(request, fds, theirs.fileno())
        if _suits(plan):
            ours.setblocking(False)
            return Spawning(plan, ours, theirs)
    except BaseException:
        _close(ours, theirs)
        raise
    _close(ours, theirs)
    return None


def _close(*ends: socket.socket) -> None:
    for end in ends:
        channel.close(end)


def _oom_score_adj() -> bytes:
    place = os.open("/proc/self/oom_score_adj", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(place, 16)
    finally:
        syscalls.close(place)


class Spawning:
    """A thread that enters a namespace and spawns a program there."""

    def __init__(self, plan: child.Plan, ours: socket.socket, theirs: socket.socket) -> None:
        """Start the thread.

        Arguments: plan: this one's alone; its descriptors stay open until `pid` has returned, or `give_up` was
            called; ours, theirs: the ends of its channel, not blocking, which this takes over.
        Raises: OSError: EAGAIN where there is no room for a thread.
        """
        self._ours = ours
        self._theirs = theirs
        self._thread = 0
        self._given_up = False
        try:
            # Not by threading.Thread, whose start waits for the thread to say that it runs.
            _thread.start_new_thread(self._run, (plan,))
        except RuntimeError:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    async def pid(self) -> int | None:
        """The process, a child of ours that executes the program; None where the long way has to be tried.

        To be asked once.
        """
        try:
            told = await asyncio.get_running_loop().sock_recv(self._ours, _SIZE)
        finally:
            _close(self._ours, self._theirs)
        pid = int.from_bytes(told, "little")
        if pid != _FAILED and not room.is_usual():  # others needed more meanwhile
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, child.usual_descriptors())
        return pid or None

    def give_up(self) -> None:
        """Have no process started if there is none yet, and else kill it: its program may lie where nobody answers.

        `pid` then says when that is done.  On a kernel that does not list the children of a thread nobody is killed.
        """
        self._given_up = True
        with contextlib.suppress(OSError):
            place = os.open(f"/proc/self/task/{self._thread}/children", os.O_RDONLY | os.O_CLOEXEC)
            try:
                children = os.read(place, 64).split()
            finally:
                syscalls.close(place)
            for pid in children:  # one at most, and nobody waits for it yet: its pid is its own
                os.kill(int(pid), signal.SIGKILL)

    def _run(self, plan: child.Plan) -> None:
        """What the thread does.  Nothing of ours that has a descriptor may be used once the table is its own."""
        pid = _FAILED
        # Whatever it is: a traceback would open files, by path and inside.
        with contextlib.suppress(BaseException):
            # A handler of ours would write to the event loop's descriptor, whose number means another one here.
            signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
            self._thread = threading.get_native_id()
            syscalls.unshare(syscalls.CLONE_FS | syscalls.CLONE_FILES)
            if not self._given_up:  # and so what is open now is what was
                _make_ready(plan)
                pid = _execute(plan)
        with contextlib.suppress(OSError):  # the daemon ends; what was started goes on
            os.write(plan.channel, pid.to_bytes(_SIZE, "little"))


def _make_ready(plan: child.Plan) -> None:
    """Be as the process is to be, in all that a thread has for itself.  Raises OSError."""
    if plan.parcel is not None:
        sent = passing.unpack(plan.parcel, plan.parcel_size, keep=True)  # the long way may need it
        plan.fds = {**plan.fds, **{target: sent[handle] for target, handle in plan.handles.items()}}
        plan.parcel = None
    child.arrange_descriptors(plan)
    os.umask(child.UMASK)
    child.leave_keyring(plan)
    becoming.clear_ambient_capabilities()
    becoming.setns(plan.namespace, becoming.CLONE_NEWNS)
    becoming.close(plan.namespace)
    syscalls.set_groups_of_thread(plan.groups)


def _execute(plan: child.Plan) -> int:
    """Spawn the first program that can be executed.  Raises OSError."""
    for path in plan.programs:
        try:
            return syscalls.posix_spawn(path, plan.argv, plan.env)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
