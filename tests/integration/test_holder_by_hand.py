# SPDX-License-Identifier: LGPL-2.1-or-later
"""Somebody has a hand in the holder itself, while the daemon runs or is to be started.

What is marked has its like for a hidden holder in test_holder_hidden.py: messages and mounts are others there.
"""

import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import leaks
from support.client import MANAGER, Client
from support.contract import FAILED, NO_SUCH, create, destroy, listed, names, refused, run, wait_until
from support.daemon import Daemon
from support.ground import run as command
from support.holding import mounted_at, the_two
from support.silent import Silent

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)

ENTER = "sasa{uh}a{sv}"


@pytest.fixture
def watched(daemon: Daemon, root: Client) -> Iterator[Silent]:
    """Namespaces `a` and `b`; and in `a` a filesystem whose server is told when the last namespace with it ends."""
    create(root, "a")
    create(root, "b")
    made = Silent(daemon.pins / "a", "/mnt/silent")
    yield made
    made.end()


def has_ended(server: Silent) -> bool:
    """Whether the filesystem is in no mount namespace any more."""
    poll = select.poll()
    poll.register(server.fileno(), select.POLLERR)
    return bool(poll.poll(0))


def _all_pins_first(pins: Path) -> None:
    for mount in reversed(leaks.mounts_below(pins)):
        command("umount", "--lazy", mount.point)


HOW: dict[str, Callable[[Path], object]] = {
    "lazily": lambda pins: command("umount", "--lazy", pins),
    "holder and bind": lambda pins: [command("umount", "--lazy", pins) for _ in range(2)],
    "after all pins": _all_pins_first,
}


class TestUnmounted:
    """The namespaces are lost; that is said, and the daemon goes on with a holder like the first."""

    @pytest.mark.parametrize("how", HOW)
    @pytest.mark.visible_holder
    def test_all_are_gone_and_it_goes_on(self, daemon: Daemon, root: Client, how: str) -> None:
        for name in ("a", "b"):
            create(root, name)
        with root.signals(MANAGER, "NamespaceRemoved") as removed:
            HOW[how](daemon.pins)
            assert refused(root.manager, "GetNamespace", "s", "a").name == NO_SUCH
            assert {removed.wait().body[0] for _ in range(2)} == {"a", "b"}
        assert listed(root) == []
        assert "unmounted by somebody" in daemon.log()
        the_two(daemon.runtime)
        create(root, "a")
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"
        daemon.kill()
        daemon.start()
        assert names(root) == ["a"]
        destroy(root, "a")
        assert not [*(daemon.runtime / "meta").iterdir()]

    def test_the_lost_ones_end(self, daemon: Daemon, root: Client, watched: Silent) -> None:
        """Nobody keeps them out of sight: what is mounted in them ends with them."""
        before = daemon.open_fds()
        command("umount", "--lazy", daemon.pins)
        assert listed(root) == []
        wait_until(lambda: has_ended(watched))
        wait_until(lambda: len(daemon.open_fds()) <= len(before))

    def test_who_is_inside_goes_on(self, daemon: Daemon, root: Client, watched: Silent) -> None:
        pid, pidfd = root.manager("Enter", ENTER, "a", ["/bin/sleep", "60"], {}, {})
        command("umount", "--lazy", daemon.pins)
        assert listed(root) == []
        assert leaks.alive(pid)
        assert not has_ended(watched)
        leaks.end(pid)
        pidfd.close()
        wait_until(lambda: has_ended(watched))

    @pytest.mark.visible_holder
    def test_a_hundred_times(self, daemon: Daemon, root: Client) -> None:
        create(root, "a")
        command("umount", "--lazy", daemon.pins)
        create(root, "a")
        before = len(daemon.open_fds())
        for _ in range(100):
            command("umount", "--lazy", daemon.pins)
            create(root, "a")
        wait_until(lambda: len(daemon.open_fds()) <= before)
        assert len(mounted_at(daemon.pins)) == 2

    def test_while_nobody_runs(self, daemon: Daemon, root: Client) -> None:
        create(root, "a")
        daemon.kill()
        command("umount", "--lazy", daemon.pins)
        daemon.start()
        assert listed(root) == []
        assert not [*(daemon.runtime / "meta").iterdir()]
        create(root, "a")

    @pytest.mark.visible_holder
    def test_and_its_directory_removed(self, daemon: Daemon, root: Client) -> None:
        create(root, "a")
        for _ in range(2):
            command("umount", "--lazy", daemon.pins)
        daemon.pins.rmdir()
        assert listed(root) == []
        create(root, "a")
        the_two(daemon.runtime)


@pytest.mark.visible_holder
class TestOvermounted:
    """What is there stays, and is listed and entered; nothing new can be kept until it is uncovered."""

    @pytest.fixture
    def cover(self, daemon: Daemon, root: Client) -> Iterator[Path]:
        create(root, "a")
        command("mount", "-t", "tmpfs", "other", daemon.pins)
        yield daemon.pins
        for mount in mounted_at(daemon.pins)[2:]:
            command("umount", "--lazy", mount.target)

    def test_it_goes_on_with_what_there_is(self, root: Client, cover: Path) -> None:
        assert names(root) == ["a"]
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"
        error = refused(create, root, "b")
        assert error.name == FAILED
        assert f"umount {cover}" in error.message
        assert names(root) == ["a"]
        assert not [*cover.iterdir()]
        destroy(root, "a")
        command("umount", cover)
        create(root, "b")
        assert names(root) == ["b"]

    def test_it_is_not_started_over_it_and_nothing_is_lost(
        self, daemon: Daemon, root: Client, cover: Path
    ) -> None:
        before = listed(root)
        daemon.kill()
        with pytest.raises(RuntimeError, match="not mountnsd's") as caught:
            daemon.start()
        assert f"umount {cover}" in str(caught.value)
        assert "Traceback" not in str(caught.value)
        command("umount", cover)
        daemon.start()
        assert listed(root) == before

    def test_a_pin_that_is_made_over_it_is_none_of_ours(self, root: Client, cover: Path) -> None:
        (cover / "by-hand").touch()
        command("unshare", f"--mount={cover / 'by-hand'}", "true")
        assert names(root) == ["a"]
        command("umount", cover / "by-hand")
