# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that only root can have written: opened without following a link, and looked at before they are read.

And the directories that the daemon keeps its own in.
"""

import errno
import logging
import os
import stat
from contextlib import suppress

from mountnsd import syscalls

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
        content = whole(fd, most + 1)
        if len(content) > most:
            raise Untrusted(f"it is longer than {most} bytes")
        return content
    finally:
        syscalls.close(fd)


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
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            os.fchown(fd, os.geteuid(), -1)
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.fchmod(fd, 0o700)
    except BaseException:
        syscalls.close(fd)
        raise
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
    syscalls.close(fd)
    return replacement


def whole(fd: int, most: int) -> bytes:
    """What an open file (borrowed) has, at most so many bytes.  Raises OSError."""
    content = bytearray()
    while piece := os.read(fd, most - len(content)):
        content += piece
    return bytes(content)


def write(path: str, content: bytes, dir_fd: int) -> None:
    """Make a file that only root can read, with that content.  Where that fails, there is none.

    Raises: OSError: EEXIST, ENOSPC, and so on.
    """
    fd = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd
    )
    try:
        try:
            while content:
                content = content[os.write(fd, content) :]
        finally:
            os.close(fd)
    except BaseException:
        os.unlink(path, dir_fd=dir_fd)
        raise
