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
from dataclasses import asdict, dataclass, fields, replace

from mountnsd import names, rootfile, syscalls
from mountnsd.named import Namespace

log = logging.getLogger(__name__)

DIRECTORY = "entered"
_SUFFIX = ".json"
_NUMBER = re.compile(r"[0-9a-f]{16}", re.ASCII)
_MAX_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose doing a process in a namespace is.

    Arguments: namespace, inode, id, created_usec: where it was entered; uid: of the caller; caller: his
        connection's unique name; bus: the id of the bus that the connection is on, since another bus gives the
        same names to others; kill_on_disconnect: whether it ends with that connection; told: the caller knows
        how it ended.
    """

    namespace: str
    inode: int
    uid: int
    caller: str
    id: int = 0
    created_usec: int = 0
    bus: str = ""
    kill_on_disconnect: bool = False
    told: bool = False

    def is_in(self, found: Namespace) -> bool:
        """Whether it is in that namespace: not in an earlier one of the same name, whose inode the kernel reused.

        A kernel may have no id to tell by, and a namespace whose metadata was lost no time.
        """
        times = self.created_usec, found.created_usec
        same = (self.namespace, self.inode, self.id) == (found.name, found.inode, found.id)
        return same and (times[0] == times[1] or 0 in times)


class Records:
    """The directory of these files in one runtime directory."""

    def __init__(self, runtime_directory: str) -> None:
        """Make and open the directory.  Raises OSError."""
        self._path = os.path.join(runtime_directory, DIRECTORY)
        self._fd = rootfile.open_directory(self._path)

    def close(self) -> None:
        syscalls.close(self._fd)

    def write(self, origin: Origin) -> str:
        """Keep `origin`; returns its number.  Raises OSError (ENOSPC)."""
        self._fd = rootfile.current_directory(self._path, self._fd)
        number = os.urandom(8).hex()
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
    if not all(type(number) is int for number in (*_numbers(origin), origin.uid)):
        raise TypeError("a number is none")
    if not all(0 <= number < 1 << 64 for number in _numbers(origin)) or not 0 <= origin.uid < 1 << 32:
        raise ValueError("a number is out of range")
    if not all(isinstance(word, str) for word in (origin.namespace, origin.caller, origin.bus)):
        raise TypeError("a text is none")
    if not isinstance(origin.kill_on_disconnect, bool) or not isinstance(origin.told, bool):
        raise TypeError("a switch is none")
    if not names.is_valid(origin.namespace) or not origin.caller.startswith(":"):
        raise ValueError("a name is none")
    return origin


def _numbers(origin: Origin) -> tuple[int, int, int]:
    return origin.inode, origin.id, origin.created_usec
