# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mount points: found, and made where they are missing, without following any symbolic link.

What lies on the way is for the namespace to say, and its users may change it at any time.  A link could lead a mount
to a place that nobody named.  For a helper thread that has joined the namespace.  Out of scope: what is mounted.

Sources: openat2(2), mkdirat(2), umask(2), mount(8) (X-mount.mkdir).
"""

import errno
import os
import stat

from mountnsd import syscalls

_FLAGS = os.O_PATH | os.O_CLOEXEC
_RESOLVE = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS


def open_target(where: str, mkdir: int | None = None) -> int:
    """An O_PATH descriptor of a mount point.

    Arguments: where: an absolute path without '..'; mkdir: the mode of directories that are missing and are made
        then, None where none is.
    Raises: OSError whose text begins with the step, open or mkdir; ELOOP with the link in `filename`.
    """
    try:
        if mkdir is None:
            return _open(syscalls.AT_FDCWD, where)
        return _open_making(where, mkdir)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.filename = _first_link(where)
        raise


def _open(directory: int, path: str) -> int:
    try:
        return syscalls.openat2(directory, path, _FLAGS, _RESOLVE)
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, f"open: {os.strerror(number)}", path) from None


def _open_making(where: str, mode: int) -> int:
    """Open the deepest directory that is there, and make the others, each below the one before."""
    parts = _components(where)
    there = len(parts)
    while True:
        try:
            fd = _open(syscalls.AT_FDCWD, "/" + "/".join(parts[:there]))
            break
        except FileNotFoundError:
            if there == 0:
                raise
            there -= 1
    for part in parts[there:]:
        try:
            _mkdir(fd, part, mode)
            below = _open(fd, part)
        finally:
            syscalls.close(fd)
        fd = below
    return fd


def _mkdir(directory: int, name: str, mode: int) -> None:
    mask = os.umask(0)  # of this thread alone, which shares it with nobody since it joined
    try:
        os.mkdir(name, mode, dir_fd=directory)
    except FileExistsError:
        pass  # somebody else was first: whether it is a directory is seen when it is opened
    except OSError as error:
        raise OSError(error.errno, f"mkdir: {error.strerror}", name) from None
    finally:
        os.umask(mask)


def _components(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _first_link(where: str) -> str:
    """The first component that is a symbolic link; `where` itself if it is none any more."""
    parts = _components(where)
    for length in range(1, len(parts) + 1):
        path = "/" + "/".join(parts[:length])
        try:
            fd = syscalls.openat2(syscalls.AT_FDCWD, path, _FLAGS | os.O_NOFOLLOW, _RESOLVE)
        except OSError:
            break
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                return path
        finally:
            syscalls.close(fd)
    return where
