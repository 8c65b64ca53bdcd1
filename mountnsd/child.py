# SPDX-License-Identifier: LGPL-2.1-or-later
"""What runs in the new process, between fork(2) and execve(2).

That process is a child of ours (launcher.py), or the main process of a unit of
its own (starter.py).

It is root, and then inside a namespace whose every file may be somebody else's.
So from setns(2) until the privileges are gone nothing may be opened, executed
or imported by path.  That is why there are only bytes and numbers here, no
import, codec, logging or formatted traceback; why all that needs no namespace
is done before it is entered; and why nothing is ever returned or raised.

It also is a copy of an event loop's process and shares its epoll instance: no
finalizer may run (the garbage collector is off since before the fork), and no
signal handler (the parent blocked all signals before it).

Out of scope: choosing the identity, the program and the descriptors, and what
the parent does (launcher.py).  What only execve of a clean parent could shed is
left as the daemon has it: capability bounds, seccomp filters, its own
no_new_privs and the hard resource limits.

Sources: setns(2), setsid(2), credentials(7), capabilities(7), close_range(2),
ioctl_tty(2), execve(2), signal(7), proc_pid_oom_score_adj(5).
"""

from __future__ import annotations

import errno
import fcntl

from mountnsd import becoming, passing
from mountnsd.bare import os, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from mountnsd.bare import socket

START = b"\1"  # from the parent: the process is registered, go on
EXECUTING = b"\xff"  # to the parent: all is done but execve

UMASK = 0o022
_SOFT_NOFILE = 1024  # more breaks programs that use select(2); they may raise it themselves
_CATCHABLE = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
_NORMAL_PRIORITY = os.sched_param(0)
_OOM_SCORE_ADJ = b"/proc/self/oom_score_adj"
# What a kernel without keyrings, or a container that is kept from them, answers.
_NO_KEYRINGS = (errno.ENOSYS, errno.EPERM, errno.EACCES)
# An execve that failed so says only that the next directory of PATH is to be tried, as in execvp(3).
TRY_NEXT = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT)


class Plan:
    """All that the new process needs, made and encoded before it starts.

    Arguments: channel: a socket to the parent; namespace: descriptor of the mount namespace; fds: the child's
        number of each descriptor, to ours; parcel, parcel_size: what a caller sent, and how many that are; handles:
        the child's number of each of those, to its place in the parcel; uid, gid, groups: who it is to be; tty: the
        ioctl(2) that makes descriptor 0 the controlling terminal, 0 for none; no_new_privs: set it; directories: the
        first of them that can be changed to is; directory_needed: whether it is an error when none can; programs:
        the paths to try; argv; env; clean: systemd started the process, in a unit whose limits and priorities are
        to stay as they are.
    """

    __slots__ = (
        "argv",
        "channel",
        "clean",
        "directories",
        "directory_needed",
        "env",
        "fds",
        "gid",
        "groups",
        "handles",
        "namespace",
        "no_new_privs",
        "parcel",
        "parcel_size",
        "programs",
        "tty",
        "uid",
    )

    # A dataclass would cost every process that is started the import of that module.
    def __init__(
        self,
        *,
        channel: int,
        namespace: int,
        fds: Mapping[int, int],
        parcel: socket.socket | None,
        parcel_size: int,
        handles: Mapping[int, int],
        uid: int,
        gid: int,
        groups: Sequence[int],
        tty: int,
        no_new_privs: bool,
        directories: Sequence[bytes],
        directory_needed: bool,
        programs: Sequence[bytes],
        argv: list[bytes],
        env: Mapping[bytes, bytes],
        clean: bool = False,
    ) -> None:
        self.channel = channel
        self.namespace = namespace
        self.fds = fds
        self.parcel = parcel
        self.parcel_size = parcel_size
        self.handles = handles
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.tty = tty
        self.no_new_privs = no_new_privs
        self.directories = directories
        self.directory_needed = directory_needed
        self.programs = programs
        self.argv = argv
        self.env = env
        self.clean = clean


