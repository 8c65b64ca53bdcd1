# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is asked to be mounted, checked: by a caller of Mount, or by a table of a declaration.

Out of scope: mounting it.

Sources: mount(2), fsconfig(2), mount(8) (X-mount.mkdir), and the kernel's Documentation/filesystems/overlayfs.rst.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mountnsd import names, syscalls
from mountnsd.errors import InvalidArgs

MAX_PATH = 4095
MAX_DATA = 4095  # mount(2) takes a page of options, with a NUL at its end
MAX_VALUE = 255  # fsconfig(2) takes no longer key or value
MAX_SHOWN = 1024  # characters of an argument that polkit's rules and questions are shown
DEFAULT_MODE = 0o755
_OTHERS_WRITE = 0o022

_ATTRIBUTES = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
    "nodiratime": syscalls.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": syscalls.MOUNT_ATTR_NOSYMFOLLOW,
}
_DEFAULTS = {"", "defaults", "rw", "suid", "dev", "exec", "atime", "relatime", "diratime", "symfollow"}
_BINDS = {"bind": 0, "rbind": syscalls.AT_RECURSIVE}
_MKDIR = "X-mount.mkdir"
_MODE = re.compile(r"[0-7]{1,4}", re.ASCII)
_OVERLAY = "overlay"
_LAYER = re.compile(r"(?:[^:\\]|\\.)+", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class BadMount(InvalidArgs):
    """What is wrong with one argument.  `argument` is its name: what, where, type or options."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message)
        self.argument = argument


@dataclass(frozen=True, slots=True)
class MountRequest:
    """A mount that was checked: `check` makes it."""

    what: str
    where: str
    fstype: str
    attributes: int
    bind: int | None  # None: not a bind; else the flags of open_tree(2)
    parameters: tuple[tuple[str, str | None], ...]
    mkdir: int | None = (
        None  # the mode of directories of the mount point that are missing; None: they have to exist
    )
    origin: str = ""  # the file and the table that it was declared in, for messages

    @property
    def is_long(self) -> bool:
        """Whether fsconfig(2) cannot take it, so that mount(2) has to."""
        values = (self.what, *(value or "" for _, value in self.parameters))
        return self.bind is None and max(len(os.fsencode(value)) for value in values) > MAX_VALUE

    @property
    def data(self) -> str:
        """The parameters as mount(2) takes them."""
        return ",".join(key if value is None else f"{key}={value}" for key, value in self.parameters)

    def layers(self, key: str) -> list[str]:
        """The directories that lowerdir, upperdir or workdir of an overlay names."""
        if self.bind is not None or self.fstype != _OVERLAY:
            return []
        found = [value or "" for name, value in self.parameters if name == key]
        if key != "lowerdir":
            return found
        return [_ESCAPED.sub(r"\1", layer) for value in found for layer in _LAYER.findall(value)]


def check(what: str, where: str, fstype: str, options: str, origin: str = "") -> MountRequest:
    """Check what is asked to be mounted.  Raises: BadMount for the first argument that is wrong."""
    request, wrong = examine(what, where, fstype, options, origin)
    if wrong:
        raise wrong[0]
    return request


def check_shown(argument: str, text: str) -> None:
    """Check that polkit is shown an argument whole.  Raises: BadMount."""
    if len(text) > MAX_SHOWN:
        said = (
            f"'{argument}' takes at most {MAX_SHOWN} characters, unless root calls: polkit is shown no more."
        )
        raise BadMount(argument, said)


def check_for_user(request: MountRequest, options: str) -> None:
    """Check what somebody asks for who is not root.  Arguments: options: as he gave them.  Raises: BadMount.

    A directory that root makes where all can write, below one where only root can, may be believed to be root's.
    """
    for argument, text in (("what", request.what), ("where", request.where), ("options", options)):
        check_shown(argument, text)
    if request.mkdir is not None and request.mkdir & _OTHERS_WRITE:
        said = (
            f"With {_MKDIR}, only root can have directories made that others can write to, not mode "
            f"{request.mkdir:04o}: leave out {_OTHERS_WRITE:03o}, and mount there what they may write to."
        )
        raise BadMount("options", said)


def examine(
    what: str, where: str, fstype: str, options: str, origin: str = ""
) -> tuple[MountRequest, list[BadMount]]:
    """As `check`, with all that is wrong.  The request can be used where that is nothing."""
    wrong = []
    try:
        where = check_target(where)
    except BadMount as error:
        wrong.append(error)
    if len(os.fsencode(what)) > MAX_PATH or "\0" in what:
        wrong.append(BadMount("what", f"'what' takes at most {MAX_PATH} bytes without NUL."))
    attributes, bind, mkdir = 0, None, None
    parameters: list[tuple[str, str | None]] = []
    for option in options.split(","):
        key, equals, value = option.partition("=")
        if option in _BINDS:
            bind = _BINDS[option]
        elif option in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[option]
        elif key == _MKDIR:
            mkdir = int(value, 8) if _MODE.fullmatch(value) else DEFAULT_MODE
            if equals and not _MODE.fullmatch(value):
                wrong.append(
                    BadMount("options", f"{_MKDIR}= takes a mode as chmod(1), not {names.shown(value)}.")
                )
        elif option not in _DEFAULTS:
            parameters.append((key, value if equals else None))
    request = MountRequest(what, where, fstype, attributes, bind, tuple(parameters), mkdir, origin)
    wrong += _wrong_options(request)
    if bind is not None:
        if not what.startswith("/"):
            said = f"A bind's 'what' is an absolute path in the host, not {names.shown(what)}."
            wrong.append(BadMount("what", said))
    elif not fstype or len(os.fsencode(fstype)) > MAX_VALUE or "\0" in fstype:
        said = "'type' is a filesystem type such as tmpfs, or empty with the option bind or rbind."
        wrong.append(BadMount("type", said))
    return request, wrong


def _wrong_options(request: MountRequest) -> Iterator[BadMount]:
    for key, value in request.parameters:
        if "\0" in key or "\0" in (value or "") or len(os.fsencode(key)) > MAX_VALUE:
            said = f"The name of a mount option takes at most {MAX_VALUE} bytes, and none has a NUL in it"
            yield BadMount("options", f"{said}: {names.shown(key if value is None else f'{key}={value}')}")
        elif key == "source":
            yield BadMount("options", "There is no option source here: it is the argument 'what'.")
        elif key.startswith(("X-", "x-")):
            said = f"There is no option {names.shown(key)} here; of those of mount(8) there is {_MKDIR}."
            yield BadMount("options", said)
    if request.bind is not None and request.parameters:
        yield BadMount("options", f"A bind takes no option {names.shown(request.parameters[0][0])}.")
    elif len(os.fsencode(request.data)) > MAX_DATA:
        yield BadMount("options", f"The options for a filesystem take at most {MAX_DATA} bytes in all.")
    for key in ("lowerdir", "upperdir", "workdir"):
        for layer in request.layers(key):
            if not layer.startswith("/") or ".." in layer.split("/"):
                said = (
                    f"{key} of an overlay is an absolute path inside, without '..', not {names.shown(layer)}."
                )
                yield BadMount("options", said)


def check_target(where: str) -> str:
    """Return a mount point as a path whose last component is a plain name, so that no link there is followed.

    Raises: BadMount for the root, and for what is not an absolute path without '..'.
    """
    parts = where.split("/")
    if not where.startswith("/") or ".." in parts or "\0" in where or len(os.fsencode(where)) > MAX_PATH:
        said = f"'where' is an absolute path inside, without '..', not {names.shown(where)}."
        raise BadMount("where", said)
    plain = "/" + "/".join(part for part in parts if part not in ("", "."))
    if plain == "/":
        said = "The root of a namespace is neither mounted over nor unmounted; name what is below it."
        raise BadMount("where", said)
    return plain
