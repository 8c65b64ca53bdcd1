# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl enter`: a command in a namespace, started there by mountnsd, as if it were ours.

It has our standard input, output and error; where those are a terminal, it has one of its own that is relayed to
ours, so that job control works inside.  It ends with us.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
from typing import Any

from mountnsd.ctl import text
from mountnsd.ctl.agent import Agent
from mountnsd.ctl.connection import CallProblem, Connection
from mountnsd.ctl.copied import copied
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.problem import NOT_EXECUTABLE, NOT_FOUND, Problem
from mountnsd.ctl.process import Left, Process
from mountnsd.ctl.progress import Progress
from mountnsd.ctl.terminal import Raw, Relay, Signalled, open_pair

_STDERR = 2
_HANDED_ON = ("TERM", "COLORTERM", "NO_COLOR")  # of our environment, where we have a terminal
_EXECVE = re.compile(r": execve: .*\((E[A-Z0-9]+)\)")


def run(arguments: Arguments) -> int:
    """Run the command; returns its exit status, 128+n for the death by signal n."""
    try:
        terminal = os.isatty(0) and os.isatty(1)
        # Without a terminal of its own, the command may write to ours before it counts as started.
        with Connection(
            arguments.ask_password, None, Progress(terminal and not arguments.quiet)
        ) as connection:
            if terminal:
                return _on_terminal(connection, arguments)
            if arguments.user is not None and _user(arguments.user) != str(os.geteuid()):
                return _without_terminal(connection, arguments)
            return _start(connection, arguments, {fd: fd for fd in (0, 1, _STDERR)}, False).wait()
    except CallProblem as problem:
        raise Problem(problem.message, _status(problem)) from problem
    except Signalled as ended:
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
        return 128 + ended.number


def _on_terminal(connection: Connection, arguments: Arguments) -> int:
    """Run the command on a pseudoterminal; standard error too, unless ours goes elsewhere."""
    name = arguments.names[0]
    master, slave = open_pair()
    try:
        fds = {0: slave, 1: slave, _STDERR: slave if os.isatty(_STDERR) else _STDERR}
        if arguments.user is not None and os.geteuid() == 0:
            _give(slave, arguments.user)
        process = _start(connection, arguments, fds, True)
    finally:
        os.close(slave)
    shell = not arguments.command and not arguments.quiet
    if shell:
        text.note(text.plain(f"In namespace {name}. Press ^] three times within 1s to leave by force."))
    try:
        with Raw(master):
            status = process.wait(Relay(master))
    except Left:
        if not arguments.quiet:
            text.note(f"\n{text.PROGRAM}: Left namespace {text.plain(name)}; what ran there is ended.")
        return 128 + signal.SIGHUP
    finally:
        os.close(master)
    return status


def _without_terminal(connection: Connection, arguments: Arguments) -> int:
    """Run the command as somebody else, who gets none of our descriptors that is a terminal."""
    fds = {fd: fd for fd in (0, 1, _STDERR) if not os.isatty(fd)}
    terminals = [fd for fd in (1, _STDERR) if fd not in fds]
    with copied(terminals[0]) if terminals else contextlib.nullcontext(-1) as pipe:
        if terminals and arguments.user is not None and os.geteuid() == 0:
            _give(pipe, arguments.user)
        return _start(connection, arguments, fds | dict.fromkeys(terminals, pipe), False).wait()


def _start(connection: Connection, arguments: Arguments, fds: dict[int, int], terminal: bool) -> Process:
    options: dict[str, tuple[str, Any]] = {"kill_on_disconnect": ("b", True)}
    environment = {}
    if terminal:
        options["tty"] = ("b", True)
        environment = {key: os.environ[key] for key in _HANDED_ON if key in os.environ}
    environment.update(arguments.environment)
    if environment:
        options["env"] = ("a{ss}", environment)
    if arguments.user is not None:
        options["user"] = ("s", _user(arguments.user))
    if arguments.chdir is not None:
        options["cwd"] = ("s", os.path.join(os.getcwd(), arguments.chdir) if arguments.chdir else "/")
    body = (arguments.names[0], arguments.command, fds, options)
    connection.expect_exits()
    with Agent(arguments.ask_password) as agent:
        connection.doing = "" if agent.running else f"Entering '{arguments.names[0]}'"
        pid, pidfd = connection.manager("Enter", "sasa{uh}a{sv}", body)
    connection.doing = ""  # from now on the terminal is the command's
    return Process(connection, pid, pidfd.to_raw_fd())


def _user(user: str) -> str:
    """What to call the user: ourselves by number, because only then it counts as entering as oneself."""
    try:
        uid = pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        return user
    return str(uid) if uid == os.geteuid() else user


def _give(terminal: int, user: str) -> None:
    """Make the pseudoterminal or pipe the user's: he can open it by its name.  Of an unknown one Enter will tell."""
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        os.fchown(terminal, int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid, -1)


def _status(problem: CallProblem) -> int:
    """The exit status for a refused Enter: as a shell has it, where the command itself is at fault."""
    match = _EXECVE.search(problem.message) if problem.name.endswith(".EnterFailed") else None
    if match is None:
        return problem.status
    return NOT_FOUND if match[1] in ("ENOENT", "ENOTDIR") else NOT_EXECUTABLE
