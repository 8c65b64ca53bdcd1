# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl verify`: what is wrong with declarations, before anything is made of them; without the daemon.

Besides what the daemon refuses, it looks at this host: what a bind shows, and where mounts go.  What an earlier mount
of the declaration may cover cannot be known, and is passed over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mountnsd import declaration, names
from mountnsd.ctl import text
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.problem import FAILURE
from mountnsd.mountrequest import MountRequest

ERROR = "error"
WARNING = "warning"

_Finding = tuple[str, str, str]  # the level, the key, and what to do


def run(arguments: Arguments) -> int:
    """Do what the verb says; returns the exit status."""
    output = Output(arguments)
    own = [Path(directory) for directory in declaration.DIRECTORIES]
    files = [Path(name) for name in arguments.names] or declared(own)
    rows = [
        {"file": str(file), "level": level, "key": key, "message": message}
        for file in files
        for level, key, message in _findings(
            file, trusted=not arguments.names or file.absolute().parent in own
        )
        if level == ERROR or not arguments.quiet
    ]
    if output.json:
        output.value(rows)
    else:
        for row in rows:
            text.write(shown(Path(row["file"]), (row["level"], row["key"], row["message"])) + "\n")
        if not files:
            output.note(f"No namespace is declared in {' or '.join(map(str, own))}.")
    return FAILURE if any(row["level"] == ERROR for row in rows) else 0


def declared(directories: list[Path]) -> list[Path]:
    """All declarations there are: of each name the one that counts, and what has a name that no namespace has."""
    found: dict[str, Path] = {}
    for directory in directories:
        try:
            entries = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.endswith(declaration.SUFFIX):
                found.setdefault(entry, directory / entry)
    return [found[entry] for entry in sorted(found)]


def _findings(file: Path, trusted: bool) -> Iterator[_Finding]:
    """What is wrong with one file.

    Arguments: trusted: the daemon reads it where it lies; else who may write to it is no more than a warning.
    """
    name = file.name.removesuffix(declaration.SUFFIX)
    if not file.name.endswith(declaration.SUFFIX) or not names.is_valid(name):
        said = "This is no name for a declaration: take NAME.toml, NAME being 1 to 64 of A-Z a-z 0-9 _ . -"
        yield ERROR, "", f"{said}, not beginning with . or -, and without '..'."
    try:
        content, complaint = _read(file)
    except OSError as error:
        yield ERROR, "", declaration.unreadable(error)
        return
    if complaint:
        yield ERROR if trusted or content is None else WARNING, "", complaint
    if content is None:
        return
    yield from check(name, file, content)


def check(name: str, file: Path, content: bytes) -> Iterator[_Finding]:
    """What is wrong with what a declaration says: the level, the key, and what to do."""
    found, faults = declaration.examine(name, str(file), content)
    for fault in faults:
        yield ERROR, fault.key, fault.text
    yield from _on_this_host(found.options.mounts)


def shown(file: Path, finding: _Finding) -> str:
    """A finding as a line."""
    return text.plain(": ".join(part for part in (str(file), *finding) if part))


def _read(file: Path) -> tuple[bytes | None, str]:
    """The text of a file, None where it is no plain file; and why it is not to be believed.  Raises OSError."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None, "This is not a regular file."
        return declaration.text_of(fd), declaration.distrust(status)
    finally:
        os.close(fd)


def _on_this_host(requests: tuple[MountRequest, ...]) -> Iterator[_Finding]:
    """What the mounts of a declaration would meet here."""
    covering: list[str] = []
    for request in requests:
        key = request.origin.rpartition(": ")[2]
        sources = [("what", request.what)] if request.bind is not None else []
        for name in ("lowerdir", "upperdir", "workdir"):
            if request.mkdir is None or name == "lowerdir":
                sources += [
                    ("options", layer) for layer in request.layers(name) if not _covered(layer, covering)
                ]
        for name, path in sources:
            for level, said in _missing(path):
                yield level, f"{key}.{name}", said
        if not _covered(request.where, covering):
            for level, said in _unreachable(request):
                yield level, f"{key}.where", said
        covering.append(request.where)


def _covered(path: str, covering: list[str]) -> bool:
    return any(declaration.lies_in(path, where) for where in covering)


def _missing(path: str) -> Iterator[tuple[str, str]]:
    try:
        os.stat(path)
    except PermissionError:
        yield WARNING, f"Only root can see whether there is {names.shown(path)}."
    except OSError as error:
        yield ERROR, f"{names.shown(path)} is not there ({error.strerror}); make it, or correct the path."


def _unreachable(request: MountRequest) -> Iterator[tuple[str, str]]:
    """Why a mount point cannot be mounted on, if nothing is mounted above it before."""
    path = ""
    status = None
    for part in request.where.strip("/").split("/"):
        path = f"{path}/{part}"
        try:
            status = os.lstat(path)
        except PermissionError:
            yield WARNING, f"Only root can see whether there is {names.shown(path)}."
            return
        except FileNotFoundError:
            if request.mkdir is None:
                said = "make it, or add the option X-mount.mkdir."
                yield WARNING, f"{names.shown(path)} is not there on this host; {said}"
            return
        except OSError as error:
            yield ERROR, f"{names.shown(path)} cannot be reached: {error.strerror}."
            return
        if stat.S_ISLNK(status.st_mode):
            yield ERROR, f"{names.shown(path)} is a symbolic link; name what it leads to."
            return
    wanted = request.bind is None or os.path.isdir(request.what)
    known = request.bind is None or os.path.exists(request.what)
    if known and status is not None and stat.S_ISDIR(status.st_mode) != wanted:
        yield ERROR, f"{names.shown(path)}: a directory goes over a directory, and a file over a file."
