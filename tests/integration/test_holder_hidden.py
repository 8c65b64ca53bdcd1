# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hidden holder: the host sees two mounts, and everything else is as with a visible one.

The tests of the visible holder run with a hidden one as well (MOUNTNSD_TEST_HOLDER=hidden); here is what differs.
"""

import os
import select
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import hidden, leaks
from support.buses import PrivateBus
from support.client import MANAGER, NAMESPACE, Client
from support.contract import FAILED, create, destroy, listed, names, path_of, refused
from support.contract import run as run_inside
from support.ctl import Ctl, wait_until
from support.daemon import Daemon
from support.ground import contained, fd_count, forked, run
from support.holding import mounted_at, pinned, sixteen_at_once, the_two
from support.silent import Silent

from mountnsd import anchor, syscalls
from mountnsd.errors import NamespaceStale
from mountnsd.holder import Holder, Pin
from mountnsd.namespace import Propagation

one_bus = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture
def runtime(directory: Path) -> Iterator[Path]:
    """A runtime directory that is not there yet; what is mounted below it is taken down."""
    before = fd_count()
    place = directory / "run"
    yield place
    hidden.close(place / "ns")
    for mount in reversed(leaks.mounts_below(directory)):
        leaks.detach(mount)
    assert fd_count() == before, "a descriptor was left open"


@pytest.fixture
def holder(runtime: Path) -> Iterator[Holder]:
    """The holder in it."""
    with closing(Holder.ensure(str(runtime), hide=True)) as made:
        yield made


@pytest.fixture
def daemon(bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    """A running mountnsd with a hidden holder."""
    place = directory / "daemon"
    place.mkdir()
    with Daemon(bus, place, 'holder = "hidden"\n') as running:
        yield running


def seen(runtime: Path) -> list[str]:
    """What the host sees of it: the mount points, relative to the runtime directory."""
    return [str(Path(mount.point).relative_to(runtime)) for mount in leaks.mounts_below(runtime)]


class TestWhatIsSeen:
    """On the host: bind, holder and anchor, however many pins there are."""

    def test_on_the_host(self, holder: Holder, runtime: Path) -> None:
        inodes = {f"n{number}": pinned(holder, f"n{number}") for number in range(20)}
        assert seen(runtime) == ["ns", "ns", "ns/.anchor"]
        the_two(runtime)
        assert sorted(os.listdir(runtime / "ns")) == [".anchor"]
        assert {pin.name: pin.inode for pin in holder.survey().pins} == inodes

    def test_where_the_pins_are(self, holder: Holder, runtime: Path) -> None:
        """The same two mounts at the same path, of the same kind; and no copy of the visible ones."""
        inode = pinned(holder, "a")
        there = hidden.shown(runtime / "ns")
        base, top, pin = leaks.mounts_below(there)
        assert (top.fstype, top.source, top.parent_id) == ("tmpfs", "mountnsd", base.mount_id)
        assert (pin.point, pin.root) == (f"{runtime}/ns/a", f"mnt:[{inode}]")
        [line] = [
            line
            for line in run(*hidden.beside(there, "cat", "/proc/self/mountinfo")).splitlines()
            if line.startswith(f"{top.mount_id} ")
        ]
        assert "nosuid,nodev,noexec" in line
        assert " unbindable - tmpfs" in line
        assert there.stat().st_dev != (runtime / "ns").stat().st_dev

    def test_a_namespace_has_neither(self, holder: Holder, runtime: Path) -> None:
        pinned(holder, "a")
        table = run("nsenter", f"--mount={holder.pin_path('a')}", "cat", "/proc/self/mountinfo")
        below = [line.split() for line in table.splitlines() if f" {runtime}" in line]
        assert [fields[4] for fields in below] == [f"{runtime}/ns"]  # the bind alone
        assert " - nsfs " not in table

    def test_the_host_can_unmount(self, directory: Path) -> None:
        """What the host had mounted when the hidden namespace was made is not kept by that."""

        def story() -> list[bool]:
            disk = directory / "disk"
            disk.mkdir()
            run("mount", "-t", "tmpfs", "tmpfs", disk)
            with closing(Holder.ensure(str(directory / "run"), hide=True)):
                there = hidden.shown(directory / "run" / "ns")

                def kept() -> bool:
                    return f" {disk} " in run(*hidden.beside(there, "cat", "/proc/self/mountinfo"))

                before = kept()
                run("umount", disk)
                return [before, kept()]

        assert contained(story) == [True, False]


def ended(server: Silent) -> bool:
    """Whether its filesystem is in no mount namespace any more."""
    poll = select.poll()
    poll.register(server.fileno(), select.POLLERR)
    return bool(poll.poll(0))


class TestSetUp:
    """Once, and found again."""

    def test_found_again_with_its_pins(self, holder: Holder, runtime: Path) -> None:
        inode = pinned(holder, "a")
        with closing(Holder.ensure(str(runtime), hide=True)) as again:
            assert again.survey().pins == (Pin("a", inode),)
            again.unpin("a", inode)
        assert holder.survey().pins == ()
        assert seen(runtime) == ["ns", "ns", "ns/.anchor"]

    def test_sixteen_at_once_set_up_one(self, runtime: Path) -> None:
        sixteen_at_once(lambda: Holder.ensure(str(runtime), hide=True).close())
        assert seen(runtime) == ["ns", "ns", "ns/.anchor"]

    def test_after_a_start_that_was_cut_short(self, runtime: Path) -> None:
        """The file of the anchor was there, and the mount was not yet."""
        Holder.ensure(str(runtime)).close()
        (runtime / "ns" / anchor.NAME).touch(0o400)
        with closing(Holder.ensure(str(runtime), hide=True)) as holder:
            pinned(holder, "a")
        assert seen(runtime) == ["ns", "ns", "ns/.anchor"]

    def test_a_visible_one_with_pins_stays(self, runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
        with closing(Holder.ensure(str(runtime))) as visible:
            inode = pinned(visible, "a")
        with closing(Holder.ensure(str(runtime), hide=True)) as holder:
            assert holder.survey().pins == (Pin("a", inode),)
            assert holder.features == ()
            assert "stays visible" in caplog.text
            holder.unpin("a", inode)
        with closing(Holder.ensure(str(runtime), hide=True)) as holder:
            assert holder.features == ("hidden-holder",)

    def test_a_hidden_one_with_pins_stays(self, runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
        with closing(Holder.ensure(str(runtime), hide=True)) as made:
            inode = pinned(made, "a")
        with closing(Holder.ensure(str(runtime))) as holder:
            assert holder.survey().pins == (Pin("a", inode),)
            assert holder.features == ("hidden-holder",)
            assert "stays hidden" in caplog.text
            holder.unpin("a", inode)
        with closing(Holder.ensure(str(runtime))) as holder:
            assert holder.features == ()
            assert seen(runtime) == ["ns", "ns"]
            assert os.listdir(runtime / "ns") == []

    @pytest.mark.parametrize("cpus", [CPUS, CPUS[:1], CPUS[-1:]], ids=["all", "first", "last"])
    def test_all_that_is_made_later_can_be_pinned(self, runtime: Path, cpus: list[int]) -> None:
        """Since Linux 6.18 that needs a higher id, and each CPU has its own; in a container that is itself high."""

        def story() -> list[int]:
            with closing(Holder.ensure(str(runtime), hide=True)) as holder:
                for number in range(60):
                    os.sched_setaffinity(0, {cpus[number % len(cpus)]})
                    pinned(holder, f"n{number}")
                return [len(holder.survey().pins), len(seen(runtime))]

        def high() -> list[int]:
            os.sched_setaffinity(0, {CPUS[-1]})
            for _ in range(2 * 4096):
                syscalls.unshare(syscalls.CLONE_NEWUTS)
            os.sched_setaffinity(0, set(CPUS))
            return contained(story)

        assert forked(high) == [60, 3]


class TestPins:
    """Made, opened, covered and taken away in there."""

    def test_its_life(self, holder: Holder) -> None:
        inode = pinned(holder, "a")
        fd = holder.open("a", inode)
        assert os.fstat(fd).st_ino == inode
        assert holder.unpin("a", inode)  # somebody has it open
        os.close(fd)
        assert holder.survey().pins == ()
        with pytest.raises(NamespaceStale):
            holder.open("a", inode)

    def test_a_file_is_not_removed_under_a_pin(self, holder: Holder) -> None:
        """From elsewhere that would succeed, and take the pin away."""
        inode = pinned(holder, "a")
        with pytest.raises(OSError, match="busy"):
            holder.remove_leftover("a")
        assert holder.survey().pins == (Pin("a", inode),)


@one_bus
class TestByHand:
    """Somebody has a hand in the anchor, while the daemon runs."""

    HOW: tuple[Callable[[Path], object], ...] = (
        lambda holder: run("umount", "--lazy", holder / anchor.NAME),
        lambda holder: run("umount", "--lazy", holder),
        lambda holder: run(*hidden.beside(hidden.shown(holder), "umount", "--lazy", holder)),
    )

    def test_one_unmount_ends_all(self, daemon: Daemon, root: Client) -> None:
        for name in ("a", "b", "c"):
            create(root, name)
        server = Silent(daemon.pins / "b", "/mnt/silent")
        try:
            daemon.stop()
            hidden.close(daemon.holder)
            run("umount", daemon.holder / anchor.NAME)
            wait_until(lambda: ended(server))
        finally:
            server.end()

    @pytest.mark.parametrize("how", HOW, ids=["the anchor", "the visible holder", "the hidden holder"])
    def test_unmounted(self, daemon: Daemon, root: Client, how: Callable[[Path], object]) -> None:
        """All are lost, and end; that is said at once, and the daemon goes on."""
        for name in ("a", "b"):
            create(root, name)
        server = Silent(daemon.pins / "a", "/mnt/silent")
        try:
            before = set(daemon.open_fds())
            with root.signals(MANAGER, "NamespaceRemoved") as removed:
                how(daemon.holder)
                hidden.close(daemon.holder)
                assert names(root) == []
                assert {removed.wait().body[0] for _ in range(2)} == {"a", "b"}
            wait_until(lambda: ended(server))
        finally:
            server.end()
        assert "unmounted by somebody" in daemon.log()
        create(root, "a")
        assert run_inside(root, "a", "/bin/echo", "inside") == "inside\n"
        assert seen(daemon.runtime) == ["ns", "ns", "ns/.anchor"]
        wait_until(lambda: len(daemon.open_fds()) <= len(before))
        daemon.kill()
        daemon.start()
        assert names(root) == ["a"]
        destroy(root, "a")

    def test_covered(self, daemon: Daemon, root: Client) -> None:
        """Nothing can be made, what there is stays, and all is well once it is uncovered."""
        create(root, "a")
        run("mount", "--bind", "/dev/null", daemon.holder / anchor.NAME)
        error = refused(create, root, "b")
        assert error.name == FAILED
        assert "anchor" in error.message
        run("umount", daemon.holder / anchor.NAME)
        create(root, "b")
        assert names(root) == ["a", "b"]

    def test_a_pin_is_unmounted_in_there(self, daemon: Daemon, root: Client) -> None:
        """It is told, without anybody asking."""
        create(root, "a")
        with root.signals(MANAGER, "NamespaceRemoved") as removed:
            run("umount", daemon.pins / "a")
            assert removed.wait().body[0] == "a"
        assert names(root) == []


@one_bus
class TestTheWayIn:
    """How others reach a pin."""

    def test_by_the_path(self, daemon: Daemon, root: Client) -> None:
        create(root, "a")
        inode = listed(root)[0][2]
        path = root.get(path_of("a"), NAMESPACE, "Path")
        assert run("nsenter", f"--mount={path}", "readlink", "/proc/self/ns/mnt") == f"mnt:[{inode}]\n"
        assert root.get("/org/mountnsd1", MANAGER, "Holder") == str(daemon.holder)
        assert "hidden-holder" in root.get("/org/mountnsd1", MANAGER, "Features")

    def test_without_the_daemon(self, daemon: Daemon, root: Client, ctl: Ctl) -> None:
        create(root, "a")
        inode = next(row[2] for row in listed(root) if row[0] == "a")
        status = ctl.ok("status", "a")
        [way] = [line.strip() for line in status.splitlines() if ".anchor nsenter --mount=" in line]
        daemon.stop()
        assert run(*way.split(), "readlink", "/proc/self/ns/mnt") == f"mnt:[{inode}]\n"
        assert ctl.ok("exec", "a", "readlink", "/proc/self/ns/mnt") == f"mnt:[{inode}]\n"

    @pytest.mark.parametrize("propagation", list(Propagation))
    def test_every_propagation(self, daemon: Daemon, root: Client, propagation: Propagation) -> None:
        create(root, "a", propagation=("s", propagation.value))
        create(root, "b", from_=("s", "a"))
        assert run_inside(root, "b", "/bin/echo", "inside") == "inside\n"
        assert daemon.holder.exists()
        daemon.restart()
        assert names(root) == ["a", "b"]
        assert mounted_at(daemon.holder / anchor.NAME)
