# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl: from the command line to the exit status.

What a verb needs is imported when the verb is known, because most of the time that a short command takes is that of
its imports: `exec` must not pay for D-Bus.
"""

from __future__ import annotations

import gc
import os
import sys

from mountnsd import packages
from mountnsd.ctl import text
from mountnsd.ctl.options import Arguments, find_verb, parse
from mountnsd.ctl.problem import FAILURE, TROUBLE, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_GARBAGE = 50_000  # objects; imports make thousands, and no garbage


def program() -> NoReturn:
    """`main`, and end with its status at once: to take the interpreter down is a tenth of a short command's time."""
    gc.set_threshold(_GARBAGE)
    status = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed; what is written is written by text.write
            continue
    os._exit(status)


def main(words: list[str] | None = None) -> int:
    """Run mountnsctl with a command line, by default the process's own; returns the exit status."""
    arguments = None
    try:
        arguments = parse(sys.argv[1:] if words is None else words)
        return _run(arguments)
    except Problem as problem:
        text.complain(problem.message)
        return _status(arguments, problem.status)
    except BrokenPipeError:  # whoever read our output has seen enough
        return _die("SIGPIPE")
    except KeyboardInterrupt:
        return _die("SIGINT")
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        text.complain(f"Cannot read or write{where}: {error.strerror}.")
        return _status(arguments, FAILURE)
    except Exception as error:  # noqa: BLE001 - a fault of ours: a line, as for all else
        text.complain(
            f"This should not happen, and is a fault of mountnsctl: {type(error).__name__}: {error}."
        )
        return _status(arguments, FAILURE)


def _status(arguments: Arguments | None, status: int) -> int:
    """The exit status for what went wrong: not that which is an answer of the verb."""
    answers = arguments is not None and find_verb(arguments.verb).answers
    return TROUBLE if answers and status == FAILURE else status


def _run(arguments: Arguments) -> int:
    if arguments.action == "help":
        from mountnsd.ctl.help import help_text

        text.write(help_text(text.colours(1)))
        return 0
    if arguments.action == "version":
        from mountnsd import __version__

        text.write(f"mountnsd {__version__}\n")
        return 0
    if arguments.verb == "exec":
        from mountnsd.ctl import execute

        execute.run(arguments)
    _fill_standard_descriptors()
    packages.find()
    if arguments.verb == "enter":
        from mountnsd.ctl import enter

        return enter.run(arguments)
    if arguments.verb in ("attach", "detach"):
        from mountnsd.ctl import attach

        return attach.run(arguments)
    if arguments.verb == "verify":
        from mountnsd.ctl import verify

        return verify.run(arguments)
    if arguments.verb == "edit":
        from mountnsd.ctl import edit

        return edit.run(arguments)
    if arguments.verb == "cat":
        from mountnsd.ctl import cat

        return cat.run(arguments)
    if arguments.verb == "monitor":
        from mountnsd.ctl import monitor

        return monitor.run(arguments)
    from mountnsd.ctl import verbs

    return verbs.run(arguments)


def _die(name: str) -> int:
    """End of the signal that ended the work, so that a calling shell sees it."""
    import signal

    number = signal.Signals[name]
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number  # where the signal is blocked


def _fill_standard_descriptors() -> None:
    """Open /dev/null where one of 0, 1 and 2 is closed, lest the connection to the bus get its number."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
