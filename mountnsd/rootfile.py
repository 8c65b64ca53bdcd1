# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that only root can have written: opened without following a link, and looked at before they are read.

And the directories that the daemon keeps its own in.
"""

import errno
import logging
import os
import stat
from contextlib import suppress

log = logging.getLogger(__name__)

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Untrusted(Exception):
    """Why a file is not to be believed."""


def read(path: str, most: int, dir_fd: int | None = None) -> bytes:
    """The content of a plain file of root's.

    Arguments: path: relative to `dir_fd`, where there is one; most: bytes, more are an error.
    Raises: Untrusted: it is a symbolic link or no plain file, others than root can write it, or it is too long;
        OSError: ENOENT, and so on.
    """
    try:
        fd = os.open(path, _OPEN, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Untrusted("it is a symbolic link") from None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted("it is no plain file")
        if status.st_uid != 0:
            raise Untrusted("it is not root's")
        if status.st_mode & 0o022:
            raise Untrusted("others than root can write it")
        content = bytearray()
        while piece := os.read(fd, most + 1 - len(content)):
            content += piece
        if len(content) > most:
            raise Untrusted(f"it is longer than {most} bytes")
        return bytes(content)
    finally:
        os.close(fd)


def open_directory(path: str) -> int:
    """Make and open a directory of root's alone.  Raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            error.strerror = "this is to be a directory, and no link to one; remove what is there"
        raise
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        os.fchown(fd, os.geteuid(), -1)
    if stat.S_IMODE(status.st_mode) != 0o700:
        os.fchmod(fd, 0o700)
    return fd


def current_directory(path: str, fd: int) -> int:
    """A descriptor of the directory that is at a path now: `fd`, or where it was removed or replaced, another one.

    What the next daemon reads is what is at the path.

    Arguments: fd: is closed where it is not returned.
    Raises: OSError.
    """
    with suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd)):
            return fd
    replacement = open_directory(path)
    log.error("The directory %s was replaced by somebody: what was in it is lost", path)
    os.close(fd)
    return replacement
