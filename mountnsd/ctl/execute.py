# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl exec`: move into a namespace and become a command there.

For root.  It needs neither the daemon nor the bus while the pin can be seen; otherwise (a holder that is out of
sight, a namespace that is yet to be made) the daemon is asked for the namespace's descriptor.

Speed is the point of this verb: nothing is imported here that a shell loop would feel.
"""

from __future__ import annotations

import errno
import os

from mountnsd import syscalls
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.problem import FAILURE, NOT_EXECUTABLE, NOT_FOUND, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_CAP_SYS_ADMIN = 21
_IGNORED = (13, 25)  # SIGPIPE and SIGXFSZ, which the interpreter ignores and a command must not
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_LETTERS = _FIRST | {".", "-"}


def run(arguments: Arguments) -> NoReturn:
    """Become the command.  Raises: Problem."""
    name = arguments.names[0]
    if not _may_move():
        raise Problem(
            "exec moves this process itself into the namespace, and that needs root (CAP_SYS_ADMIN): "
            "'mountnsctl enter' asks mountnsd to start the command there instead."
        )
    fd = open_pin(arguments.runtime_directory, name)
    if fd is None:
        fd = _ask(arguments, name)
    _move(fd, name)
    _become(arguments.command)


def could_be_pin(name: str) -> bool:
    """Whether a path may be made of `name`: the rule of mountnsd.names.is_valid, without its imports."""
    return 0 < len(name) <= 64 and name[0] in _FIRST and _LETTERS.issuperset(name) and ".." not in name


def open_pin(runtime_directory: str, name: str) -> int | None:
    """A descriptor of the namespace pinned as `name`, or None where no pin of a mount namespace is to be seen."""
    if not could_be_pin(name):
        return None  # the daemon words the refusal
    try:
        fd = os.open(f"{runtime_directory}/ns/{name}", _FLAGS)
    except OSError:
        return None
    try:
        if syscalls.fstatfs_type(fd) == syscalls.NSFS_MAGIC and syscalls.ns_type(fd) == syscalls.CLONE_NEWNS:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _may_move() -> bool:
    if os.geteuid() == 0:
        return True
    try:
        fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        for line in file:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def _ask(arguments: Arguments, name: str) -> int:
    from mountnsd.ctl.agent import Agent
    from mountnsd.ctl.connection import Connection

    with Connection(arguments.ask_password) as connection, Agent(arguments.ask_password):
        (received,) = connection.manager("Open", "s", (name,))
        fd: int = received.to_raw_fd()
    os.set_inheritable(fd, False)
    return fd


def _move(fd: int, name: str) -> None:
    """Move into the namespace `fd`; the working directory stays if it exists inside, else it is `/`."""
    try:
        directory = os.getcwd()
    except OSError:
        directory = "/"
    try:
        syscalls.setns(fd, syscalls.CLONE_NEWNS)
    except OSError as error:
        raise Problem(f"Cannot move into the namespace '{name}': {error.strerror}.") from error
    finally:
        os.close(fd)
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")


def _become(command: list[str]) -> NoReturn:
    """Replace this process.  Raises: Problem with 127 or 126, as a shell has it."""
    # What signal wraps: that takes as long to import as all the rest together.
    import _signal  # type: ignore[import-not-found]

    for number in _IGNORED:
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        status = NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
        raise Problem(f"Cannot run '{command[0]}' in the namespace: {error.strerror}.", status) from error
    except ValueError as error:
        raise Problem(f"Cannot run the command: {error}.", FAILURE) from error
