# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts inside a namespace with no process in it: made, read, compared and removed, and the host is as before."""

import asyncio
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.ground import Ground, attempt, enter, fd_count, forked, host_mounts, resident, run

from mountnsd import helper, mountinfo, mountrequest, mounts, syscalls
from mountnsd.errors import InvalidArgs, MountFailed
from mountnsd.named import Namespace
from mountnsd.options import CreateOptions
from mountnsd.registry import Registry

FLAGS = "nosuid,nodev,noexec"


class World:
    """A namespace, and what may be done in it."""

    def __init__(self, registry: Registry, place: Path) -> None:
        self.registry = registry
        self.place = place
        self.found: Namespace = asyncio.run(registry.create("a", 0, CreateOptions()))[0]

    def mount(self, what: str, where: Path | str, fstype: str = "tmpfs", options: str = "") -> None:
        """Mount inside."""
        request = mountrequest.check(what, str(where), fstype, options)
        asyncio.run(self.registry.mount(self.found, request))

    def unmount(self, where: Path | str, lazy: bool = False) -> None:
        """Unmount inside."""
        asyncio.run(self.registry.unmount(self.found, str(where), lazy))

    def changes(self) -> list[tuple[str, str]]:
        """The kinds of changes and where."""
        found = asyncio.run(self.registry.changes(self.found))
        return [(change.kind, change.mount.target) for change in found if self.ours(change.mount.target)]

    def ours(self, target: str) -> bool:
        """Whether a mount point is not one of other tests that may run beside this one."""
        return target.startswith(str(self.place.parent)) or not target.startswith(tempfile.gettempdir())

    def table(self) -> dict[str, mountinfo.Mount]:
        """What is mounted inside, by place."""
        inside = asyncio.run(self.registry.mounts(self.found))
        return {mount.target: mount for mount in inside if self.ours(mount.target)}

    def inside(self, *command: str | Path) -> str:
        """Run a command inside."""
        return run("nsenter", f"--mount={self.found.path}", "--", *command)

    def refused(self, what: str, where: Path | str, fstype: str = "tmpfs", options: str = "") -> MountFailed:
        """A mount that fails."""
        before = self.table()
        with pytest.raises(MountFailed) as error:
            self.mount(what, where, fstype, options)
        assert self.table() == before
        assert error.value.message.isprintable()
        return error.value


@pytest.fixture
def world(directory: Path) -> Iterator[World]:
    """A namespace; after each test the host's mounts are what they were, and no descriptor is open."""
    place = directory / "place"
    (place / "in").mkdir(parents=True)
    (place / "file").write_text("host")
    before = fd_count()
    with Ground(directory) as ground:
        made = World(ground.registry, place)
        host = host_mounts(directory)
        yield made
        assert host_mounts(directory) == host, "the host's mounts have changed"
    assert fd_count() == before


