# SPDX-License-Identifier: LGPL-2.1-or-later
"""The holder on the real kernel: set up once, private and unbindable, and wary of what is not its own."""

import errno
import fcntl
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import leaks
from support.ground import attempt, contained, fd_count, forked, run
from support.holding import mount_base, mounted_at, new_namespace, pinned, sixteen_at_once, the_two
from support.identity import NOBODY

from mountnsd import holder as holder_module
from mountnsd import syscalls
from mountnsd.errors import Failed, MountFailed, NamespaceStale
from mountnsd.holder import Holder, Pin
from mountnsd.witness import open_pin


@pytest.fixture
def runtime(directory: Path) -> Iterator[Path]:
    """A runtime directory that is not there yet; what is mounted below it is taken down."""
    before = fd_count()
    yield directory / "run"
    for mount in reversed(leaks.mounts_below(directory)):
        leaks.detach(mount)
    assert fd_count() == before, "a descriptor was left open"


@pytest.fixture
def holder(runtime: Path) -> Iterator[Holder]:
    """The holder in it."""
    with closing(Holder.ensure(str(runtime))) as made:
        yield made


class TestSetUp:
    """One holder, of the right kind."""

    def test_what_it_is(self, holder: Holder, runtime: Path) -> None:
        _, mount = the_two(runtime)
        assert mount.root == "/"
        assert {"nosuid", "nodev", "noexec"} <= set(mount.options.split(","))
        assert {"mode=700", "size=1024k", "nr_inodes=131072"} <= set(mount.super_options.split(","))
        assert mount.unbindable
        assert (mount.peer_group, mount.master) == (0, 0)
        status = (runtime / "ns").stat()
        assert (status.st_mode & 0o7777, status.st_uid) == (0o700, 0)
        assert holder.trouble() is None

    def test_private_and_unbindable_where_all_is_shared(self, runtime: Path) -> None:
        def story() -> None:
            Holder.ensure(str(runtime)).close()
            the_two(runtime)

        contained(story)

    def test_found_again_with_its_pins(self, holder: Holder, runtime: Path) -> None:
        inode = pinned(holder, "a")
        with closing(Holder.ensure(str(runtime))) as again:
            assert again.survey().pins == (Pin("a", inode),)
        the_two(runtime)

    @pytest.mark.parametrize("begun", [False, True])
    def test_sixteen_at_once_set_up_one(self, runtime: Path, begun: bool) -> None:
        if begun:
            mount_base(runtime)
        sixteen_at_once(lambda: Holder.ensure(str(runtime)).close())
        the_two(runtime)

    def test_over_a_path_with_a_symlink(self, directory: Path, runtime: Path) -> None:
        (directory / "var").mkdir()
        (directory / "var" / "run").symlink_to(directory)
        with closing(Holder.ensure(str(directory / "var" / "run" / "run"))) as holder:
            assert holder.path == str(runtime / "ns")
            inode = pinned(holder, "a")
            assert holder.survey().pins == (Pin("a", inode),)

    @pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
    def test_not_where_others_can_write(self, runtime: Path, mode: int) -> None:
        runtime.mkdir()
        runtime.chmod(mode)
        with pytest.raises(Failed, match="must belong to root"):
            Holder.ensure(str(runtime))
        assert not mounted_at(runtime / "ns")

    def test_not_in_somebody_elses_directory(self, runtime: Path) -> None:
        runtime.mkdir()
        os.chown(runtime, NOBODY, 0)
        with pytest.raises(Failed, match="must belong to root"):
            Holder.ensure(str(runtime))

    def test_not_over_a_symlink(self, directory: Path, runtime: Path) -> None:
        runtime.mkdir(0o755)
        (directory / "elsewhere").mkdir()
        (runtime / "ns").symlink_to(directory / "elsewhere")
        with pytest.raises(MountFailed):
            Holder.ensure(str(runtime))
        assert not mounted_at(directory / "elsewhere")

    def test_nobody_can_hold_up_the_start(self, runtime: Path) -> None:
        """Whoever can open a directory can lock it, and never let go."""
        runtime.mkdir(0o755)
        (runtime / "ns").mkdir(0o755)

        def lock() -> None:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            fd = os.open(runtime, os.O_RDONLY)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours.send(b"locked")
            ours.recv(1)

        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = os.fork()
            if pid == 0:
                theirs.close()
                try:
                    lock()
                finally:
                    os._exit(0)
            ours.close()
            assert theirs.recv(10) == b"locked"
            try:
                forked(lambda: Holder.ensure(str(runtime)).close(), timeout=5)
            finally:
                leaks.end(pid)
        the_two(runtime)
        assert (runtime / "ns").stat().st_mode & 0o7777 == 0o700

    def test_what_else_is_mounted_there_is_left_alone(self, holder: Holder, runtime: Path) -> None:
        pinned(holder, "a")
        run("mount", "-t", "tmpfs", "other", runtime / "ns")
        with pytest.raises(Failed, match="covered by a mount that is not mountnsd's") as refusal:
            Holder.ensure(str(runtime))
        assert f"umount {runtime / 'ns'}" in refusal.value.message
        assert holder.trouble() == "overmounted"
        assert [mount.source for mount in mounted_at(runtime / "ns")][1:] == ["mountnsd", "other"]
        run("umount", runtime / "ns")
        assert holder.trouble() is None
        Holder.ensure(str(runtime)).close()

    @pytest.mark.parametrize("what", ["elsewhere", "run"])
    def test_nor_is_another_bind(self, directory: Path, runtime: Path, what: str) -> None:
        (runtime / "ns").mkdir(parents=True)
        runtime.chmod(0o755)
        (directory / "elsewhere").mkdir()
        run("mount", "--bind", directory / what, runtime / "ns")
        with pytest.raises(Failed, match="not mountnsd's"):
            Holder.ensure(str(runtime))
        assert len(mounted_at(runtime / "ns")) == 1

    def test_a_holder_that_somebody_else_owns_is_none(self, runtime: Path) -> None:
        (runtime / "ns").mkdir(parents=True)
        runtime.chmod(0o755)
        run("mount", "-t", "tmpfs", "-o", f"mode=0700,uid={NOBODY}", "mountnsd", runtime / "ns")
        with pytest.raises(Failed, match="not mountnsd's"):
            Holder.ensure(str(runtime))

    @pytest.mark.parametrize("shared", [False, True])
    def test_a_recursive_bind_of_the_root_copies_no_pin(self, directory: Path, shared: bool) -> None:
        def story() -> None:
            with closing(Holder.ensure(str(directory / "run"))) as holder:
                pinned(holder, "a")
                (directory / "copy").mkdir()
                run("mount", "--rbind", "/", directory / "copy")
                copies = [mount for mount in leaks.mounts() if mount.fstype == "nsfs"]
                assert [mount.point for mount in copies if mount.point.endswith("/a")] == [
                    f"{directory}/run/ns/a"
                ]
                copied = mounted_at(f"{directory}/copy{directory}/run/ns")
                (only,) = copied
                assert f"{directory}/run/ns".endswith(only.root)  # from the root of the mount that it is on
                assert attempt(lambda: syscalls.open_tree(-100, holder.path, 1)) == errno.EINVAL

        contained(story, shared=shared)


