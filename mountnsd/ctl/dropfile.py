# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file of a drop-in: read, written whole, and removed, if it is ours.

Out of scope: what is in it, save the first line by which ours is known.
"""

from __future__ import annotations

import contextlib
import os
import stat

from mountnsd.ctl import wholefile
from mountnsd.ctl.problem import Problem

NAME = "50-mountns.conf"
_MOST = 1 << 20


class DropInFile:
    """The drop-in of a unit below one of systemd's directories.

    Arguments: root: such as /etc/systemd/system; unit: a valid name; mark: the first line of ours.
    Raises, in all methods: OSError with the path.
    """

    def __init__(self, root: str, unit: str, mark: str) -> None:
        self.directory = f"{root}/{unit}.d"
        self.path = f"{self.directory}/{NAME}"
        self._mark = mark

    def read(self) -> str | None:
        """The text, or None where there is no file.  Raises: Problem if there is one that is not ours."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            data = file.read(_MOST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        if data.partition(b"\n")[0] != self._mark.encode():
            raise Problem(
                f"{self.path} was not written by mountnsctl: it stays as it is. Move it away first."
            )
        return data.decode(errors="surrogateescape")

    def write(self, text: str) -> None:
        """Put the text there, whole or not at all; the directory is made where it is missing."""
        os.makedirs(os.path.dirname(self.directory), 0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.directory, 0o755)
        wholefile.write(self.directory, NAME, text.encode(errors="surrogateescape"), 0o644)

    def remove(self) -> None:
        """Remove the file, and its directory if nothing else is in there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.rmdir(self.directory)

    def put(self, text: str | None) -> None:
        """Write the text, or remove the file for None."""
        if text is None:
            self.remove()
        else:
            self.write(text)
