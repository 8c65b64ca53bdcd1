# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl exec`: move into a namespace and become a command there.

For root, and for the services of other users that have capabilities for the way in.  It needs neither the daemon
nor the bus while the pin can be seen; otherwise (a namespace that is yet to be made)
the daemon is asked for the namespace's descriptor, but not by a service.

Inside, every file may be somebody else's.  From setns(2) until the capabilities are gone nothing is opened, executed
or imported, and no error leaves.

Speed is the point of this verb: nothing is imported here that a shell loop would feel.
"""

from __future__ import annotations

import errno
import os

from mountnsd import packages, syscalls
from mountnsd.ctl import capabilities, text
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.problem import FAILURE, NOT_EXECUTABLE, NOT_FOUND, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_SIGINT, _SIGPIPE, _SIGXFSZ = 2, 13, 25
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_LETTERS = _FIRST | {".", "-"}
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


def run(arguments: Arguments) -> NoReturn:
    """Become the command.  Raises: Problem."""
    name = arguments.names[0]
    root = os.geteuid() == 0
    effective = syscalls.get_capabilities()[0]
    if not root and not effective & capabilities.SYS_ADMIN:
        raise Problem(
            "exec moves this process itself into the namespace, and that needs root (CAP_SYS_ADMIN): "
            "'mountnsctl enter' asks mountnsd to start the command there instead."
        )
    dropped = _to_drop(arguments.drop_capabilities, root)
    service = _is_service()
    fd = open_pin(arguments.runtime_directory, name)
    if fd is None and service:
        raise Problem(_unseen(name, arguments.runtime_directory, root, effective))
    if fd is None:
        fd = _ask(arguments, name)
    environment = {**_environment(), **arguments.environment}
    directory = _directory()
    programs = _programs(arguments.command[0], environment.get("PATH", os.defpath))
    _reset_signals(arguments.sigpipe or ("ignore" if service else "default"))
    _move(fd, name, dropped, not root)
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")
    _become(arguments, programs, environment)


def could_be_pin(name: str) -> bool:
    """Whether a path may be made of `name`: the rule of mountnsd.names.is_valid, without its imports."""
    return 0 < len(name) <= 64 and name[0] in _FIRST and _LETTERS.issuperset(name) and ".." not in name


def open_pin(runtime_directory: str, name: str) -> int | None:
    """A descriptor of the namespace pinned as `name`, or None where no pin of a mount namespace is to be seen."""
    if not could_be_pin(name):
        return None  # the daemon words the refusal
    holder = f"{runtime_directory}/ns"
    fd = _open_namespace(f"{holder}/{name}")
    if fd is None:
        fd = _open_hidden(holder, name)
    return fd


def _open_hidden(holder: str, name: str) -> int | None:
    """A pin that lies in another mount namespace, behind the anchor; None where there is none."""
    anchor = _open_namespace(f"{holder}/.anchor")
    if anchor is None:
        return None
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    directory = os.open(".", flags | os.O_PATH)
    try:
        syscalls.setns(anchor, syscalls.CLONE_NEWNS)
        try:
            return _open_namespace(f"{holder}/{name}")
        finally:
            syscalls.setns(own, syscalls.CLONE_NEWNS)
            os.fchdir(directory)
    except OSError:
        return None
    finally:
        for fd in (anchor, own, directory):
            os.close(fd)


def _open_namespace(path: str) -> int | None:
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        if syscalls.fstatfs_type(fd) == syscalls.NSFS_MAGIC and syscalls.ns_type(fd) == syscalls.CLONE_NEWNS:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _to_drop(wanted: str | None, root: bool) -> int:
    """The capabilities to give up.  Raises: Problem where root would have them again after execve(2)."""
    if wanted is None:
        return 0 if root else capabilities.USERS_WAY_IN
    dropped = capabilities.mask_of(wanted)
    if root and not syscalls.get_capabilities()[0] & capabilities.SETPCAP:
        left = capabilities.names_of(capabilities.in_bounding_set(dropped))
        if left:
            raise Problem(
                f"Dropping {', '.join(left)} for good needs CAP_SETPCAP: root gets at execve(2) what its bounding "
                "set has. Add CAP_SETPCAP to CapabilityBoundingSet= and to --drop-capabilities=."
            )
    return dropped


def _is_service() -> bool:
    """Whether this process is the one that systemd started, systemd.exec(5)."""
    return os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def _unseen(name: str, runtime_directory: str, root: bool, effective: int) -> str:
    """Why a service does not see the pin.

    A service does not ask the daemon: it would lose the sandbox that keeps it from seeing the pin, in silence.
    """
    why = (
        f"No mount namespace '{text.plain(name)}' is to be seen in {text.plain(runtime_directory)}/ns. Does it "
        f"exist (Requires= and After=mountns@{text.plain(name)}.service)? And a service with PrivateTmp=, "
        "ProtectSystem= or another setting that gives it mounts of its own sees none of them."
    )
    if not root and not effective & capabilities.DAC_READ_SEARCH:
        why += " Here CAP_DAC_READ_SEARCH is missing: add it to AmbientCapabilities=."
    return why


def _ask(arguments: Arguments, name: str) -> int:
    packages.find()
    from mountnsd.ctl.agent import Agent
    from mountnsd.ctl.connection import Connection

    with Connection(arguments.ask_password) as connection, Agent(arguments.ask_password):
        (received,) = connection.manager("Open", "s", (name,))
        fd: int = received.to_raw_fd()
    os.set_inheritable(fd, False)
    return fd


def _environment() -> dict[str, str]:
    """The environment as it came: in the locale C, the interpreter adds a LC_CTYPE of its own (PEP 538)."""
    environment = dict(os.environ)
    if environment.get("LC_CTYPE") == "C.UTF-8":
        try:
            fd = os.open("/proc/self/environ", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return environment
        with os.fdopen(fd, "rb") as file:
            came = [entry for entry in file.read().split(b"\0") if entry.startswith(b"LC_CTYPE=")]
        del environment["LC_CTYPE"]
        if came:
            environment["LC_CTYPE"] = os.fsdecode(came[0].partition(b"=")[2])
    return environment


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _programs(command: str, path: str) -> list[str]:
    """The paths to try, as execvp(3) does; made here, because os.execvp imports something first."""
    if "/" in command or not command:
        return [command]
    return [f"{place or '.'}/{command}" for place in path.split(":")]


def _reset_signals(sigpipe: str) -> None:
    """Take back what the interpreter did.

    It cannot say how SIGPIPE was before.  A service has it ignored, unless IgnoreSIGPIPE=no; all else does not.
    SIGINT, because an exception must not come between setns(2) and the end of the capabilities.
    """
    # What signal wraps: that takes as long to import as all the rest together.
    import _signal  # type: ignore[import-not-found]

    _signal.signal(_SIGINT, _signal.SIG_DFL)
    _signal.signal(_SIGXFSZ, _signal.SIG_DFL)
    _signal.signal(_SIGPIPE, _signal.SIG_IGN if sigpipe == "ignore" else _signal.SIG_DFL)


def _move(fd: int, name: str, dropped: int, no_new_privs: bool) -> None:
    """Move into the namespace `fd`, closing that, and give up the capabilities.

    All that can be given up before is, so that what is left to do inside is one call that cannot fail.
    """
    try:
        if no_new_privs:
            syscalls.set_no_new_privs()
        capabilities.give_up_inherited(dropped)
        syscalls.setns(fd, syscalls.CLONE_NEWNS)
    except OSError as error:
        os.close(fd)
        raise Problem(f"Cannot move into the namespace '{name}': {error.strerror}.") from error
    try:
        if dropped and not capabilities.give_up(dropped):
            _end_inside()
        os.close(fd)
    except BaseException:  # noqa: BLE001 - nothing may leave, with capabilities, to where the files are others'
        _end_inside()


def _end_inside() -> NoReturn:
    try:
        os.write(2, b"mountnsctl: The capabilities cannot be dropped inside the namespace.\n")
    finally:
        os._exit(FAILURE)


def _become(arguments: Arguments, programs: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process.  Raises: Problem with 127 or 126, as a shell has it."""
    command = arguments.command
    argv = command if arguments.argv0 is None else [arguments.argv0, *command[1:]]
    failed = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    try:
        for program in programs:
            try:
                os.execve(program, argv, environment)
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    failed = error
                if error.errno not in (*_NOT_THERE, errno.EACCES):
                    break
    except ValueError as error:
        raise Problem(f"Cannot run the command: {error}.", FAILURE) from error
    status = NOT_FOUND if failed.errno in _NOT_THERE else NOT_EXECUTABLE
    raise Problem(f"Cannot run '{command[0]}' in the namespace: {failed.strerror}.", status) from failed