class TestPins:
    """Names in the holder."""

    def test_a_life(self, holder: Holder, runtime: Path) -> None:
        inode = pinned(holder, "a")
        (mount,) = mounted_at(runtime / "ns" / "a")
        assert (mount.fstype, mount.root) == ("nsfs", f"mnt:[{inode}]")
        assert holder.pin_path("a") == str(runtime / "ns" / "a")
        assert holder.survey().pins == (Pin("a", inode),)
        fd = holder.open("a", inode)
        assert os.fstat(fd).st_ino == inode
        assert not os.get_inheritable(fd)
        os.close(fd)
        assert holder.unpin("a", inode) is False
        assert holder.survey() == type(holder.survey())((), (), ())
        assert os.listdir(runtime / "ns") == []

    @pytest.mark.parametrize("name", ["a", "_", "0.a", "a.b-c_d", "x" * 64, "a.json", "a."])
    def test_every_name(self, holder: Holder, name: str) -> None:
        inode = pinned(holder, name)
        assert holder.survey().pins == (Pin(name, inode),)
        holder.unpin(name, inode)

    def test_a_pin_cannot_be_removed_here(self, holder: Holder, runtime: Path) -> None:
        inode = pinned(holder, "a")
        assert attempt((runtime / "ns" / "a").unlink) == errno.EBUSY
        assert holder.survey().pins == (Pin("a", inode),)

    def test_a_name_that_is_taken(self, holder: Holder) -> None:
        inode = pinned(holder, "a")
        fd = new_namespace(holder)
        with closing(os.fdopen(fd)), pytest.raises(MountFailed) as refusal:
            holder.pin("a", fd)
        assert refusal.value.errno == errno.EEXIST
        assert holder.survey().pins == (Pin("a", inode),)
        assert holder.occupied("a")
        assert not holder.occupied("b")

    def test_a_pin_that_fails_leaves_nothing(self, holder: Holder, runtime: Path) -> None:
        with Path("/proc/self/ns/mnt").open() as own, pytest.raises(MountFailed) as refusal:
            holder.pin("a", own.fileno())  # a namespace cannot keep itself
        assert refusal.value.errno == errno.ELOOP
        assert os.listdir(runtime / "ns") == []

    def test_one_that_is_held_open_is_said_to_be(self, holder: Holder, runtime: Path) -> None:
        inode = pinned(holder, "a")
        with (runtime / "ns" / "a").open():
            assert holder.unpin("a", inode) is True
        assert os.listdir(runtime / "ns") == []
        assert holder.survey().pins == ()

    def test_another_inode_is_not_opened_and_not_unpinned(self, holder: Holder) -> None:
        inode = pinned(holder, "a")
        for work in (holder.open, holder.unpin):
            with pytest.raises(NamespaceStale, match="findmnt"):
                work("a", inode + 1)
        assert holder.survey().pins == (Pin("a", inode),)

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
    @pytest.mark.parametrize("failing", ["a", "/proc/self/fd/"])
    def test_what_has_run_out_says_nothing_of_a_pin(
        self, holder: Holder, number: int, failing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inode = pinned(holder, "a")
        really = os.open
        before = fd_count()

        def scarce(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path.rstrip("0123456789") == failing:
                raise OSError(number, os.strerror(number))
            return really(path, flags, mode, dir_fd=dir_fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", scarce)
            for work in (holder.survey, lambda: holder.open("a", inode)):
                assert attempt(work) == number
            with pytest.raises(MountFailed) as refusal:
                holder.unpin("a", inode)
            assert refusal.value.errno == number
        assert fd_count() == before
        assert holder.survey().pins == (Pin("a", inode),)

    def test_at_the_limit_of_descriptors(self, holder: Holder) -> None:
        """Whichever of the look's steps it hits: an error, and never a pin that is called covered."""
        inode = pinned(holder, "a")

        def story() -> list[object]:
            seen: list[object] = []
            top = max(int(name) for name in os.listdir("/proc/self/fd"))
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            for room in range(top + 20):
                resource.setrlimit(resource.RLIMIT_NOFILE, (room, most))
                try:
                    seen.append(holder.survey())
                except OSError as error:
                    seen.append(error.errno)
            return seen

        seen = forked(story)
        assert errno.EMFILE in seen
        whole = type(holder.survey())((Pin("a", inode),), (), ())
        assert all(what in (errno.EMFILE, whole) for what in seen)
        assert seen[-1] == whole

    def test_one_that_is_gone(self, holder: Holder) -> None:
        with pytest.raises(NamespaceStale):
            holder.open("a", 1)

    def test_two_names_of_one_namespace(self, holder: Holder) -> None:
        fd = new_namespace(holder)
        inode = os.fstat(fd).st_ino
        holder.pin("a", fd)
        holder.pin("b", fd)
        os.close(fd)
        assert set(holder.survey().pins) == {Pin("a", inode), Pin("b", inode)}
        holder.unpin("a", inode)
        assert holder.survey().pins == (Pin("b", inode),)


class TestForeign:
    """What is not ours."""

    def test_it_is_left_alone_and_logged_once(
        self, holder: Holder, runtime: Path, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        place = runtime / "ns"
        inode = pinned(holder, "mine")
        (place / "full").write_text("x")
        (place / "directory").mkdir()
        (place / "link").symlink_to("mine")
        os.mkfifo(place / "fifo")
        (place / "theirs").touch()
        os.chown(place / "theirs", NOBODY, 0)
        (place / "b..d").touch()
        for name, what in (("tmpfs", directory), ("net", "/proc/self/ns/net"), ("-bad", place / "mine")):
            (place / name).touch() if Path(what).is_file() else (place / name).mkdir()
            run("mount", "--bind", what, place / name)
        (place / "line\nbreak").touch()
        before = {(mount.mount_id, mount.point) for mount in leaks.mounts_below(place)}
        names = set(os.listdir(place))
        with caplog.at_level(logging.WARNING):
            survey = holder.survey()
            holder.survey()
        assert survey.pins == (Pin("mine", inode),)
        assert (survey.covered, survey.leftovers) == ((), ())
        assert len(caplog.records) == len(names) - 1
        assert not any("\n" in record.getMessage() for record in caplog.records)
        assert {(mount.mount_id, mount.point) for mount in leaks.mounts_below(place)} == before
        assert set(os.listdir(place)) == names

    def test_an_empty_file_of_roots_is_a_leftover(self, holder: Holder, runtime: Path) -> None:
        (runtime / "ns" / "cut").touch()
        assert holder.survey().leftovers == ("cut",)
        holder.remove_leftover("cut")
        holder.remove_leftover("cut")
        assert holder.survey().leftovers == ()

    def test_a_pin_that_something_covers(self, holder: Holder, runtime: Path, directory: Path) -> None:
        inode = pinned(holder, "a")
        (directory / "cover").touch()
        run("mount", "--bind", directory / "cover", runtime / "ns" / "a")
        survey = holder.survey()
        assert (survey.pins, survey.covered) == ((), (Pin("a", inode),))
        with pytest.raises(NamespaceStale):
            holder.unpin("a", inode)
        run("umount", runtime / "ns" / "a")
        assert holder.survey().pins == (Pin("a", inode),)

    def test_a_pin_that_another_namespace_covers(self, holder: Holder, runtime: Path) -> None:
        inode = pinned(holder, "a")
        pinned(holder, "b")
        run("mount", "--bind", runtime / "ns" / "b", runtime / "ns" / "a")
        assert holder.survey().covered == (Pin("a", inode),)

    def test_a_pin_that_was_believed_is_not_opened_again(
        self, holder: Holder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A look at ten thousand pins is a look at mountinfo; only what is new there is opened."""
        inodes = {name: pinned(holder, name) for name in ("a", "b")}
        holder.survey()
        opened: list[str] = []

        def witness(directory: int, name: str, inode: int | None = None) -> int | None:
            opened.append(name)
            return open_pin(directory, name, inode)

        monkeypatch.setattr(holder_module, "open_pin", witness)
        inodes["c"] = pinned(holder, "c")
        assert {pin.name: pin.inode for pin in holder.survey().pins} == inodes
        holder.survey()
        assert opened == ["c"]

    def test_a_pin_that_is_opened_says_its_id(self, holder: Holder, runtime: Path) -> None:
        """Who starts with ten thousand pins opens each once."""
        pinned(holder, "a")
        fd = os.open(runtime / "ns" / "a", os.O_RDONLY)
        number = syscalls.mntns_id(fd)
        os.close(fd)
        (first,) = holder.survey().pins
        (again,) = holder.survey().pins
        assert (first.id, again.id) == (number, None)
        assert holder.id_of(first) == holder.id_of(again) == number
        assert holder.id_of(Pin("a", first.inode + 1)) == 0
        assert holder.id_of(Pin("b", first.inode)) == 0

    def test_a_pin_that_was_believed_is_covered_and_replaced(
        self, holder: Holder, runtime: Path, directory: Path
    ) -> None:
        """What is believed by its line of mountinfo stays so no longer than that says so."""
        first, other = pinned(holder, "a"), pinned(holder, "b")
        place = runtime / "ns" / "a"
        assert holder.survey().pins == (Pin("a", first), Pin("b", other))
        run("mount", "--bind", directory, runtime / "ns")  # over the whole holder: nothing of it is covered
        assert holder.survey().pins == (Pin("a", first), Pin("b", other))
        run("umount", runtime / "ns")
        run("mount", "--bind", runtime / "ns" / "b", place)
        assert holder.survey().covered == (Pin("a", first),)
        run("umount", place)
        assert holder.survey().pins == (Pin("a", first), Pin("b", other))
        run("umount", place)
        run("mount", "--bind", runtime / "ns" / "b", place)
        assert {*holder.survey().pins} == {Pin("a", other), Pin("b", other)}
        run("umount", place)
        survey = holder.survey()
        assert (survey.pins, survey.leftovers) == ((Pin("b", other),), ("a",))

    def test_a_fifo_over_a_pin_blocks_nothing(self, holder: Holder, runtime: Path, directory: Path) -> None:
        inode = pinned(holder, "a")
        os.mkfifo(directory / "fifo")
        run("mount", "--bind", directory / "fifo", runtime / "ns" / "a")
        assert holder.survey().covered == (Pin("a", inode),)
