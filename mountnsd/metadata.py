# SPDX-License-Identifier: LGPL-2.1-or-later
"""What mountnsd knows of a namespace beyond what the kernel says: one JSON file each.

A file is written whole as `.NAME.json.new` and then renamed to `NAME.json`.
While a namespace is made the rename comes after the pin, so that the rename is
the moment from which it exists: a pin beside a `.new` file that was not
renamed is an unfinished creation.

Out of scope: whether the namespace is there (holder.py).  A file that is
garbled, foreign or not root's is treated as absent.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import sys
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from mountnsd import names, rootfile, syscalls
from mountnsd.errors import Failed

log = logging.getLogger(__name__)

DIRECTORY = "meta"
_SUFFIX = ".json"
_NEW_SUFFIX = ".json.new"
_LOCK = "lock"  # in the runtime directory
_MAX_SIZE = 64 * 1024
_WITHHELD = (errno.EACCES, errno.ENXIO)  # by a security module; what lies there is a socket


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is kept of one namespace.

    inode and id say which namespace it is about: another one under the same name has nothing of it.
    """

    inode: int
    id: int = 0
    owner: int = 0
    created_usec: int = 0
    propagation: str = ""
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)


class MetadataStore:
    """The metadata directory of one runtime directory."""

    def __init__(self, runtime_directory: str) -> None:
        """Make and open the directory.  Raises OSError."""
        self._path = os.path.join(runtime_directory, DIRECTORY)
        self._fd = rootfile.open_directory(self._path)
        self._lock_path = os.path.join(runtime_directory, _LOCK)
        self._lock = -1
        self._owed: set[str] = set()  # what could not be removed yet

    def close(self) -> None:
        """Close the directory, and give up the lock."""
        syscalls.close(self._fd)
        if self._lock >= 0:
            syscalls.close(self._lock)

    def lock(self, patience: float = 3.0) -> None:
        """Be the only one who keeps this directory, until `close` or death.

        A second daemon would take the first one's unfinished creations for leftovers of a crash, and undo them.
        One that was killed and has a thread that cannot leave the kernel keeps its lock but runs no more: a new
        lock file then takes the place of its own.

        Arguments: patience: seconds to wait for one that is just ending.
        Raises: Failed where another one runs; OSError.
        """
        end = time.monotonic() + patience
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            fd = os.open(self._lock_path, flags, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_ino == os.stat(self._lock_path, follow_symlinks=False).st_ino:
                    os.truncate(fd, 0)
                    with contextlib.suppress(OSError):  # ENOSPC; it only helps to tell who is stuck
                        os.write(fd, str(os.getpid()).encode())
                    self._lock = fd
                    return
            except BlockingIOError:
                if _is_dying(fd):
                    log.warning("Another mountnsd was killed and is stuck in the kernel: taking its place")
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._lock_path)
                elif time.monotonic() >= end:
                    syscalls.close(fd)
                    raise Failed(f"Another mountnsd keeps {self._path} already; stop it first.") from None
                else:
                    time.sleep(0.02)
            except FileNotFoundError:
                pass  # replaced between our open and our look
            syscalls.close(fd)

    def prepare(self, name: str, metadata: Metadata) -> None:
        """Write the metadata of `name`, not yet valid.  Raises OSError (ENOSPC)."""
        self._fd = rootfile.current_directory(self._path, self._fd)
        self._unlink(f".{name}{_NEW_SUFFIX}")
        rootfile.write(f".{name}{_NEW_SUFFIX}", _encode(metadata), self._fd)

    def commit(self, name: str) -> None:
        """Make what `prepare` wrote valid, at once and whole.  Raises OSError."""
        os.rename(f".{name}{_NEW_SUFFIX}", f"{name}{_SUFFIX}", src_dir_fd=self._fd, dst_dir_fd=self._fd)
        self._owed -= {f".{name}{_NEW_SUFFIX}", f"{name}{_SUFFIX}"}

    def discard(self, name: str) -> None:
        """Forget what `prepare` wrote."""
        self._unlink(f".{name}{_NEW_SUFFIX}")

    def remove(self, name: str) -> None:
        """Forget `name`."""
        self._unlink(f"{name}{_SUFFIX}")

    def tidy(self) -> None:
        """Try again to remove what could not be removed."""
        for entry in tuple(self._owed):
            self._unlink(entry)

    def prepared(self) -> set[str]:
        """Names whose metadata was prepared and never made valid: creations that were cut short."""
        entries = (entry for entry in syscalls.entries(self._fd) if entry.startswith("."))
        found = (entry[1 : -len(_NEW_SUFFIX)] for entry in entries if entry.endswith(_NEW_SUFFIX))
        return {name for name in found if names.is_valid(name)}

    def names(self) -> set[str]:
        """Names that have metadata."""
        found = (entry[: -len(_SUFFIX)] for entry in syscalls.entries(self._fd) if entry.endswith(_SUFFIX))
        return {name for name in found if names.is_valid(name)}

    def read(self, name: str) -> Metadata | None:
        """The metadata of `name`, or None where there is none that can be believed (which is logged).

        Raises: OSError where it cannot be told now, as without descriptors.
        """
        return self._read(name, f"{name}{_SUFFIX}")

    def read_prepared(self, name: str) -> Metadata | None:
        """What `prepare` wrote for `name` and was not made valid; None as from `read`."""
        return self._read(name, f".{name}{_NEW_SUFFIX}")

    def _read(self, name: str, entry: str) -> Metadata | None:
        try:
            return _decode(rootfile.read(entry, _MAX_SIZE, self._fd))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _WITHHELD:
                raise
            log.warning("Metadata of namespace %s cannot be read: %s", name, error.strerror)
        except rootfile.Untrusted as error:
            log.warning("Metadata of namespace %s is ignored: %s", name, error)
        except (ValueError, TypeError, RecursionError):
            log.warning("Metadata of namespace %s is garbled: ignored", name)
        return None

    def _unlink(self, entry: str) -> None:
        try:
            os.unlink(entry, dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except IsADirectoryError as error:  # not ours
            log.warning("Left alone in the metadata: %s: %s", names.shown(entry), error.strerror)
        except OSError as error:
            if entry not in self._owed:
                log.warning("Left for now in the metadata: %s: %s", names.shown(entry), error.strerror)
            self._owed.add(entry)
            return
        self._owed.discard(entry)


_FIELDS = tuple(one.name for one in fields(Metadata))


def _encode(metadata: Metadata) -> bytes:
    return json.dumps({key: getattr(metadata, key) for key in _FIELDS}).encode()


def _decode(text: bytes) -> Metadata:
    """Raises ValueError or TypeError for anything that `prepare` would not have written."""
    value = json.loads(text)
    metadata = Metadata(**value)
    numbers = (metadata.inode, metadata.id, metadata.owner, metadata.created_usec)
    if not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
        raise ValueError("a number is none, or out of range")
    if metadata.owner >= 1 << 32:
        raise ValueError("the owner is no uid")
    if not isinstance(metadata.propagation, str) or not isinstance(metadata.description, str):
        raise TypeError("a text is none")
    labels = metadata.labels
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise TypeError("the labels are none")
    for words in (metadata.propagation, metadata.description, *labels, *labels.values()):
        if "\0" in words.encode().decode():  # half a character is a ValueError, too
            raise ValueError("a text that no message can carry")
    return replace(metadata, propagation=sys.intern(metadata.propagation))  # one for all


def _is_dying(lock: int) -> bool:
    """Whether the process that wrote its pid into a lock file has ended but for threads stuck in the kernel."""
    try:
        pid = int(os.pread(lock, 16, 0))
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
    except (ValueError, OSError):
        return False
    return state in (b"Z", b"X")
