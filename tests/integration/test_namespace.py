# SPDX-License-Identifier: LGPL-2.1-or-later
"""New mount namespaces on the real kernel: numbered so that the host can keep them, and without the holder."""

import asyncio
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import leaks
from support.ground import Ground, attempt, contained, enter, fd_count, forked, host_mounts, resident, run

from mountnsd import mountinfo, namespace, options, syscalls
from mountnsd.errors import MountFailed
from mountnsd.mountinfo import Mount
from mountnsd.named import Namespace
from mountnsd.namespace import Propagation
from mountnsd.options import CreateOptions
from mountnsd.registry import Registry

MS_MOVE = 1 << 13
EACH = [pytest.param(value, id=value.value) for value in Propagation]


def create(registry: Registry, name: str, options: CreateOptions | None = None) -> Namespace:
    """Make one, in an event loop of its own."""
    return asyncio.run(registry.create(name, 0, options or CreateOptions()))[0]


def table(pin: str) -> list[Mount]:
    """The mounts inside, read by a process inside."""

    def read() -> list[Mount]:
        enter(pin)
        return list(mountinfo.parse(mountinfo.read("/proc/self/mountinfo")))

    return forked(read)


def targets(pin: str) -> set[str]:
    """Where something is mounted inside."""
    return {mount.target for mount in table(pin)}


def only_the_bind(ground: Ground, pin: str) -> None:
    """Inside, the holder's directory is an empty one, with a mount that keeps it from being removed."""
    (mount,) = (mount for mount in table(pin) if mount.target.startswith(str(ground.holder)))
    assert mount.target == str(ground.holder)
    assert mount.root.endswith("/run/ns")
    assert not holders(ground, pin)


def holders(ground: Ground, pin: str) -> list[Mount]:
    """Where the holder is inside."""
    device = ground.registry.host.device
    return [mount for mount in table(pin) if mount.device == f"{os.major(device)}:{os.minor(device)}"]


def here() -> list[Mount]:
    """The host's mounts."""
    return list(mountinfo.parse(mountinfo.read()))


def by_place(mounts: list[Mount]) -> dict[tuple[str, int], Mount]:
    """Mounts by their mount point and how many lie below them on it."""
    found: dict[tuple[str, int], Mount] = {}
    for mount in mounts:
        below = sum(target == mount.target for target, _ in found)
        found[mount.target, below] = mount
    return found


@pytest.fixture
def place(directory: Path) -> Iterator[Path]:
    """A directory to mount on; no descriptor stays open."""
    (directory / "place").mkdir()
    before = fd_count()
    yield directory / "place"
    assert fd_count() == before


