# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is known of the holder by its changes is what there is: whatever somebody does there, and in whatever order.

After each step, what the changes came to is compared with what a holder that knows nothing yet finds.
"""

import contextlib
import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from support.ground import contained
from support.holding import new_namespace, pinned

from mountnsd import helper, inventory, syscalls
from mountnsd import holder as holder_module
from mountnsd.errors import MountFailed, NamespaceStale
from mountnsd.holder import Holder, Survey
from mountnsd.mountevents import Events
from mountnsd.place import Place

NAMES = ("a", "b", "c", "d", "not a name")
PLACES = ("x", "y")  # beside the holder
BENEATH = 0x200  # MOVE_MOUNT_BENEATH, Linux 6.5
HOWS = ("events", "names", "reading")  # the kernel tells of mounts and names, of names alone, of nothing


def tells_of_mounts() -> bool:
    """Whether this kernel does."""
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    try:
        Events(fd).close()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


@pytest.fixture(params=HOWS)
def how(request: pytest.FixtureRequest) -> str:
    """How changes come to be known; a kernel that does not tell of mounts has only one way."""
    return "names" if request.param == "events" and not tells_of_mounts() else str(request.param)


def followed(holder: Holder, how: str) -> None:
    """Have the holder follow what happens in it."""
    with pytest.MonkeyPatch.context() as patch:
        if how != "events":
            patch.setattr(inventory, "Events", refuse)
        if how == "reading":
            patch.setattr(holder_module, "DirectoryWatch", refuse)
        holder.follow()


def refuse(_: int) -> NoReturn:
    """What an old kernel does."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@dataclass
class Known:
    """What surveys have come to."""

    pins: dict[str, int] = field(default_factory=dict)
    covered: dict[str, int] = field(default_factory=dict)
    leftovers: set[str] = field(default_factory=set)

    def take(self, survey: Survey) -> None:
        """Take in what a survey says."""
        if survey.about is None:
            self.pins, self.covered, self.leftovers = {}, {}, set()
        for name in survey.about or ():
            self.pins.pop(name, None)
            self.covered.pop(name, None)
            self.leftovers.discard(name)
        self.pins |= {pin.name: pin.inode for pin in survey.pins}
        self.covered |= {pin.name: pin.inode for pin in survey.covered}
        self.leftovers |= {*survey.leftovers}