class TestReading:
    """With no process inside."""

    def test_a_new_one_has_what_the_host_has(self, world: World) -> None:
        assert world.changes() == []
        host = {mount.target for mount in host_mounts(world.place.parent)}
        pins = str(world.registry.holder.path)
        assert set(world.table()) >= {
            target for target in host if not target.startswith(pins) and world.ours(target)
        }

    def test_what_is_added_removed_and_changed(self, world: World, directory: Path) -> None:
        (directory / "other").mkdir()
        world.mount("t", world.place / "in", options="size=64k")
        assert world.changes() == [("added", str(world.place / "in"))]
        world.unmount(world.place / "in")
        assert world.changes() == []

    def test_odd_places(self, world: World) -> None:
        odd = world.place / "a b\tc\\d#é"
        odd.mkdir()
        world.mount("so urce#", odd)
        assert world.changes() == [("added", str(odd))]
        assert world.table()[str(odd)].source == "so urce#"

    def test_a_table_that_is_too_long_is_not_read(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mountnsd.namespace.MAX_TABLE", 100)
        with pytest.raises(MountFailed) as error:
            world.table()
        assert error.value.errno == errno.EFBIG

    def test_a_forged_proc_is_not_believed(self, world: World) -> None:
        world.mount("forged", "/proc")

        def forge() -> None:
            enter(world.found.path)
            os.makedirs("/proc/thread-self")
            os.makedirs("/proc/self/fd")
            for who in ("self", "thread-self"):
                Path(f"/proc/{who}/mountinfo").write_text("1 0 0:1 / /forged rw - ext4 forged rw\n")

        forked(forge)
        assert "/forged" not in world.table()
        assert world.table()["/proc"].source == "forged"
        assert ("added", "/proc") in world.changes()
        world.mount("t", world.place / "in")
        world.unmount(world.place / "in")
        copy = asyncio.run(world.registry.create("copy", 0, CreateOptions(source="a")))[0]
        assert asyncio.run(world.registry.mounts(copy))
        run("umount", copy.path)
        world.registry.all()


class TestMounting:
    """Filesystems and binds."""

    def test_a_tmpfs_with_its_options(self, world: World) -> None:
        world.mount("scratch", world.place / "in", options=f"size=64k,mode=0711,{FLAGS},noatime")
        mount = world.table()[str(world.place / "in")]
        assert (mount.fstype, mount.source) == ("tmpfs", "scratch")
        assert {"rw", "nosuid", "nodev", "noexec", "noatime"} == set(mount.options.split(","))
        assert {"size=64k", "mode=711"} <= set(mount.super_options.split(","))
        world.inside("touch", world.place / "in" / "hi-there")
        assert world.inside("ls", world.place / "in") == "hi-there\n"
        assert list((world.place / "in").iterdir()) == []

    def test_a_bind_shows_the_hosts_file(self, world: World, directory: Path) -> None:
        (directory / "host").write_text("from the host")
        world.mount(str(directory / "host"), world.place / "file", "", "bind")
        assert world.inside("cat", world.place / "file") == "from the host"
        assert (world.place / "file").read_text() == "host"

    def test_a_bind_is_of_the_hosts_path_not_of_one_inside(self, world: World, directory: Path) -> None:
        (directory / "source").mkdir()
        (directory / "source" / "real").touch()
        world.mount("hides", directory / "source")
        world.mount(str(directory / "source"), world.place / "in", "", "bind")
        assert world.inside("ls", world.place / "in") == "real\n"

    @pytest.mark.parametrize(("option", "deep"), [("bind", False), ("rbind", True)])
    def test_read_only_all_the_way_down(self, world: World, directory: Path, option: str, deep: bool) -> None:
        below = directory / "tree" / "below"
        below.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "t", below)
        try:
            world.mount(str(directory / "tree"), world.place / "in", "", f"{option},ro,nosuid")
            table = world.table()
            assert {"ro", "nosuid"} <= set(table[str(world.place / "in")].options.split(","))
            assert (str(world.place / "in" / "below") in table) == deep
            for target in ("in", "in/below") if deep else ("in",):

                def write(target: str = target) -> int:
                    enter(world.found.path)
                    return attempt((world.place / target / "new").touch)

                assert forked(write) == errno.EROFS
            (below / "still").touch()
            (directory / "tree" / "writable").touch()
        finally:
            run("umount", below)

    def test_what_is_bound_copies_no_pin(self, world: World) -> None:
        world.mount(str(world.registry.holder.runtime_directory), world.place / "in", "", "rbind")
        pins = [target for target, mount in world.table().items() if mount.fstype == "nsfs"]
        assert [pin for pin in pins if pin.startswith(str(world.place))] == []
        assert world.refused(world.registry.holder.path, world.place / "in", "", "bind").errno == errno.EINVAL