@pytest.mark.parametrize("propagation", EACH)
@pytest.mark.parametrize("shared", [False, True], ids=["in-private", "in-shared"])
class TestWithoutTheHolder:
    """Rule 4: what is removed inside cannot take a pin away outside."""

    def test_the_holder_is_not_inside_and_stays_outside(
        self, directory: Path, propagation: Propagation, shared: bool
    ) -> None:
        def story() -> None:
            with Ground(directory) as ground:
                create(ground.registry, "first")
                before = host_mounts(directory)
                made = create(ground.registry, "a", CreateOptions(propagation))
                only_the_bind(ground, made.path)
                after = [mount for mount in host_mounts(directory) if mount.target != made.path]
                assert after == before
                assert ground.registry.holder.trouble() is None

                def remove() -> list[int]:
                    enter(made.path)
                    assert os.listdir(ground.holder) == []
                    works = (
                        lambda: os.unlink(ground.holder / "a"),
                        ground.holder.rmdir,  # where nothing is mounted on it, this detaches all on the host
                        lambda: ground.holder.rename(directory / "other"),
                    )
                    return [attempt(work) for work in works]

                assert forked(remove) == [errno.ENOENT, errno.EBUSY, errno.EBUSY]
                assert ground.registry.holder.trouble() is None
                assert [found.name for found in ground.registry.all()] == ["a", "first"]

        contained(story, shared=shared)

    def test_the_peer_groups_inside(self, directory: Path, propagation: Propagation, shared: bool) -> None:
        def story() -> None:
            with Ground(directory) as ground:
                made = create(ground.registry, "a", CreateOptions(propagation))
                outside = by_place(here())
                for place, mount in by_place(table(made.path)).items():
                    host = outside[place]
                    if host.peer_group == 0 or propagation is Propagation.PRIVATE:
                        assert mount.master == 0
                        assert (mount.peer_group != 0) == (propagation is Propagation.SHARED)
                    elif propagation is Propagation.SLAVE:
                        assert (mount.master, mount.peer_group) == (host.peer_group, 0)
                    else:
                        assert (mount.master, mount.peer_group) == (0, host.peer_group)

        contained(story, shared=shared)

    def test_what_is_mounted_travels_as_it_should(
        self, directory: Path, place: Path, propagation: Propagation, shared: bool
    ) -> None:
        outward = shared and propagation in (Propagation.SHARED, Propagation.UNCHANGED)
        inward = shared and propagation is not Propagation.PRIVATE
        (place / "in").mkdir()
        (place / "out").mkdir()

        def story() -> None:
            with Ground(directory) as ground:
                made = create(ground.registry, "a", CreateOptions(propagation))

                def mount() -> None:
                    enter(made.path)
                    syscalls.mount("t", str(place / "in"), "tmpfs", 0)

                forked(mount)
                assert ((str(place / "in")) in {mount.target for mount in here()}) == outward
                run("mount", "-t", "tmpfs", "t", place / "out")
                assert (str(place / "out") in targets(made.path)) == inward

        contained(story, shared=shared)


class TestHere:
    """Where the tests run, whatever that is."""

    @pytest.mark.parametrize("propagation", EACH)
    def test_the_holder_is_not_inside(self, directory: Path, place: Path, propagation: Propagation) -> None:
        before = host_mounts(directory)
        with Ground(directory) as ground:
            made = create(ground.registry, "a", CreateOptions(propagation))
            only_the_bind(ground, made.path)
            after = host_mounts(directory)
            assert [mount for mount in after if not mount.target.startswith(str(ground.holder))] == before
        assert place.exists()

    def test_a_peer_group_that_is_a_slave_itself_is_given_back_whole(self, directory: Path) -> None:
        def story() -> None:
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SHARED)
            with Ground(directory) as ground:
                made = create(ground.registry, "a", CreateOptions(Propagation.UNCHANGED))
                outside = by_place(here())
                for place, mount in by_place(table(made.path)).items():
                    assert mount.propagation == outside[place].propagation

        contained(lambda: contained_slave(story))


def contained_slave(story: Callable[[], None]) -> None:
    """The story in a namespace whose mounts are peers of the container's."""

    def body() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        story()

    forked(body)


class TestFrom:
    """A copy of another namespace."""

    @pytest.mark.parametrize("propagation", EACH)
    @pytest.mark.parametrize("shared", [False, True], ids=["in-private", "in-shared"])
    def test_it_has_the_mounts_of_the_other(
        self, directory: Path, place: Path, propagation: Propagation, shared: bool
    ) -> None:
        def story() -> None:
            with Ground(directory) as ground:
                one = create(ground.registry, "one", CreateOptions(Propagation.PRIVATE))

                def mount() -> None:
                    enter(one.path)
                    syscalls.mount("t", str(place), "tmpfs", 0)
                    (place / "hi-there").touch()

                forked(mount)
                copy = create(ground.registry, "copy", CreateOptions(propagation, source="one"))
                assert copy.inode != one.inode
                assert str(place) in targets(copy.path)
                assert str(place) not in {mount.target for mount in here()}
                only_the_bind(ground, copy.path)

                def look() -> list[str]:
                    enter(copy.path)
                    return os.listdir(place)

                assert forked(look) == ["hi-there"]
                asyncio.run(ground.registry.destroy(one, destroying()))
                assert str(place) in targets(copy.path)

        contained(story, shared=shared)


