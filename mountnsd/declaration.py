# SPDX-License-Identifier: LGPL-2.1-or-later
"""Declared namespaces: what NAME.toml says, read and checked.

Out of scope: making the namespace, and what is there on the host.

Source: mountnsd.namespaces(5).
"""

import errno
import os
import posixpath
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mountnsd import mountrequest, names, options, rootfile, syscalls
from mountnsd.errors import Failed, InvalidArgs
from mountnsd.mountrequest import MountRequest
from mountnsd.options import CreateOptions

DIRECTORY = "namespaces"
DIRECTORIES = (Path("/etc/mountnsd") / DIRECTORY, Path("/usr/lib/mountnsd") / DIRECTORY)
SUFFIX = ".toml"
MAX_SIZE = 64 * 1024
MAX_MOUNTS = 256

_KEYS = ("description", "propagation", "labels", "mount")
_MOUNT_KEYS = ("what", "where", "type", "options")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LINE = re.compile(r"(.*?) ?\(at (line \d+, column \d+|end of document)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A namespace as it is declared.  The mounts in its options bear the file and the table they are of."""

    name: str
    file: str
    options: CreateOptions


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a declaration.

    key: where: `mount[1].where` (the first table is 1), or the line; empty where it is the whole file.
    """

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


def load(name: str, directories: Sequence[Path]) -> Declaration | None:
    """The declaration of `name` in the first of the directories that has one; None where there is none.

    Raises: InvalidArgs that names the file and the line or the key, for the first thing that is wrong with it;
        Failed where it cannot be read, or is not a plain file of root's.
    """
    for directory in directories:
        file = os.path.join(directory, names.check(name) + SUFFIX)
        text = _read(directory, name + SUFFIX, file)
        if text is None:
            continue
        found, faults = examine(name, file, text)
        if faults:
            raise InvalidArgs(f"{file}: {faults[0]} Correct it; 'mountnsctl verify' shows all that is wrong.")
        return found
    return None


def is_surely_none(name: str, directories: Sequence[Path]) -> bool:
    """Whether there is no declaration of `name`, as far as can be seen without being held up by anybody.

    So that most creations need no thread, as `load` does: a network filesystem or one on FUSE may never answer.
    A filesystem on a block device does.
    """
    for directory in directories:
        below = -1
        try:
            below = syscalls.open_cached(os.fspath(directory))
            _, _, major = syscalls.known_status(below)
            if not major:
                return False
            os.stat(names.check(name) + SUFFIX, dir_fd=below, follow_symlinks=False)
            return False
        except FileNotFoundError:
            continue
        except (
            OSError
        ):  # EAGAIN: it is not known; ELOOP: it is behind a link; ENOSYS, EINVAL: the kernel is older
            return False
        finally:
            if below >= 0:
                syscalls.close(below)
    return True


def _read(directory: Path, entry: str, file: str) -> bytes | None:
    """The text of a declaration, None where there is no such file.  Raises Failed."""
    below = fd = -1
    try:
        below = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fd = os.open(entry, _OPEN, dir_fd=below)
        for opened, path in ((below, str(directory)), (fd, file)):
            complaint = distrust(os.fstat(opened))
            if complaint:
                raise Failed(f"{path}: {complaint}")
        return text_of(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failed(f"{file}: {unreadable(error)}") from None
    finally:
        for opened in (below, fd):
            if opened >= 0:
                syscalls.close(opened)


def text_of(fd: int) -> bytes:
    """What an open file says, at most one byte more than a declaration may have.  Raises OSError."""
    return rootfile.whole(fd, MAX_SIZE + 1)


def unreadable(error: OSError) -> str:
    """Why a file could not be opened or read."""
    if error.errno == errno.ELOOP:  # by O_NOFOLLOW
        return "This is a symbolic link, and none is followed; put the file itself there."
    return f"This cannot be read: {error.strerror}."


def distrust(status: os.stat_result) -> str:
    """Why a file or directory is not to be believed; empty where it is."""
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return "This is not a regular file."
    if status.st_uid != 0 or status.st_mode & 0o022:
        return "This must belong to root and be writable by nobody else; correct that with chown(1) and chmod(1)."
    return ""


def examine(name: str, file: str, text: bytes) -> tuple[Declaration, list[Fault]]:
    """What a file says, and all that is wrong with it.  The declaration can be used where that is nothing."""
    reading = _Reading(file)
    chosen = reading.document(_parse(text, reading.faults))
    return Declaration(name, file, chosen), reading.faults


def _parse(text: bytes, faults: list[Fault]) -> dict[str, Any]:
    """The document; an empty one and a fault where it is none."""
    if len(text) > MAX_SIZE:
        faults.append(Fault("", f"A declaration has at most {MAX_SIZE} bytes."))
        return {}
    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        faults.append(Fault(_line(text[: error.start]), "This is no UTF-8 text."))
    except RecursionError:
        faults.append(Fault("", "Tables and arrays are nested too deeply."))
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with thousands of digits
        match = _LINE.fullmatch(str(error))
        said, where = (match[1], match[2]) if match else (str(error), "")
        if where == "end of document":
            where = _line(text)
        said = "".join(letter if letter.isprintable() else "?" for letter in said[:200])
        faults.append(Fault(where, f"This is no TOML: {said}."))
    return {}


def _line(before: bytes) -> str:
    return f"line {before.count(10) + 1}"  # 10: a line feed


class _Reading:
    """One pass over a document, that gathers what is wrong with it.  Attributes: faults."""

    def __init__(self, file: str) -> None:
        self.faults: list[Fault] = []
        self._file = file

    def _fault(self, key: str, text: str) -> None:
        self.faults.append(Fault(key, text))

    def _only(self, table: dict[str, Any], known: Sequence[str], prefix: str = "") -> None:
        for key in table:
            if key not in known:
                shown = key if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", key, re.ASCII) else names.shown(key, 40)
                self._fault(prefix + shown, f"There is no such key; there are {', '.join(known)}.")

    def document(self, document: dict[str, Any]) -> CreateOptions:
        self._only(document, _KEYS)
        chosen: dict[str, Any] = {}
        for key, kind, signature in (
            ("description", "s", "s"),
            ("propagation", "s", "s"),
            ("labels", "t", "a{ss}"),
        ):
            value = document.get(key)
            if value is None:
                continue
            if kind == "s" and not isinstance(value, str):
                self._fault(key, "This is a string; put it between quotes.")
            elif kind == "t" and not _is_strings(value):
                self._fault(key, 'This is a table of strings, such as team = "build" below [labels].')
            else:
                try:
                    options.create({key: (signature, value)})
                except InvalidArgs as error:
                    self._fault(key, error.message)
                else:
                    chosen[key] = (signature, value)
        return replace(options.create(chosen), mounts=self._mounts(document.get("mount", [])))

    def _mounts(self, tables: Any) -> tuple[MountRequest, ...]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._fault("mount", "These are tables, each below a line [[mount]] of its own.")
            return ()
        if len(tables) > MAX_MOUNTS:
            self._fault("mount", f"There may be at most {MAX_MOUNTS} of these tables, not {len(tables)}.")
            return ()
        found: dict[tuple[str, str, str], int] = {}
        made = []
        for number, table in enumerate(tables, 1):
            key = f"mount[{number}]"
            request = self._mount(key, table)
            if request is None:
                continue
            made.append(request)
            kind = request.fstype if request.bind is None else "bind"
            first = found.setdefault((request.what, request.where, kind), number)
            if first != number:
                self._fault(key, f"This is the same mount as mount[{first}]; take one of them out.")
        return tuple(made)

    def _mount(self, key: str, table: dict[str, Any]) -> MountRequest | None:
        """The mount of one table, None where there is something wrong with it."""
        before = len(self.faults)
        self._only(table, _MOUNT_KEYS, f"{key}.")
        if "where" not in table:
            self._fault(f"{key}.where", "This is missing: say where it is mounted.")
        for name in _MOUNT_KEYS:
            if not isinstance(table.get(name, ""), str):
                self._fault(f"{key}.{name}", "This is a string; put it between quotes.")
        if any(not isinstance(table.get(name, ""), str) for name in _MOUNT_KEYS):
            return None
        fstype = table.get("type", "")
        what = table.get("what", fstype)
        arguments = (what, table.get("where", "/missing"), fstype, table.get("options", ""))
        request, wrong = mountrequest.examine(*arguments, origin=f"{self._file}: {key}")
        for error in wrong:
            self._fault(f"{key}.{error.argument}", error.message)
        if len(self.faults) == before:
            for name, text in _loops(request):
                self._fault(f"{key}.{name}", text)
        return request if len(self.faults) == before else None


def _is_strings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _loops(request: MountRequest) -> list[tuple[str, str]]:
    """Where a mount has itself in it: the key, and what is wrong."""
    where = request.where
    if request.bind == syscalls.AT_RECURSIVE and lies_in(where, request.what):
        return [("where", f"An rbind must not lie in what it shows, {names.shown(request.what)}; take bind.")]
    lower, upper, work = (request.layers(key) for key in ("lowerdir", "upperdir", "workdir"))
    if bool(upper) != bool(work):
        return [("options", "An overlay has either both upperdir and workdir or none of them.")]
    found = []
    for layer in (*upper, *work):
        if lies_in(where, layer):
            found.append(("where", f"An overlay must not lie in what it writes to, {names.shown(layer)}."))
        for below in lower:
            if lies_in(below, layer):
                text = (
                    f"lowerdir {names.shown(below)} must not lie in what is written to, {names.shown(layer)}."
                )
                found.append(("options", text))
    for one, other in zip(upper, work, strict=False):
        if lies_in(one, other) or lies_in(other, one):
            found.append(("options", "upperdir and workdir must be separate, on one filesystem."))
    return found


def lies_in(path: str, directory: str) -> bool:
    """Whether an absolute path is at or below another one, by their spelling."""
    path, directory = (posixpath.normpath("/" + one.lstrip("/")) for one in (path, directory))
    return path == directory or path.startswith(directory.rstrip("/") + "/")