class TestMountPoints:
    """Found and made without following a link, whoever made it."""

    @pytest.mark.parametrize("options", ["", "X-mount.mkdir"])
    def test_the_link_is_named_wherever_it_is(self, world: World, options: str) -> None:
        (world.place / "real" / "deep").mkdir(parents=True)
        (world.place / "link").symlink_to("real")
        (world.place / "real" / "last").symlink_to("deep")
        for where, link in (("link/deep", "link"), ("link/none", "link"), ("real/last", "real/last")):
            error = world.refused("t", world.place / where, options=options)
            assert (error.errno, error.step) == (errno.ELOOP, "open")
            assert f"'{world.place}/{link}' is a symbolic link" in error.message
        assert not (world.place / "real" / "none").exists()

    def test_a_link_that_only_the_namespace_has(self, world: World) -> None:
        world.mount("t", world.place / "in")
        world.inside("ln", "-s", "/etc", world.place / "in" / "etc")
        error = world.refused("t", world.place / "in" / "etc" / "apt", options="X-mount.mkdir")
        assert f"'{world.place}/in/etc' is a symbolic link" in error.message

    def test_missing_directories_are_made_inside(self, world: World) -> None:
        world.mount("t", world.place / "in")
        mask = os.umask(0o027)
        try:
            world.mount("t", world.place / "in" / "a" / "b", options="X-mount.mkdir=1777,size=64k")
            world.mount("t", world.place / "in" / "c", options="X-mount.mkdir")
            assert os.umask(0o027) == 0o027
        finally:
            os.umask(mask)
        assert world.inside("stat", "--format=%a", world.place / "in" / "a").strip() == "1777"
        run_inside = world.inside(
            "sh", "-c", f"umount {world.place}/in/c && stat --format=%a {world.place}/in/c"
        )
        assert run_inside.strip() == "755"
        assert list((world.place / "in").iterdir()) == []

    def test_what_is_there_stays_as_it_is(self, world: World) -> None:
        (world.place / "in").chmod(0o710)
        world.mount("t", world.place / "in", options="X-mount.mkdir=0777")
        assert (world.place / "in").stat().st_mode & 0o7777 == 0o710

    def test_a_directory_that_cannot_be_made(self, world: World) -> None:
        world.mount("t", world.place / "in", options="ro")
        error = world.refused("t", world.place / "in" / "new", options="X-mount.mkdir")
        assert (error.errno, error.step) == (errno.EROFS, "mkdir")
        error = world.refused("t", world.place / "file" / "new", options="X-mount.mkdir")
        assert error.errno == errno.ENOTDIR
        assert (world.place / "file").read_text() == "host"


@pytest.mark.parametrize("somebody", [False, True], ids=["nobody-inside", "somebody-inside"])
class TestLongOptions:
    """Values above the 255 bytes of fsconfig(2)."""

    @pytest.fixture(autouse=True)
    def _somebody(self, world: World, somebody: bool) -> Iterator[None]:
        with resident(world.found.path) if somebody else nullcontext():
            yield

    def test_an_overlay_of_many_layers(self, world: World) -> None:
        """Its directories are those inside."""
        deep = world.place / "in" / ("d" * 120)
        world.mount("t", world.place / "in")
        for layer in range(12):
            world.inside("mkdir", "-p", deep / str(layer))
            world.inside("touch", deep / str(layer) / f"from-{layer}")
        lower = ":".join(str(deep / str(layer)) for layer in range(12))
        assert len(lower) > 1000
        merged, store = world.place / "merged", world.place / "in" / "store"
        options = f"lowerdir={lower},upperdir={store}/upper,workdir={store}/work,nosuid,noatime,X-mount.mkdir"
        world.mount("layers", merged, "overlay", options)
        mount = world.table()[str(merged)]
        assert (mount.fstype, mount.source) == ("overlay", "layers")
        assert {"rw", "nosuid", "noatime"} == set(mount.options.split(","))
        world.inside("touch", merged / "written")
        assert set(world.inside("ls", merged).split()) == {f"from-{n}" for n in range(12)} | {"written"}
        assert world.inside("ls", store / "upper") == "written\n"
        assert list(merged.iterdir()) == []

    def test_every_attribute(self, world: World) -> None:
        options = f"ro,{FLAGS},noatime,nodiratime,nosymfollow,mode={'0' * 300}711"
        world.mount("x" * 300, world.place / "in", options=options)
        long = world.table()[str(world.place / "in")]
        world.unmount(world.place / "in")
        world.mount("x", world.place / "in", options=options.replace("0" * 300, ""))
        short = world.table()[str(world.place / "in")]
        assert (long.options, long.super_options) == (short.options, short.super_options)
        assert long.source == "x" * 300
        world.unmount(world.place / "in")

    def test_what_cannot_be(self, world: World) -> None:
        error = world.refused("t", world.place / "in", options=f"size={'1' * 300}x")
        assert (error.step, error.errno) == ("mount", errno.EINVAL)
        assert "journalctl -k" in error.message
        error = world.refused("t", world.place / "file", options=f"mode={'0' * 300}7")
        assert error.errno == errno.ENOTDIR
        (world.place / "link").symlink_to("in")
        error = world.refused("t", world.place / "link", options=f"mode={'0' * 300}7")
        assert error.errno == errno.ELOOP


