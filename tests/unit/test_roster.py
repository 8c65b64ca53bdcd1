# SPDX-License-Identifier: LGPL-2.1-or-later
"""The namespaces by name, inode and owner, of which one may be pinned under several names."""

from mountnsd.holder import Pin
from mountnsd.metadata import Metadata
from mountnsd.named import Namespace, State
from mountnsd.roster import Roster


def named(name: str, inode: int, owner: int = 0) -> Namespace:
    return Namespace.described(Pin(name, inode), "/holder", Metadata(inode, owner=owner), 0, State.ACTIVE)


def names_with(roster: Roster, inode: int) -> str | None:
    found = roster.with_inode(inode)
    return None if found is None else found.name


def test_the_first_name_of_an_inode_answers_for_it() -> None:
    roster = Roster()
    made = [named(name, 7) for name in ("c", "a", "b")] + [named("other", 8)]
    for one in made:
        roster.add(one)
    said = []
    for one in made[:3]:
        said.append(names_with(roster, 7))
        roster.remove(one)
    assert said == ["c", "a", "b"]
    assert names_with(roster, 7) is None
    assert names_with(roster, 8) == "other"
    assert list(roster) == ["other"]


def test_a_later_name_goes_before_the_first() -> None:
    roster = Roster()
    first, second, third = (named(name, 7) for name in ("a", "b", "c"))
    for one in (first, second, third):
        roster.add(one)
    roster.remove(second)
    assert names_with(roster, 7) == "a"
    roster.remove(first)
    assert names_with(roster, 7) == "c"
    roster.add(first)
    assert names_with(roster, 7) == "c"


def test_how_many_each_owner_has() -> None:
    roster = Roster()
    first, second = named("a", 1, owner=1000), named("b", 2, owner=1000)
    roster.add(first)
    roster.add(second)
    assert roster.owned(1000) == 2
    roster.remove(first)
    assert (roster.owned(1000), roster.owned(0), len(roster)) == (1, 0, 1)
    assert [one.name for one in roster.all()] == ["b"]
