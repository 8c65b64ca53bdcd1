# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file written whole or not at all: beside it first, then put in its place by a rename."""

from __future__ import annotations

import contextlib
import os
import secrets

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(directory: str, name: str, content: bytes, mode: int) -> None:
    """Put a file there that belongs to us, with exactly that mode; what was there before is replaced.

    Raises: OSError.
    """
    below = os.open(directory, _DIRECTORY)
    temporary = beside(name)
    try:
        with os.fdopen(os.open(temporary, _FILE, 0o600, dir_fd=below), "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(file.fileno(), os.geteuid(), os.getegid())
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=below, dst_dir_fd=below)
        os.fsync(below)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=below)
        raise
    finally:
        os.close(below)


def beside(name: str) -> str:
    """A name for a file that is not yet there, which nobody takes for the file itself."""
    return f".#{name}{secrets.token_hex(8)}"
