# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl cat`: declarations as they are written, each below the path of its file; without the daemon."""

from __future__ import annotations

from pathlib import Path

from mountnsd import declaration, names
from mountnsd.ctl import text, verify
from mountnsd.ctl.options import Arguments
from mountnsd.ctl.output import Output
from mountnsd.ctl.problem import FAILURE, Problem


def run(arguments: Arguments) -> int:
    """Do what the verb says; returns the exit status."""
    output = Output(arguments)
    directories = [Path(directory) for directory in declaration.DIRECTORIES]
    status = 0
    found: list[tuple[Path, str]] = []
    files = [] if arguments.names else verify.declared(directories)
    for name in arguments.names:
        try:
            files.append(find(name, directories))
        except Problem as problem:
            text.complain(problem.message)
            status = FAILURE
    for file in files:
        try:
            found.append((file, file.read_bytes().decode(errors="surrogateescape")))
        except OSError as error:
            text.complain(f"{file}: {declaration.unreadable(error)}")
            status = FAILURE
    if output.json:
        output.value(
            [{"name": f.name.removesuffix(declaration.SUFFIX), "file": str(f), "text": t} for f, t in found]
        )
    elif found:
        output.page("\n".join(_shown(file, content, output.colours) for file, content in found))
    elif not arguments.names:
        output.note(f"No namespace is declared in {' or '.join(map(str, directories))}.")
    return status


def find(name: str, directories: list[Path]) -> Path:
    """The file that declares a namespace, the first that there is.  Raises: Problem."""
    if names.is_valid(name):
        for directory in directories:
            file = directory / (name + declaration.SUFFIX)
            if file.is_symlink() or file.exists():
                return file
    raise Problem(
        f"No namespace '{name}' is declared in {' or '.join(map(str, directories))}: "
        f"'mountnsctl edit {name}' declares it."
    )


def _shown(file: Path, content: str, colours: bool) -> str:
    """A file below its path, with what could steer a terminal escaped."""
    start, end = (text.BOLD, text.RESET) if colours else ("", "")
    lines = content.replace("\r\n", "\n").removesuffix("\n").split("\n") if content else []
    return f"{start}# {text.plain(str(file))}{end}\n" + "".join(f"{_plain(line)}\n" for line in lines)


def _plain(line: str) -> str:
    return "\t".join(map(text.plain, line.split("\t")))