def run(plan: Plan) -> NoReturn:
    """Become what the plan says, or tell the parent which step failed with what errno, and exit with 127."""
    number = 0
    try:
        for number, (_, step) in enumerate(STEPS):  # noqa: B007 - the number is for the handlers
            step(plan)
    except OSError as error:
        _report(plan, number, error.errno or errno.EIO)
    except BaseException:  # noqa: BLE001 - nothing may leave this function
        _report(plan, number, errno.ENOTRECOVERABLE)
    finally:
        os._exit(127)


def _report(plan: Plan, number: int, code: int) -> None:
    try:
        os.write(plan.channel, bytes((number, code & 0xFF, code >> 8 & 0xFF)))
    except OSError:  # the parent is gone
        pass


def _reset_signals(_plan: Plan) -> None:
    """Default dispositions; all stay blocked, so that none ends us without a word before execve."""
    signal.set_wakeup_fd(-1)  # the parent's event loop listens at the other end
    for number in _CATCHABLE:
        if (
            signal.getsignal(number) is not signal.SIG_DFL
        ):  # of which Python has its own record: it costs no call
            signal.signal(number, signal.SIG_DFL)


def arrange_descriptors(plan: Plan, kept: int | None = None) -> int | None:
    """Give every descriptor its number and close all others.

    Sources and targets may overlap in any way (0 and 1 swapped), and so may what we need ourselves.  So first
    everything is copied to numbers that are nobody's target.

    Arguments: kept: another one to keep.  Returns: the number that it has now.
    """
    unpack_parcel(plan)
    copies = {target: _copy_beside(source, plan.fds) for target, source in plan.fds.items()}
    plan.channel = _copy_beside(plan.channel, plan.fds)
    plan.namespace = _copy_beside(plan.namespace, plan.fds)
    kept = kept if kept is None else _copy_beside(kept, plan.fds)
    for target, copy in copies.items():
        os.dup2(copy, target, inheritable=True)
    passing.close_others({*plan.fds, plan.channel, plan.namespace} | ({kept} if kept is not None else set()))
    return kept


def unpack_parcel(plan: Plan, *, keep: bool = False) -> None:
    """Have what a caller sent among the other descriptors.

    Arguments: keep: as of passing.unpack.  Raises OSError.
    """
    if plan.parcel is not None:
        sent = passing.unpack(plan.parcel, plan.parcel_size, keep=keep)
        plan.fds = {**plan.fds, **{target: sent[handle] for target, handle in plan.handles.items()}}


def _copy_beside(fd: int, taken: Mapping[int, int]) -> int:
    """A close-on-exec copy of `fd` whose number is not in `taken`."""
    # A copy that landed in `taken` only keeps its place: it is overwritten by what belongs there.
    while (copy := os.dup(fd)) in taken:
        pass
    return copy


def _wait_for_parent(plan: Plan) -> None:
    """Go no further until the parent holds a pidfd of us; exit if it is gone, or has given us up.

    Only once the other end of the channel, too, is closed here can the end of the parent be seen.
    """
    if os.read(plan.channel, 1) != START:
        os._exit(127)


def _leave_session(_plan: Plan) -> None:
    if os.getsid(0) != os.getpid():  # systemd gave us one already
        os.setsid()


def _be_ordinary(plan: Plan) -> None:
    """Take back what the daemon may have in its own favour.  None of it is worth refusing to start."""
    if plan.clean:
        return
    os.umask(UMASK)
    try:
        # Of the host's /proc: the namespace's may lead anywhere.
        fd = os.open(_OOM_SCORE_ADJ, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            os.write(fd, b"0")
        finally:
            becoming.close(fd)
    except OSError:
        pass
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_OTHER, _NORMAL_PRIORITY)
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except OSError:
        pass
    _have_usual_descriptors()


