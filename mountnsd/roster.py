# SPDX-License-Identifier: LGPL-2.1-or-later
"""The namespaces that there are: by name, by inode, and how many each owner has.

Out of scope: whether they are there (registry.py).
"""

from collections import Counter
from collections.abc import Iterator

from mountnsd.named import Namespace


class Roster:
    """The namespaces, found without looking at all of them."""

    def __init__(self) -> None:
        self._by_name: dict[str, Namespace] = {}
        self._by_inode: dict[int, str] = {}  # the name that came first
        self._also: dict[int, list[str]] = {}  # the others, where a namespace is pinned more than once
        self._owners: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        """The names, in no order."""
        return iter(self._by_name)

    def get(self, name: str) -> Namespace | None:
        return self._by_name.get(name)

    def all(self) -> list[Namespace]:
        """All of them, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def with_inode(self, inode: int) -> Namespace | None:
        """One that is pinned there, the first that was taken in."""
        name = self._by_inode.get(inode)
        return None if name is None else self._by_name[name]

    def owned(self, owner: int) -> int:
        """How many a user has."""
        return self._owners[owner]

    def add(self, found: Namespace) -> None:
        """Take one in whose name is not there."""
        self._by_name[found.name] = found
        if found.inode in self._by_inode:
            self._also.setdefault(found.inode, []).append(found.name)
        else:
            self._by_inode[found.inode] = found.name
        self._owners[found.owner] += 1

    def replace(self, found: Namespace) -> None:
        """Take in the same one in another state."""
        self._by_name[found.name] = found

    def remove(self, found: Namespace) -> None:
        """Forget one that is there."""
        del self._by_name[found.name]
        self._remove_inode(found)
        self._owners[found.owner] -= 1
        if not self._owners[found.owner]:
            del self._owners[found.owner]

    def _remove_inode(self, found: Namespace) -> None:
        also = self._also.get(found.inode)
        if also is None:
            del self._by_inode[found.inode]
            return
        if self._by_inode[found.inode] == found.name:
            self._by_inode[found.inode] = also.pop(0)
        else:
            also.remove(found.name)
        if not also:
            del self._also[found.inode]