class TestRefused:
    """What cannot be says why, and changes nothing."""

    def test_a_target_that_is_a_symlink(self, world: World) -> None:
        (world.place / "link").symlink_to("in")
        assert world.refused("t", f"{world.place}/link/.").errno == errno.ELOOP
        error = world.refused("t", world.place / "link")
        assert error.errno == errno.ELOOP
        assert "symbolic link" in error.message

    def test_a_target_that_is_not_there(self, world: World) -> None:
        error = world.refused("t", world.place / "nowhere")
        assert (error.errno, error.step) == (errno.ENOENT, "open")
        assert "nowhere" in error.message

    def test_a_source_that_is_not_there(self, world: World) -> None:
        error = world.refused(str(world.place / "nowhere"), world.place / "in", "", "bind")
        assert (error.errno, error.step) == (errno.ENOENT, "open_tree")

    def test_a_directory_over_a_file(self, world: World) -> None:
        error = world.refused("t", world.place / "file")
        assert error.errno in (errno.EINVAL, errno.ENOTDIR)
        assert "file over a file" in error.message

    def test_a_type_that_is_none(self, world: World) -> None:
        error = world.refused("t", world.place / "in", "nosuchfs")
        assert (error.errno, error.step) == (errno.ENODEV, "fsopen")

    def test_what_the_kernel_says_is_passed_on(self, world: World) -> None:
        error = world.refused("t", world.place / "in", options="nosuchoption=1")
        assert error.errno == errno.EINVAL
        assert "The kernel says" in error.message
        assert "nosuchoption" in error.message

    def test_an_option_that_names_a_descriptor_finds_none_of_ours(self, world: World) -> None:
        reading, writing = os.pipe()  # would do for autofs's protocol
        try:
            options = f"fd={writing},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
            where = world.place
            if "autofs" in Path("/proc/filesystems").read_text():
                world.refused("x", where, "autofs", options)
            if not Path("/dev/fuse").exists():
                pytest.skip("no /dev/fuse here: a container without it")
            server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
            try:
                options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
                assert world.refused("x", where, "fuse", options).errno in (errno.EINVAL, errno.EBADF)
            finally:
                os.close(server)
        finally:
            os.close(reading)
            os.close(writing)

    def test_a_value_that_is_none(self, world: World) -> None:
        assert "size" in world.refused("t", world.place / "in", options="size=plenty").message


