# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel tells of single mounts, and of names in a directory; and what is done where it tells nothing."""

import errno
import os
import select
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.ground import attempt, contained, fd_count, run
from support.holding import pinned

from mountnsd import inventory, mountevents, syscalls
from mountnsd.directorywatch import DirectoryWatch
from mountnsd.holder import Holder, Pin
from mountnsd.inventory import ByEvents
from mountnsd.mountevents import Event, Events, Told

NOBODYS = 1 << 62  # no mount has this id


def own_namespace() -> int:
    """A descriptor of the mount namespace that this is in."""
    return os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def is_told() -> bool:
    """Whether this kernel tells of mounts; elsewhere what is here cannot be."""
    fd = own_namespace()
    try:
        return attempt(lambda: Events(fd).close()) == 0
    finally:
        os.close(fd)


@pytest.fixture
def told(directory: Path) -> Callable[[Callable[[int, Path], None]], None]:
    """Runs a story in a container, with a descriptor of its namespace and a directory."""

    def tell(story: Callable[[int, Path], None]) -> None:
        if not is_told():
            return  # and the inventory reads all mounts, which test_inventory.py is about
        contained(lambda: story(own_namespace(), directory), shared=False)

    return tell


Tell = Callable[[Callable[[int, Path], None]], None]


class TestMounts:
    """statmount(2), listmount(2), statx(2)."""

    def test_one_and_what_is_below(self, told: Tell) -> None:
        def story(namespace: int, directory: Path) -> None:
            number = syscalls.mntns_id(namespace)
            syscalls.mount("here", str(directory), "tmpfs", 0)
            fd = os.open(directory, os.O_RDONLY)
            mount = mountevents.id_of(fd)
            found = mountevents.look(mount, number)
            assert found is not None
            assert (found.id, found.root, found.target, found.fstype) == (mount, "/", str(directory), "tmpfs")
            assert mountevents.below(mount, number) == []
            name = directory / "a name\n\\with # all"
            name.touch()
            syscalls.mount("/proc/self/ns/uts", str(name), None, syscalls.MS_BIND)
            (other,) = mountevents.below(mount, number)
            inode = name.stat().st_ino
            assert mountevents.look(other, number) == Told(other, mount, f"uts:[{inode}]", str(name), "nsfs")

        told(story)

    def test_long_paths_and_many_mounts(self, told: Tell) -> None:
        def story(namespace: int, directory: Path) -> None:
            number = syscalls.mntns_id(namespace)
            syscalls.mount("here", str(directory), "tmpfs", 0)
            fd = os.open(directory, os.O_RDONLY)
            path = directory
            for _ in range(15):
                path /= "x" * 200
                path.mkdir()
            syscalls.mount("there", str(path), "tmpfs", 0)
            (far,) = mountevents.below(mountevents.id_of(fd), number)
            found = mountevents.look(far, number)
            assert found is not None
            assert found.target == str(path)
            for name in range(5000):
                syscalls.mount("/dev/null", str(_touched(directory / str(name))), None, syscalls.MS_BIND)
            below = mountevents.below(mountevents.id_of(fd), number)
            assert len(set(below)) == len(below) == 5001
            assert below == sorted(below)

        told(story)

    def test_what_is_not_there(self, told: Tell) -> None:
        def story(namespace: int, directory: Path) -> None:
            number = syscalls.mntns_id(namespace)
            assert mountevents.look(NOBODYS, number) is None
            assert attempt(lambda: mountevents.below(NOBODYS, number)) == errno.ENOENT
            assert attempt(lambda: mountevents.id_of(-2)) == errno.EBADF
            assert directory.exists()

        told(story)

    def test_in_another_namespace(self, told: Tell) -> None:
        """As the hidden holder is."""

        def story(namespace: int, place: Path) -> None:
            os.chdir(place)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("there", str(place), "tmpfs", 0)
            fd = os.open(place, os.O_RDONLY)
            there = own_namespace()
            with closing(Events(there)) as events:
                syscalls.setns(namespace, syscalls.CLONE_NEWNS)
                mount = mountevents.id_of(fd)
                found = mountevents.look(mount, syscalls.mntns_id(there))
                assert found is not None
                assert found.target == str(place)
                assert mountevents.look(mount, syscalls.mntns_id(namespace)) is None
                assert events.take() == {}

        told(story)