class TestFromHostile:
    """A copy of a namespace that was made by hand, so that the holder is still in it."""

    def by_hand(
        self, ground: Ground, monkeypatch: pytest.MonkeyPatch, work: Callable[[], None] | None = None
    ) -> None:
        """Pin a namespace that has the holder, in which this work was done."""
        with monkeypatch.context() as patch:
            patch.setattr(namespace, "_sees_holder", lambda _: False)
            made = create(ground.registry, "hand", CreateOptions(Propagation.PRIVATE))
        assert holders(ground, made.path)

        def inside() -> None:
            enter(made.path)
            if work is not None:
                work()

        forked(inside)
        assert holders(ground, made.path)

    @pytest.mark.parametrize("propagation", EACH)
    @pytest.mark.parametrize("moved", [False, True])
    def test_the_holder_is_found_and_detached(
        self,
        directory: Path,
        place: Path,
        propagation: Propagation,
        moved: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def story() -> None:
            with Ground(directory) as ground:
                create(ground.registry, "first")
                pins = str(ground.holder)
                move = (lambda: syscalls.mount(pins, str(place), None, MS_MOVE)) if moved else None
                self.by_hand(ground, monkeypatch, move)
                before = host_mounts(directory)
                copy = create(ground.registry, "copy", CreateOptions(propagation, source="hand"))
                only_the_bind(ground, copy.path)
                assert [mount for mount in host_mounts(directory) if mount.target != copy.path] == before
                assert len(ground.registry.all()) == 3

        contained(story)

    @pytest.mark.parametrize("propagation", EACH)
    @pytest.mark.parametrize("how", ["over the holder", "below the holder", "and no holder"])
    def test_nobody_waits_for_a_filesystem_that_never_answers(
        self,
        directory: Path,
        place: Path,
        propagation: Propagation,
        how: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not Path("/dev/fuse").exists():
            pytest.skip("no /dev/fuse here: a container without it")

        def hang(pin: Path, pins: Path, server: int) -> None:
            enter(pin)
            where = place if how == "below the holder" else pins.parent
            options = f"fd={server},rootmode=40755,user_id=0,group_id=0,allow_other"
            syscalls.mount("hung", str(where), "fuse", 0, options)
            if how == "below the holder":
                syscalls.mount(str(pins), str(place), None, MS_MOVE)

        def story() -> None:
            with Ground(directory) as ground:
                pins = ground.holder
                if how == "and no holder":
                    create(ground.registry, "hand", CreateOptions(Propagation.PRIVATE))
                else:
                    self.by_hand(ground, monkeypatch)
                server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
                forked(lambda: hang(ground.pins / "hand", pins, server))
                try:
                    if how == "over the holder":
                        with pytest.raises(MountFailed, match="detach the holder inside"):
                            create(ground.registry, "copy", CreateOptions(propagation, source="hand"))
                    else:
                        copy = create(ground.registry, "copy", CreateOptions(propagation, source="hand"))
                        assert not holders(ground, copy.path)
                finally:
                    os.close(server)
                assert ground.registry.holder.trouble() is None

        contained(story, timeout=20)


def destroying() -> options.DestroyOptions:
    """Without kill and without lazy."""
    return options.DestroyOptions()


def raise_ids(batches: int = 3) -> None:
    """Use up this CPU's batch of namespace ids, so that what comes next is numbered above the other CPUs'."""
    for _ in range(batches * 4096):
        syscalls.unshare(syscalls.CLONE_NEWUTS)


def high_container(work: Callable[[], float], cpu: int, timeout: float = 120) -> float:
    """Do the work in a container whose id is above what the other CPUs hand out."""

    def pin_and_go() -> float:
        os.sched_setaffinity(0, {cpu})
        raise_ids()
        return contained(work, timeout=timeout)

    return forked(pin_and_go, timeout)


CPUS = sorted(os.sched_getaffinity(0))


class TestNumbers:
    """Rule 3: since Linux 6.18 each CPU numbers namespaces for itself, and only upwards can be bound."""

    COUNT = 500

    def create_many(self, directory: Path, cpus: set[int]) -> float:
        """So many creations and destructions, none of which may fail; gives the seconds taken."""
        os.sched_setaffinity(0, cpus)

        async def story(registry: Registry) -> None:
            for number in range(self.COUNT):
                made, _ = await registry.create(f"n{number}", 0, CreateOptions())
                assert made.id == 0 or made.id > registry.host.id
                if number >= 20:  # some stay, so that neither numbers nor inodes are simply used again
                    await registry.destroy(made, destroying())
            assert len(registry.all()) == 20

        with Ground(directory) as ground:
            start = time.monotonic()
            asyncio.run(story(ground.registry))
            return time.monotonic() - start

    @pytest.mark.parametrize("cpu", CPUS)
    def test_in_a_container_on_each_cpu(self, directory: Path, cpu: int) -> None:
        taken = high_container(lambda: self.create_many(directory, {cpu}), CPUS[-1])
        print(f"{self.COUNT} creations and destructions on CPU {cpu}: {taken:.2f} s")

    def test_in_a_container_on_all_cpus(self, directory: Path) -> None:
        taken = high_container(lambda: self.create_many(directory, set(CPUS)), CPUS[0])
        print(f"{self.COUNT} creations and destructions on all CPUs: {taken:.2f} s")

    def test_the_numbers_are_as_this_test_believes(self, directory: Path) -> None:
        """Without these precautions it fails here: else the tests above prove nothing."""
        if len(CPUS) < 2 or not has_batches():
            return

        def story() -> float:
            os.sched_setaffinity(0, {CPUS[0]})
            (directory / "pin").touch()
            syscalls.mount(str(directory), str(directory), None, syscalls.MS_BIND)
            syscalls.mount(None, str(directory), None, syscalls.MS_PRIVATE)
            command = ["unshare", f"--mount={directory}/pin", "true"]
            results = [
                subprocess.run(command, capture_output=True, timeout=10, check=False) for _ in range(5)
            ]
            return float(sum(result.returncode != 0 for result in results))

        assert high_container(story, CPUS[-1]) > 0

    @pytest.mark.parametrize("cpu", CPUS[:1])
    def test_where_a_sandbox_allows_no_other_kind_of_namespace(
        self, directory: Path, cpu: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unshare = syscalls.unshare

        def restricted(flags: int) -> None:
            if flags & syscalls.CLONE_NEWUTS:
                raise PermissionError(errno.EPERM, "unshare: Operation not permitted")
            unshare(flags)

        def story() -> float:
            os.sched_setaffinity(0, {cpu})
            monkeypatch.setattr(syscalls, "unshare", restricted)
            with Ground(directory) as ground:
                for number in range(3):
                    create(ground.registry, f"n{number}")
                return 0.0

        high_container(story, CPUS[-1])


def has_batches() -> bool:
    """Whether this kernel numbers namespaces per CPU."""
    release = os.uname().release.split(".")
    return (int(release[0]), int(release[1].split("-")[0])) >= (6, 18)


def test_a_namespace_ends_with_its_last_process(directory: Path, place: Path) -> None:
    """Unpinned while somebody is inside, it lives on with what is mounted there, and then it is gone."""
    with Ground(directory) as ground:
        made = create(ground.registry, "a")
        with resident(made.path) as pid:
            asyncio.run(ground.registry.destroy(made, options.DestroyOptions(lazy=True)))
            assert leaks.processes_in({made.inode}) == [pid]
        assert leaks.processes_in({made.inode}) == []
