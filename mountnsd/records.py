# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who had which process entered: one JSON file each, so that the next daemon can tell him how it ended.

A file is there from before its unit is started until after that was seen to end.  It is named by the sixteen
hexadecimal digits that tell the unit from others.

Out of scope: whether there is such a unit (transient.py).  A file that is garbled, foreign or not root's is dropped.
"""

import json
import logging
import os
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace

from mountnsd import names, rootfile, syscalls
from mountnsd.named import Key

log = logging.getLogger(__name__)

DIRECTORY = "entered"
_SUFFIX = ".json"
_NUMBER = re.compile(r"[0-9a-f]{16}", re.ASCII)
_MAX_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose doing a process in a namespace is.

    Arguments: namespace, inode, id: where it was entered; uid: of the caller; caller: his connection's unique name;
        bus: the id of the bus that the connection is on, since another bus gives the same names to others;
        kill_on_disconnect: whether it ends with that connection; told: the caller knows how it ended.
    """

    namespace: str
    inode: int
    uid: int
    caller: str
    id: int = 0
    bus: str = ""
    kill_on_disconnect: bool = False
    told: bool = False

    @property
    def key(self) -> Key:
        """Which namespace it was, as of Namespace."""
        return self.namespace, self.inode, self.id


class Records:
    """The directory of these files in one runtime directory."""

    def __init__(self, runtime_directory: str) -> None:
        """Make and open the directory.  Raises OSError."""
        path = os.path.join(runtime_directory, DIRECTORY)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.fchmod(self._fd, 0o700)

    def close(self) -> None:
        syscalls.close(self._fd)

    def write(self, origin: Origin) -> str:
        """Keep `origin`; returns its number.  Raises OSError (ENOSPC)."""
        number = secrets.token_hex(8)
        self._write(number, origin)
        return number

    def mark_told(self, number: str, origin: Origin) -> None:
        """Keep that the caller knows how it ended.  What cannot be kept is logged: he may then be told again."""
        try:
            self._write(number, replace(origin, told=True))
        except OSError as error:
            log.warning("The record %s cannot be written: %s", number, error.strerror)

    def _write(self, number: str, origin: Origin) -> None:
        new = f".{number}.new"
        self._unlink(new)
        rootfile.write(new, json.dumps(asdict(origin)).encode(), self._fd)
        try:
            os.rename(new, number + _SUFFIX, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            self._unlink(new)
            raise

    def remove(self, number: str) -> None:
        """Forget it; harmless where there is none."""
        self._unlink(number + _SUFFIX)

    def all(self) -> dict[str, Origin]:
        """What is kept, by number; what cannot be believed is dropped."""
        found = {}
        for entry in syscalls.entries(self._fd):
            number = entry.removesuffix(_SUFFIX)
            try:
                if not _NUMBER.fullmatch(number) or not entry.endswith(_SUFFIX):
                    raise ValueError("no name of a record")
                found[number] = _decode(rootfile.read(entry, _MAX_SIZE, self._fd))
            except OSError as error:  # it may be all right but for a lack of descriptors, say
                log.warning("The record %s cannot be read: %s", names.shown(entry), error.strerror)
            except (rootfile.Untrusted, ValueError, TypeError, RecursionError):
                log.warning("Dropped what tells of no process that was entered: %s", names.shown(entry))
                self._unlink(entry)
        return found

    def _unlink(self, entry: str) -> None:
        try:
            os.unlink(entry, dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except OSError as error:  # a directory, say: not ours
            log.warning("Left alone among the records: %s: %s", names.shown(entry), error.strerror)


def _decode(text: bytes) -> Origin:
    """Raises ValueError or TypeError for anything that `write` would not have written."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("no record")
    known = {field.name for field in fields(Origin)}
    origin = Origin(**{key: value[key] for key in value.keys() & known})  # a later version may know more
    if not all(type(number) is int for number in (origin.inode, origin.id, origin.uid)):
        raise TypeError("a number is none")
    if (
        not all(0 <= number < 1 << 64 for number in (origin.inode, origin.id))
        or not 0 <= origin.uid < 1 << 32
    ):
        raise ValueError("a number is out of range")
    if not all(isinstance(word, str) for word in (origin.namespace, origin.caller, origin.bus)):
        raise TypeError("a text is none")
    if not isinstance(origin.kill_on_disconnect, bool) or not isinstance(origin.told, bool):
        raise TypeError("a switch is none")
    if not names.is_valid(origin.namespace) or not origin.caller.startswith(":"):
        raise ValueError("a name is none")
    return origin
