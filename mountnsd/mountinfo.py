# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading /proc/PID/mountinfo.

The format is that of proc_pid_mountinfo(5) and of the kernel's
fs/proc_namespace.c: octal escapes for space, tab, newline, backslash and `#`,
and any number of optional fields, unknown ones among them, before a lone `-`.

Out of scope: what the mounts are for.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mountnsd import syscalls

_PIECE = 1 << 16  # bytes that are asked for at once

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount, as one line of mountinfo gives it.  Paths are relative to the reader's root directory."""

    id: int
    parent: int
    device: str  # major:minor
    root: str
    target: str
    options: str  # of the mount
    propagation: tuple[str, ...]  # the optional fields: shared:N, master:N, propagate_from:N, unbindable
    fstype: str
    source: str
    super_options: str  # of the filesystem

    @property
    def peer_group(self) -> int:
        """The peer group that the mount shares with, 0 where it is not shared."""
        return self._group("shared:")

    @property
    def master(self) -> int:
        """The peer group that the mount is a slave of, 0 where it is none's."""
        return self._group("master:")

    @property
    def unbindable(self) -> bool:
        return "unbindable" in self.propagation

    def _group(self, prefix: str) -> int:
        for field in self.propagation:
            if field.startswith(prefix) and field[len(prefix) :].isascii() and field[len(prefix) :].isdigit():
                return int(field[len(prefix) :])
        return 0


def unescape(text: str) -> str:
    """Undo mountinfo's octal escapes.

    Bytes that are not UTF-8 come back as surrogate escapes, as os.fsdecode gives them.
    """
    if "\\" not in text:
        return text
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), os.fsencode(text)))


def parse_line(line: str) -> Mount | None:
    """The mount of one line, or None for a line that is not well-formed."""
    fields = line.split(" ")
    try:
        dash = fields.index("-", 6)
    except ValueError:
        return None
    tail = fields[dash + 1 :]
    if len(tail) == 2:  # kernels before 5.1 print nothing for an empty source
        tail = [tail[0], "", tail[1]]
    if len(tail) != 3:
        return None
    try:
        mount_id, parent = int(fields[0]), int(fields[1])
    except ValueError:
        return None
    return Mount(
        id=mount_id,
        parent=parent,
        device=fields[2],
        root=unescape(fields[3]),
        target=unescape(fields[4]),
        options=fields[5],
        propagation=tuple(fields[6:dash]),
        fstype=unescape(tail[0]),
        source=unescape(tail[1]),
        super_options=tail[2],
    )


def parse(text: str) -> Iterator[Mount]:
    """The mounts of a whole mountinfo, in its order; lines that are not well-formed are passed over."""
    for line in text.split("\n"):
        if line:
            mount = parse_line(line)
            if mount is not None:
                yield mount


def read(
    path: str = "/proc/thread-self/mountinfo", dir_fd: int | None = None, most: int | None = None
) -> str:
    """The text of a mountinfo, read to its end.

    Arguments: path: the file; dir_fd: a directory descriptor that a relative path is looked up from; most: how
        many bytes it may have, or None for any number.
    Raises: OSError; EFBIG where there are more.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return read_again(fd, most)
    finally:
        syscalls.close(fd)


def read_again(fd: int, most: int | None = None) -> str:
    """The text of a mountinfo as it is now.

    Arguments: fd: its descriptor; most: as for `read`.
    Raises: as `read`.
    """
    text = bytearray()
    while piece := os.pread(fd, _PIECE, len(text)):
        text += piece
        if most is not None and len(text) > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return os.fsdecode(bytes(text))


def open_own() -> int:
    """A descriptor of mountinfo, which stays that of the mount namespace that the thread is in now.

    Raises: OSError.
    """
    return os.open("/proc/thread-self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