class TestEvents:
    """fanotify(7)."""

    def test_come_moved_and_gone(self, told: Tell) -> None:
        def story(namespace: int, directory: Path) -> None:
            one, other = _touched(directory / "one"), _touched(directory / "other")
            with closing(Events(namespace)) as events:
                assert events.take() == {}
                syscalls.mount("/dev/null", str(one), None, syscalls.MS_BIND)
                assert select.select([events], [], [], 0)[0]
                (mount,) = events.take() or {}
                assert not select.select([events], [], [], 0)[0]
                run("mount", "--move", one, other)
                assert events.take() == {mount: Event.MOVED}
                syscalls.umount2(str(other))
                assert events.take() == {mount: Event.WENT}
                syscalls.mount("/dev/null", str(one), None, syscalls.MS_BIND)
                syscalls.umount2(str(one))
                assert [*(events.take() or {}).values()] == [Event.WENT]

        told(story)

    def test_too_many(self, told: Tell) -> None:
        """Then everything is looked at, once."""

        def story(_: int, directory: Path) -> None:
            most = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
            holder = Holder.ensure(str(directory / "run"))
            holder.follow()
            holder.survey()
            inode = pinned(holder, "a")
            one = _touched(directory / "one")
            for _ in range(most // 2 + 1):
                syscalls.mount("/dev/null", str(one), None, syscalls.MS_BIND)
                syscalls.umount2(str(one))
            assert holder.changes() is None
            assert holder.survey().pins == (Pin("a", inode),)
            holder.unpin("a", inode)
            changes = holder.changes()
            assert changes is not None
            assert changes.about == frozenset({"a"})
            assert changes.pins == ()

        told(story)

    def test_a_namespace_is_not_kept(self, told: Tell) -> None:
        """It ends with its last process, whoever is told of it: what is mounted there is unmounted."""

        def story(_: int, directory: Path) -> None:
            pid = os.fork()
            if pid == 0:
                syscalls.unshare(syscalls.CLONE_NEWNS)
                syscalls.mount("inside", str(directory), "tmpfs", 0)
                os.kill(os.getpid(), signal.SIGSTOP)
                os._exit(0)
            os.waitpid(pid, os.WUNTRACED)
            inside = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
            with closing(Events(inside)) as events:
                os.close(inside)
                assert events.take() == {}
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                assert select.select([events], [], [], 5)[0]
                gone = events.take()
                assert gone
                assert {*gone.values()} == {Event.WENT}

        told(story)


class TestNames:
    """inotify(7)."""

    def test_whoever_does_it(self, directory: Path) -> None:
        fd = os.open(directory, os.O_RDONLY)
        with closing(DirectoryWatch(fd)) as watch:
            assert watch.take() == set()
            (directory / "a").touch()
            (directory / "b").mkdir()
            assert watch.take() == {"a", "b"}
            (directory / "a").write_text("what is written is of no account")
            assert watch.take() == set()
            contained((directory / "a").unlink)
            assert watch.take() == {"a"}
            (directory / "b").rename(directory / "c")
            assert watch.take() is None
            assert watch.take() == set()
        os.close(fd)

    def test_too_many(self, directory: Path) -> None:
        most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        fd = os.open(directory, os.O_RDONLY)
        with closing(DirectoryWatch(fd)) as watch:
            for number in range(most // 2 + 1):
                path = directory / f"n{number}"
                path.touch()
                path.unlink()
            assert watch.take() is None
            (directory / "a").touch()
            assert watch.take() == {"a"}
        os.close(fd)

    def test_no_directory(self) -> None:
        before = fd_count()
        fd = os.open("/dev/null", os.O_RDONLY)
        assert attempt(lambda: DirectoryWatch(fd)) == errno.ENOTDIR
        os.close(fd)
        assert fd_count() == before


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EMFILE])
@pytest.mark.parametrize("call", ["Events", "below", "look", "id_of"])
def test_where_nothing_is_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    """By an older kernel, or in a sandbox: everything is read, and comes to the same."""

    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(inventory if call == "Events" else mountevents, call, refuse)

    def story() -> None:
        before = fd_count()
        with closing(Holder.ensure(str(directory / "run"))) as holder:
            holder.follow()
            assert holder.survey().pins == ()
            inode = pinned(holder, "a")
            changes = holder.changes()
            assert changes is not None
            assert changes.pins == (Pin("a", inode),)
            run("umount", f"{holder.path}/a")
            changes = holder.changes()
            assert changes is not None
            assert (changes.pins, changes.leftovers, changes.about) == ((), ("a",), frozenset({"a"}))
        assert fd_count() == before

    contained(story)


def test_refused_by_the_kernel() -> None:
    """Nothing is left open."""
    before = fd_count()
    fd = os.open("/dev/null", os.O_RDONLY)
    assert attempt(lambda: Events(fd)) == errno.EINVAL
    assert attempt(lambda: ByEvents(fd, fd)) in (errno.EINVAL, errno.ENOTTY)
    os.close(fd)
    assert fd_count() == before


def _touched(path: Path) -> Path:
    path.touch()
    return path
