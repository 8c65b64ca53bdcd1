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
import signal
import socket
import threading

from mountnsd import becoming, channel, child, passing, program, room, syscalls
from mountnsd.program import Request

MOST = 32  # programs at a time: each keeps the thread that spawned it
_ALL = signal.valid_signals()
_MOMENT = 0.05  # seconds that the daemon keeps to the usual limit of descriptors at most
_GO_ON = (*child.TRY_NEXT, errno.EACCES)

_threads: set[int] = set()  # that spawn, or keep what they spawned


def begin(request: Request, fds: dict[int, int]) -> "Spawning | None":
    """Begin to spawn what a request says; None where the long way has to be taken.

    Arguments: fds: the program's number of each descriptor, to ours.
    Raises: OSError: there is no room for it.
    """
    with contextlib.ExitStack() as stack:
        ours, theirs = channel.pair(stack)
        plan = program.plan(request, fds, theirs.fileno())
        if not (_suits(plan) and room.narrow()):
            return None
        spawning = Spawning(plan, ours, theirs)
        stack.pop_all()  # they are its own
        return spawning


def _suits(plan: child.Plan) -> bool:
    """Whether the process would differ from us in nothing that the short way cannot give it.  Raises: OSError."""
    return (
        syscalls.CAN_SPAWN
        and len(_threads) < MOST
        and plan.uid == plan.gid == 0
        and not (plan.tty or plan.no_new_privs or plan.clean)
        and not plan.directory_needed
        and plan.directories[0] == b"/"
        and {*os.getresuid(), *os.getresgid()} == {0}
        and becoming.get_securebits() == 0
        and signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL  # else a pid need not stay its own
        and os.sched_getscheduler(0) == os.SCHED_OTHER
        and os.getpriority(os.PRIO_PROCESS, 0) == 0
        and syscalls.beginning("/proc/self/oom_score_adj", 16) == b"0\n"
    )


class Spawning:
    """A thread that enters a namespace, spawns a program there, leaves, and is its parent until it ends.

    Attributes: started: the process, a child of ours that executes the program: its pid, and a pidfd for who asks, -1
        where there is no room for one; None where the long way has to be tried.  Who is cancelled gives up.
    """

    def __init__(self, plan: child.Plan, ours: socket.socket, theirs: socket.socket) -> None:
        """Start the thread, and wait until it has a table of descriptors of its own.

        Until then the event loop must not go on: what it receives for others would be in that table, too.

        Arguments: plan: this one's alone; ours, theirs: the ends of its channel, which this takes over.
        Raises: OSError: EAGAIN where there is no room for a thread or a table.
        """
        self._loop = asyncio.get_running_loop()
        self._ours = ours
        self._thread = 0
        self._pid: int | None = None  # 0: none could be spawned
        self._given_up = False
        self._has_table = False
        self._apart = _thread.allocate_lock()
        self._apart.acquire()
        try:
            # Not by threading.Thread, whose start waits for the thread to say that it runs.
            _thread.start_new_thread(self._run, (plan,))
            self._apart.acquire()
        except RuntimeError:
            pass
        if not self._has_table:
            room.widen()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        channel.close(theirs)  # so that the end of the thread can be seen
        self._narrow: asyncio.TimerHandle | None = self._loop.call_later(_MOMENT, self._widen)
        self.started: asyncio.Future[tuple[int, int] | None] = self._loop.create_future()
        self._loop.add_reader(ours.fileno(), self._heard)

    def _widen(self) -> None:
        if self._narrow is not None:
            self._narrow.cancel()
            self._narrow = None
            room.widen()

    def _heard(self) -> None:
        """The thread has said something, or has ended: what it spawned is known."""
        self._loop.remove_reader(self._ours.fileno())
        if self._narrow is None and self._pid:
            room.make_usual(self._pid)
        self._widen()
        channel.close(self._ours)  # so that there is a number for the pidfd
        if not self._pid:
            started = None
        else:
            try:
                started = self._pid, os.pidfd_open(self._pid)
            except OSError:
                started = self._pid, -1
        if not self.started.done():
            self.started.set_result(started)

    def give_up(self) -> asyncio.Future[tuple[int, int] | None]:
        """Have no process started if there is none yet, and else kill it: its program may lie where nobody answers.

        On a kernel that does not list the children of a thread nobody is killed.  Returns: as `started`, when that
        is done.
        """
        self._given_up = True
        with contextlib.suppress(OSError):
            for pid in self._children():
                pidfd = os.pidfd_open(pid)
                try:
                    if pid in self._children():
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    syscalls.close(pidfd)
        if self.started.cancelled():
            self.started = self._loop.create_future()
        return self.started

    def _children(self) -> list[int]:
        children = syscalls.beginning(f"/proc/self/task/{self._thread}/children", 4096)
        return [int(pid) for pid in children.split()]

    def _run(self, plan: child.Plan) -> None:
        """What the thread does.  Nothing of ours that has a descriptor may be used once the table is its own."""
        pid = 0
        left = False
        # Whatever it is: a traceback would open files, by path and inside.
        with contextlib.suppress(BaseException):
            try:
                self._thread = threading.get_native_id()
                _threads.add(self._thread)
                # A handler of ours would write to the event loop's descriptor, whose number means another one here.
                signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
                syscalls.unshare(syscalls.CLONE_FS | syscalls.CLONE_FILES)
                self._has_table = True
            finally:
                self._apart.release()
            child.unpack_parcel(plan, keep=True)  # the long way may need it yet
            plan.parcel = None
            back = child.arrange_descriptors(
                plan, os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            )
            assert back is not None  # noqa: S101
            _enter(plan)
            self._pid = pid = self._execute(plan)
            os.write(plan.channel, b"\0")
            becoming.setns(back, becoming.CLONE_NEWNS)
            left = True
        self._pid = pid
        with contextlib.suppress(BaseException):
            if self._has_table:
                passing.close_others(set())
            if left:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        _threads.discard(self._thread)

    def _execute(self, plan: child.Plan) -> int:
        """Spawn the first program that can be executed.  Raises OSError."""
        for path in plan.programs:
            if self._given_up:
                break
            try:
                return syscalls.posix_spawn(path, plan.argv, plan.env)
            except OSError as error:
                if error.errno not in _GO_ON:
                    raise
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def _enter(plan: child.Plan) -> None:
    """Be as the process is to be, in all that a thread has for itself.  Raises OSError."""
    os.umask(child.UMASK)
    child.leave_keyring(plan)
    becoming.clear_ambient_capabilities()
    child.enter(plan)
    syscalls.set_groups_of_thread(plan.groups)
    child.check_ids(plan)
