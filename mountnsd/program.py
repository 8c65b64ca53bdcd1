# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program that is to run inside a namespace: what was asked for, checked, and the plan that comes of it.

Out of scope: who may (authority.py), who that is (identity.py), and how a process comes to carry the plan out
(launcher.py, transient.py).

Sources: execve(2), environ(7), passwd(5).
"""

import os
import resource  # noqa: F401 - for a child, where nothing may be looked for any more
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mountnsd import child, names
from mountnsd.descriptors import Descriptors
from mountnsd.errors import InvalidArgs
from mountnsd.identity import Identity
from mountnsd.passing import MAX_FDS

MAX_FD = 1023  # the highest number a program that uses select(2) can handle
MAX_PATH = 4095  # PATH_MAX without its NUL
# What execve(2) grants however small the stack limit (ARG_MAX), counted as it counts: with each string its NUL
# and a pointer.  No single string can then exceed MAX_ARG_STRLEN, which is as much.
MAX_ARGUMENTS = 128 * 1024
_POINTER = 8

_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USER_PATH = "/usr/local/bin:/usr/bin:/bin"


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


def plan(request: Request, fds: Mapping[int, int], channel: int) -> child.Plan:
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
        tty=termios.TIOCSCTTY if request.tty else 0,
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


def shown(request: Request) -> str:
    return request.argv[0] if request.argv else request.identity.shell