class TestUnmounting:
    """What is mounted inside, and what is the host's."""

    def test_a_busy_one_and_lazily(self, world: World) -> None:
        target = world.place / "in"
        world.mount("t", target)
        command = ["sh", "-c", f"cd {target} && echo ready && exec sleep 60"]
        with resident(world.found.path, command, ready=True):
            with pytest.raises(MountFailed, match="lazy") as refusal:
                world.unmount(target)
            assert refusal.value.errno == errno.EBUSY
            world.unmount(target, lazy=True)
        assert world.changes() == []

    def test_where_nothing_is(self, world: World) -> None:
        with pytest.raises(MountFailed, match="Nothing is mounted there"):
            world.unmount(world.place / "in")
        with pytest.raises(MountFailed) as refusal:
            world.unmount(world.place / "nowhere")
        assert refusal.value.errno == errno.ENOENT

    def test_a_symlink_is_not_followed(self, world: World) -> None:
        world.mount("t", world.place / "in")
        (world.place / "link").symlink_to("in")
        for where in ("link", "link/", "link/."):
            with pytest.raises(MountFailed):
                world.unmount(world.place / where if where == "link" else f"{world.place}/{where}")
        assert world.changes() == [("added", str(world.place / "in"))]

    def test_nor_is_one_on_the_way(self, world: World) -> None:
        (world.place / "in" / "sub").mkdir()
        world.mount("t", world.place / "in" / "sub")
        (world.place / "link").symlink_to("in")
        for lazy in (False, True):
            with pytest.raises(MountFailed, match=f"'{world.place}/link' is a symbolic link") as refusal:
                world.unmount(world.place / "link" / "sub", lazy)
            assert refusal.value.errno == errno.ELOOP
        assert world.changes() == [("added", str(world.place / "in" / "sub"))]
        world.unmount(f"{world.place}/in/./sub/")
        assert world.changes() == []

    def test_nor_where_it_came_meanwhile(self, world: World) -> None:
        """A user puts a link in the place of his directory, before what a declaration mounted there is undone."""
        home, victim = world.place / "home", world.place / "in"
        for directory in (home, victim):
            (directory / "m").mkdir(parents=True)
        world.mount("victim", victim / "m")

        def requests() -> Iterator[mountrequest.MountRequest]:
            yield mountrequest.check("his", str(home / "m"), "tmpfs", "")
            home.rename(world.place / "moved")
            home.symlink_to(victim)
            yield mountrequest.check("t", str(world.place / "nowhere"), "tmpfs", "")

        with Path(world.found.path).open("rb") as pin, pytest.raises(MountFailed, match="nowhere"):
            helper.run_blocking(lambda: mounts.mount_all(pin.fileno(), requests()))
        assert ("added", str(victim / "m")) in world.changes()

    def test_the_root_stays_writable(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """To unmount a root is to make its filesystem read-only; here it is the host's, so it is not tried."""
        umount2 = syscalls.umount2

        def careful(target: str, flags: int = 0) -> None:
            assert os.path.realpath(target) != "/", "this would have made the host's root read-only"
            umount2(target, flags)

        monkeypatch.setattr(syscalls, "umount2", careful)
        (world.place / "root").symlink_to("/")
        for where in ("/", "//", "/."):
            with pytest.raises(InvalidArgs):
                world.unmount(where)
        (world.place / "written").touch()

    def test_the_hosts_own_mounts_stay_in_the_host(self, world: World, directory: Path) -> None:
        target = directory / "hosts"
        target.mkdir()
        run("mount", "-t", "tmpfs", "hosts", target)
        try:
            made = asyncio.run(world.registry.create("b", 0, CreateOptions()))[0]
            asyncio.run(world.registry.unmount(made, str(target), lazy=False))
            changes = asyncio.run(world.registry.changes(made))
            assert ("removed", str(target)) in [(change.kind, change.mount.target) for change in changes]
            assert str(target) in {mount.target for mount in mountinfo.parse(mountinfo.read())}
            run("umount", made.path)
        finally:
            run("umount", target)
        world.registry.all()