class Hands:
    """Somebody with a hand in the holder, and now and then mountnsd itself."""

    def __init__(self, holder: Holder, chance: random.Random) -> None:
        self.holder = holder
        self.chance = chance
        self.place = Path(holder.path)
        self.namespaces = [new_namespace(holder) for _ in range(3)]
        for name in PLACES:
            (self.place.parent / name).touch()
        (self.place.parent / "tree").mkdir()

    def close(self) -> None:
        for fd in self.namespaces:
            os.close(fd)

    def name(self) -> Path:
        """One in the holder."""
        return self.place / self.chance.choice(NAMES)

    def somewhere(self) -> Path:
        """A path in the holder or beside it."""
        return self.chance.choice(
            [self.place / name for name in NAMES] + [self.place.parent / p for p in PLACES]
        )

    def namespace(self) -> int:
        return self.chance.choice(self.namespaces)

    # What may be done

    def pin(self) -> None:
        self.holder.pin(self.chance.choice(NAMES[:-1]), self.namespace())

    def unpin(self) -> None:
        name = self.chance.choice(NAMES)
        self.holder.unpin(name, (self.place / name).stat().st_ino)

    def touch(self) -> None:
        self.name().touch()

    def make_directory(self) -> None:
        self.name().mkdir()

    def remove(self) -> None:
        name = self.name()
        name.rmdir() if name.is_dir() else name.unlink()

    def bind(self) -> None:
        name = self.somewhere()
        if not name.exists() and self.chance.random() < 0.8:
            name.touch()
        self._bind(self.namespace(), name)

    def bind_foreign(self) -> None:
        source = self.chance.choice(["/dev/null", "/proc/self/ns/net", str(self.somewhere())])
        syscalls.mount(source, str(self.somewhere()), None, syscalls.MS_BIND)

    def bind_many(self) -> None:
        for name in NAMES:
            with contextlib.suppress(OSError):
                self._bind(self.namespace(), self.place / name)

    def mount_directory(self) -> None:
        name = self.name()
        syscalls.mount("other", str(name), "tmpfs", 0)
        for below in ("one", "two"):
            (name / below).touch()
            if self.chance.random() < 0.5:
                self._bind(self.namespace(), name / below)

    def bind_tree(self) -> None:
        """A directory with mounts in it, onto one in the holder."""
        tree = self.place.parent / "tree"
        if not (tree / "one").exists():
            syscalls.mount("tree", str(tree), "tmpfs", 0)
            (tree / "one").touch()
            self._bind(self.namespace(), tree / "one")
        name = self.name()
        if not name.exists():
            name.mkdir()
        syscalls.mount(str(tree), str(name), None, syscalls.MS_BIND | syscalls.MS_REC)

    def bind_both(self) -> None:
        """A pin that comes with what is mounted on it."""
        flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
        path = self.somewhere()
        below = path.parent / path.name
        tree = syscalls.open_tree(syscalls.AT_FDCWD, str(below), flags)
        try:
            target = self.somewhere()
            syscalls.move_mount(tree, "", syscalls.AT_FDCWD, str(target), syscalls.MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(tree)

    def unmount(self) -> None:
        syscalls.umount2(str(self.somewhere()), self.chance.choice([0, syscalls.MNT_DETACH]))

    def unmount_all(self) -> None:
        for name in NAMES:
            with contextlib.suppress(OSError):
                syscalls.umount2(str(self.place / name), syscalls.MNT_DETACH)

    def move(self) -> None:
        self._move(self.somewhere(), self.somewhere(), 0)

    def move_beneath(self) -> None:
        """A mount of its own, or one that is there, beneath what is on a name."""
        if self.chance.random() < 0.5:
            self._move(self.somewhere(), self.somewhere(), BENEATH)
            return
        tree = syscalls.open_tree(self.namespace(), "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        try:
            flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | BENEATH
            syscalls.move_mount(tree, "", syscalls.AT_FDCWD, str(self.somewhere()), flags)
        finally:
            os.close(tree)

    def elsewhere_unlink(self) -> None:
        """By somebody in another mount namespace, where nothing keeps him from it."""
        name = self.name()
        self._elsewhere(name.unlink)

    def elsewhere_rename(self) -> None:
        one, other = self.name(), self.name()
        self._elsewhere(lambda: one.rename(other))

    def overmount(self) -> None:
        syscalls.mount("over", str(self.place), "tmpfs", 0)

    def uncover(self) -> None:
        target = os.stat(self.place)
        if target.st_dev != self.holder.place.device:
            syscalls.umount2(str(self.place), syscalls.MNT_DETACH)

    def propagate(self) -> None:
        flag = self.chance.choice([syscalls.MS_SHARED, syscalls.MS_SLAVE, syscalls.MS_PRIVATE])
        syscalls.mount(None, str(self.somewhere()), None, flag)

    def unrelated(self) -> None:
        syscalls.mount("unrelated", "/mnt", "tmpfs", 0)
        syscalls.umount2("/mnt", 0)

    def lose_the_holder(self) -> None:
        if self.chance.random() < 0.1:
            syscalls.umount2(str(self.place), syscalls.MNT_DETACH)

    # How

    def _bind(self, namespace: int, target: Path) -> None:
        syscalls.mount(f"/proc/self/fd/{namespace}", str(target), None, syscalls.MS_BIND)

    def _move(self, source: Path, target: Path, flags: int) -> None:
        syscalls.move_mount(syscalls.AT_FDCWD, str(source), syscalls.AT_FDCWD, str(target), flags)

    def _elsewhere(self, work: Callable[[], object]) -> None:
        def body() -> None:
            syscalls.unshare(syscalls.CLONE_FS | syscalls.CLONE_NEWNS)
            work()

        helper.run_blocking(body)

    DEEDS = (
        *(pin, pin, pin, unpin, touch, make_directory, remove, bind, bind, bind_foreign, bind_many),
        *(mount_directory, bind_tree, bind_both, unmount, unmount, unmount_all, move, move, move_beneath),
        *(
            elsewhere_unlink,
            elsewhere_rename,
            overmount,
            uncover,
            uncover,
            propagate,
            unrelated,
            lose_the_holder,
        ),
    )

    def do(self) -> str:
        """One of these, which may fail."""
        deed = self.chance.choice(self.DEEDS)
        try:
            deed(self)
        except (OSError, MountFailed, NamespaceStale) as error:
            return f"{deed.__name__}: {error}"
        return deed.__name__


def compared(runtime: Path, how: str, seed: int) -> None:
    """A story of many steps."""
    chance = random.Random(seed)
    holder = Holder.ensure(str(runtime))
    followed(holder, how)
    hands = Hands(holder, chance)
    known = Known()
    known.take(holder.survey())
    told = []
    for _ in range(40):
        told += [hands.do() for _ in range(chance.choice((1, 1, 1, 2, 5)))]
        known.take(holder.changes() or holder.survey())
        known.leftovers = {name for name in known.leftovers if holder.occupied(name)}
        fresh = Holder(str(runtime), Place(holder.path, os.dup(holder.place.directory)), hide=False)
        truth = Known()
        truth.take(fresh.survey())
        fresh.close()
        assert known == truth, f"seed {seed}: {told}"
    hands.close()
    holder.close()


@pytest.mark.longest(300)
@pytest.mark.parametrize("seeds", [range(start, start + 10) for start in range(0, 40, 10)], ids=str)
def test_whatever_is_done(directory: Path, how: str, seeds: range) -> None:
    for seed in seeds:
        contained(partial(compared, directory / f"run{seed}", how, seed), shared=seed % 2 == 0)


def test_out_of_sight(directory: Path, how: str) -> None:
    """In another mount namespace than this process's."""

    def story() -> None:
        runtime = str(directory / "run")
        holder = Holder.ensure(runtime, hide=True)
        assert holder.place.hidden
        followed(holder, how)
        known = Known()
        known.take(holder.survey())
        inodes = {name: pinned(holder, name) for name in ("a", "b", "c")}
        place = Path(holder.path)

        def on_b() -> None:
            syscalls.mount("/dev/null", str(place / "b"), None, syscalls.MS_BIND)

        steps: tuple[Callable[[], object], ...] = (
            lambda: None,
            lambda: holder.place.inside(lambda: syscalls.umount2(str(place / "a"))),
            lambda: holder.place.inside(on_b),
            lambda: holder.unpin("c", inodes["c"]),
            lambda: holder.place.inside(lambda: syscalls.umount2(str(place / "b"))),
        )
        for step in steps:
            step()
            changes = holder.changes()
            assert changes is not None
            known.take(changes)
            fresh, truth = Holder.ensure(runtime, hide=True), Known()
            truth.take(fresh.survey())
            fresh.close()
            assert known == truth
        assert known == Known({"b": inodes["b"]}, {}, {"a"})
        holder.close()

    contained(story)