def _have_usual_descriptors() -> None:
    import resource  # the daemon has it; where systemd started the process, it would cost it time

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = usual_descriptors(hard)
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def usual_descriptors(hard: int) -> int:
    """The soft limit of descriptors that programs are used to, as far as the hard one lets there be so many."""
    return min(hard, _SOFT_NOFILE) if hard >= 0 else _SOFT_NOFILE  # RLIM_INFINITY is -1


def leave_keyring(_plan: Plan) -> None:
    """Lose the daemon's session keyring, whose possession gives rights to root's keys.

    As root, whose quota is large: with the user's own, 200 processes of his would be the most.
    """
    try:
        becoming.join_new_session_keyring()
    except OSError as error:
        if error.errno not in _NO_KEYRINGS:
            raise


def _reset_securebits(_plan: Plan) -> None:
    """With a secure bit set, uid 0 may be without capabilities, or another uid keep them."""
    if becoming.get_securebits() != 0:
        becoming.set_securebits(0)
    becoming.clear_ambient_capabilities()


def enter(plan: Plan) -> None:
    becoming.setns(plan.namespace, becoming.CLONE_NEWNS)
    becoming.close(plan.namespace)


def _set_groups(plan: Plan) -> None:
    os.setgroups(plan.groups)


def _set_gid(plan: Plan) -> None:
    os.setresgid(plan.gid, plan.gid, plan.gid)


def _set_uid(plan: Plan) -> None:
    os.setresuid(plan.uid, plan.uid, plan.uid)
    # The change of uid does this too, unless the sysctl fs.suid_dumpable is 1: until execve a tracer of the
    # same user could read the daemon's memory in ours.
    becoming.set_dumpable(False)


def check_ids(plan: Plan) -> None:
    """Believe the kernel's word only: nothing runs as anybody else."""
    uids, gids = os.getresuid(), os.getresgid()
    if {*uids} != {plan.uid} or {*gids} != {plan.gid} or {*os.getgroups()} != {*plan.groups}:
        raise OSError(errno.EPERM, "")


def _drop_capabilities(plan: Plan) -> None:
    if plan.uid != 0:
        becoming.clear_capabilities()


def _give_up_new_privileges(plan: Plan) -> None:
    if plan.no_new_privs:
        becoming.set_no_new_privs()


def _take_terminal(plan: Plan) -> None:
    """As the user: the kernel then asks whether the terminal is open for reading, which root is spared."""
    if plan.tty:
        fcntl.ioctl(0, plan.tty, 0)  # 0: never take it from another session


def _change_directory(plan: Plan) -> None:
    code: int | None = 0
    for directory in plan.directories:
        try:
            os.chdir(directory)
            return
        except OSError as error:
            code = code or error.errno
    if plan.directory_needed:
        raise OSError(code, "")


def _execute(plan: Plan) -> None:
    """Try the programs in turn; what any of them failed with says more than that others are not there."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.write(plan.channel, EXECUTING)
    code: int | None = 0
    for program in plan.programs:
        try:
            os.execve(program, plan.argv, plan.env)
        except OSError as error:
            if error.errno == errno.EACCES:
                code = errno.EACCES
            elif error.errno not in TRY_NEXT:
                raise
            elif code == 0 or (code != errno.EACCES and error.errno == errno.ENOENT):
                code = error.errno
    raise OSError(code or errno.ENOENT, "")


# In this order.  The names are for messages.
STEPS: tuple[tuple[str, Callable[[Plan], object]], ...] = (
    ("signal", _reset_signals),
    ("dup2", arrange_descriptors),
    ("start", _wait_for_parent),
    ("setsid", _leave_session),
    ("setrlimit", _be_ordinary),
    ("keyctl", leave_keyring),
    ("securebits", _reset_securebits),
    ("setns", enter),
    ("setgroups", _set_groups),
    ("setresgid", _set_gid),
    ("setresuid", _set_uid),
    ("credentials", check_ids),
    ("capset", _drop_capabilities),
    ("no_new_privs", _give_up_new_privileges),
    ("TIOCSCTTY", _take_terminal),
    ("chdir", _change_directory),
    ("execve", _execute),
)
