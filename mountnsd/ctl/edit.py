# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl edit`: a declaration in the editor of the user, checked before it is put in its place.

What is edited is a copy beside the file.  So nobody reads half of it, and what makes no sense never gets there.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

from mountnsd import declaration, names
from mountnsd.ctl import text, verify, wholefile
from mountnsd.ctl.execute import open_pin
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.problem import FAILURE, Problem
from mountnsd.errors import InvalidArgs

TEMPLATE = """\
# What the namespace '{name}' is to be: mountnsd.namespaces(5) says more.
# Take the '#' from the lines that shall count. Nothing is declared while none does.

#description = "What it is for"
#propagation = "slave"

#[labels]
#team = "build"

#[[mount]]
#type = "tmpfs"
#where = "/var/tmp"
#options = "size=1g,mode=1777,nosuid,nodev"

#[[mount]]
#what = "/srv/sources"
#where = "/mnt/sources"
#options = "bind,ro,nosuid,nodev,X-mount.mkdir"
"""

_VARIABLES = ("SYSTEMD_EDITOR", "EDITOR", "VISUAL")
_EDITORS = ("editor", "nano", "vim", "vi")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PUBLIC = 0o644


def run(arguments: Arguments) -> int:
    """Do what the verb says; returns the exit status.  Raises: Problem."""
    name = arguments.names[0]
    try:
        names.check(name)
    except InvalidArgs as error:
        raise Problem(error.message) from error
    own, *others = (Path(directory) / (name + declaration.SUFFIX) for directory in declaration.DIRECTORIES)
    if os.geteuid() != 0:
        raise Problem(f"edit writes to {own.parent}, and that needs root: try it with sudo.")
    output = Output(arguments)
    before = _read(own)
    found = [one for one in (before, *map(_read, others)) if one is not None]
    start, mode = found[0] if found else (TEMPLATE.format(name=name).encode(), _PUBLIC)
    _make_directory(own.parent)
    content = _edited(own, start, before)
    if content is None:
        return FAILURE
    if content == start or not content.strip():
        output.note(f"Nothing was {'changed' if found else 'declared'}: {own} {_stays(before)}.")
        return 0
    wholefile.write(str(own.parent), own.name, content, mode & _PUBLIC)
    output.note(f"{own} is written.{_effect(arguments, name)}")
    return 0


def _read(file: Path) -> tuple[bytes, int] | None:
    """What a file says, and its mode; None where there is none.  Raises: Problem if it is no plain file."""
    try:
        fd = os.open(file, _OPEN)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Problem(f"{file}: {declaration.unreadable(error)}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Problem(f"{file}: This is not a regular file.")
        return declaration.text_of(fd), stat.S_IMODE(status.st_mode)
    finally:
        os.close(fd)


def _make_directory(directory: Path) -> None:
    """Have the directory of the file, in which nobody but root may change anything.  Raises: Problem, OSError."""
    directory.mkdir(0o755, parents=True, exist_ok=True)
    complaint = declaration.distrust(directory.stat())
    if complaint:
        raise Problem(f"{directory}: {complaint}")


def _edited(own: Path, start: bytes, before: tuple[bytes, int] | None) -> bytes | None:
    """What the user makes of a text, once nothing is wrong with it; None where he gives up.  Raises: Problem."""
    draft = own.parent / wholefile.beside(own.name)
    with os.fdopen(os.open(draft, _DRAFT, 0o600), "wb") as file:
        file.write(start)
    keep = False
    try:
        while True:
            _call_editor(draft, own)
            read = _read(draft)
            content = read[0] if read else b""
            if content == start or not content.strip() or not _complain(own, content):
                break
            if not _again():
                text.note(text.plain(f"{own} {_stays(before)}."))
                return None
        if _read(own) != before:
            keep = True
            raise Problem(
                f"{own} was changed by somebody else meanwhile, and is left alone. What you wrote is in {draft}."
            )
        return content
    finally:
        if not keep:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()


def _call_editor(draft: Path, own: Path) -> None:
    """Have the user edit a file.  Raises: Problem if there is no editor, or it fails."""
    for command in _editors():
        try:
            process = subprocess.Popen([*command, str(draft)])
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Problem(f"The editor '{command[0]}' cannot be run: {error.strerror}.") from error
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # meanwhile the editor's
        try:
            status = process.wait()
        finally:
            signal.signal(signal.SIGINT, before)
        if status != 0:
            raise Problem(f"The editor '{command[0]}' ended with status {status}: {own} is left as it was.")
        return
    raise Problem("There is no editor: set $SYSTEMD_EDITOR, $EDITOR or $VISUAL to one that is installed.")


def _editors() -> list[list[str]]:
    """The commands to try, the first that is there: as systemctl edit has them."""
    for variable in _VARIABLES:
        value = os.environ.get(variable, "")
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise Problem(f"${variable} makes no sense: {error}.") from error
        if words:
            return [words]
    return [[editor] for editor in _EDITORS]


def _complain(own: Path, content: bytes) -> bool:
    """Say what is wrong with a text; returns whether something is an error."""
    findings = list(verify.check(own.name.removesuffix(declaration.SUFFIX), own, content))
    for finding in findings:
        text.note(verify.shown(own, finding))
    return any(level == verify.ERROR for level, _, _ in findings)


def _again() -> bool:
    """Ask whether to edit again; where nobody can be asked, no."""
    while os.isatty(0):
        text.write("What now? (e)dit again, e(x)it without saving: ", 2)
        answer = sys.stdin.readline()
        if answer.strip().lower() in ("e", "x"):
            return answer.strip().lower() == "e"
        if not answer:
            text.note("")
            break
    return False


def _stays(before: tuple[bytes, int] | None) -> str:
    return "is not made" if before is None else "stays as it was"


def _effect(arguments: Arguments, name: str) -> str:
    """What a change does to a namespace that is there: nothing."""
    fd = open_pin(arguments.runtime_directory, name)
    if fd is None:
        return ""
    os.close(fd)
    return (
        f" The namespace '{name}' stays as it is until it is created anew: 'systemctl restart mountns@{name}', "
        f"or 'mountnsctl destroy {name}' and 'mountnsctl create {name}'."
    )
