# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was acknowledged, and so must be so: the namespaces, whatever happens to the daemon.

Each name belongs to one caller, who alone creates and destroys it, one call after the other.  So what an answer
says is what must be found later.  A call whose answer was lost with the daemon leaves either outcome.  Names that
all callers fight over are not in here: for them only the kernel's word counts.
"""

from dataclasses import dataclass, field
from enum import Enum


class Fate(Enum):
    """What must be true of a name."""

    ABSENT = "absent"
    PRESENT = "present"
    UNKNOWN = "unknown"  # the answer was lost


@dataclass(slots=True)
class Known:
    """What is known of one name.

    Attributes: inode, id: of the namespace that was acknowledged, 0 where nobody has looked yet.
    """

    name: str
    uid: int
    fate: Fate = Fate.ABSENT
    inode: int = 0
    id: int = 0


@dataclass(slots=True)
class Found:
    """A namespace as the daemon says it is."""

    inode: int
    id: int
    uid: int


@dataclass(slots=True)
class Model:
    """All names, and what is gone for ever.

    Attributes: gone: 64-bit ids of namespaces whose end was acknowledged, which the kernel gives to no other one;
        lazy: inodes of namespaces whose name was dropped while processes stay inside.
    """

    names: dict[str, Known] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    lazy: set[int] = field(default_factory=set)

    def add(self, name: str, uid: int) -> Known:
        known = self.names[name] = Known(name, uid)
        return known

    def created(self, known: Known, inode: int) -> None:
        """A creation was acknowledged."""
        known.fate, known.inode, known.id = Fate.PRESENT, inode, 0

    def destroyed(self, known: Known) -> None:
        """A destruction was acknowledged."""
        if known.id:
            self.gone.add(known.id)
        known.fate, known.inode, known.id = Fate.ABSENT, 0, 0

    def compare(self, found: dict[str, Found]) -> list[str]:
        """What the daemon says against what was acknowledged; learns what was unknown.

        Arguments: found: all there are, by name, while no call is under way.
        """
        wrong = [complaint for known in self.names.values() if (complaint := self._judge(known, found))]
        wrong += [f"{name} came back: id {one.id}" for name, one in found.items() if one.id in self.gone]
        return wrong

    def _judge(self, known: Known, found: dict[str, Found]) -> str:
        here = found.get(known.name)
        if here is None:
            if known.fate is Fate.PRESENT:
                return f"{known.name} was acknowledged and is lost"
            self.destroyed(known)
            return ""
        if known.fate is Fate.ABSENT:
            return f"{known.name} was destroyed and is there again"
        if known.inode not in (0, here.inode) or known.id not in (0, here.id):
            return f"{known.name} is another namespace than the one that was acknowledged"
        if known.uid != here.uid:
            return f"{known.name} is said to belong to {here.uid}, and was made by {known.uid}"
        known.fate, known.inode, known.id = Fate.PRESENT, here.inode, here.id
        return ""
