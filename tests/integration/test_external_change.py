# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changes made behind the registry's back: the very next look tells the truth, and the listener hears of it."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.ground import Ground, fd_count, resident, run

from mountnsd.errors import Failed, NamespaceExists, NamespaceStale, NoSuchNamespace
from mountnsd.named import Listener, Namespace
from mountnsd.options import CreateOptions, DestroyOptions
from mountnsd.registry import Registry

STUBBORN = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]


@pytest.fixture
def ground(directory: Path) -> Iterator[Ground]:
    """A registry with one namespace, of user 1000."""
    with Ground(directory) as made:
        create(made.registry, "a")
        yield made


@pytest.fixture
def heard(ground: Ground) -> list[tuple[str, int]]:
    """What the listener is told: what happened, and to which inode."""
    return listening(ground.registry)


def listening(registry: Registry) -> list[tuple[str, int]]:
    told: list[tuple[str, int]] = []
    registry.listener = Listener(
        lambda found: told.append(("added", found.inode)),
        lambda found: told.append(("removed", found.inode)),
        lambda found: told.append((found.state.value, found.inode)),
    )
    return told


def create(registry: Registry, name: str, **options: Any) -> Namespace:
    return asyncio.run(registry.create(name, 1000, CreateOptions(description="build", **options)))[0]


def destroy(registry: Registry, found: Namespace) -> None:
    asyncio.run(registry.destroy(found, DestroyOptions()))


def by_hand(pin: Path) -> int:
    """Make a namespace and pin it, as one does at a shell; gives its inode."""
    pin.touch()
    run("unshare", f"--mount={pin}", "true")
    return pin.stat().st_ino


class TestPins:
    """Somebody mounts and unmounts pins."""

    def test_unmounted(self, ground: Ground, heard: list[tuple[str, int]]) -> None:
        old = ground.registry.get("a")
        run("umount", old.path)
        assert ground.registry.all() == []
        assert heard == [("removed", old.inode)]
        assert ground.lying() == (set(), set())
        assert create(ground.registry, "a").inode == ground.registry.get("a").inode

    def test_unmounted_and_removed_and_made_again_at_once(
        self, ground: Ground, heard: list[tuple[str, int]]
    ) -> None:
        old = ground.registry.get("a")
        run("umount", old.path)
        Path(old.path).unlink()
        new = create(ground.registry, "a")
        assert ground.registry.all() == [new]
        assert heard == [("removed", old.inode), ("added", new.inode)]

    def test_unmounted_and_asked_for_if_it_does_not_exist(self, ground: Ground) -> None:
        old = ground.registry.get("a")
        run("umount", old.path)
        new = create(ground.registry, "a", if_not_exists=True)
        assert new.created_usec > old.created_usec
        assert ground.registry.all() == [new]

    def test_unmounted_and_then_used(self, ground: Ground) -> None:
        old = ground.registry.get("a")
        run("umount", old.path)
        with pytest.raises(NoSuchNamespace):
            ground.registry.open(old)
        assert ground.registry.find("a") is None

    def test_unmounted_while_it_is_destroyed(self, ground: Ground, heard: list[tuple[str, int]]) -> None:
        old = ground.registry.get("a")
        registry = ground.registry

        async def story() -> None:
            with resident(old.path, STUBBORN, ready=True):
                task = asyncio.ensure_future(registry.destroy(old, DestroyOptions(kill=True)))
                await asyncio.sleep(0.05)
                run("umount", "-l", old.path)
                registry.all()  # a look while the name is in other hands
            with pytest.raises((NoSuchNamespace, NamespaceStale)):
                await asyncio.wait_for(task, 10)
            assert heard == [("removed", old.inode)]  # with nobody looking again

        asyncio.run(story())
        assert registry.all() == []

    def test_pinned(self, ground: Ground, heard: list[tuple[str, int]]) -> None:
        inode = by_hand(ground.pins / "hand")
        found = ground.registry.all()[1]
        assert (found.name, found.inode, found.owner, found.description) == ("hand", inode, 0, "")
        assert heard == [("added", inode)]
        destroy(ground.registry, found)
        assert [found.name for found in ground.registry.all()] == ["a"]
        assert ground.lying() == ({"a"}, {"a.json"})

    def test_pinned_under_a_name_that_is_then_asked_for(self, ground: Ground) -> None:
        inode = by_hand(ground.pins / "hand")
        with pytest.raises(NamespaceExists):
            create(ground.registry, "hand")
        assert create(ground.registry, "hand", if_not_exists=True).inode == inode

    def test_an_empty_file_is_no_obstacle(self, ground: Ground) -> None:
        (ground.pins / "b").touch()
        made = create(ground.registry, "b")
        assert [found.name for found in ground.registry.all()] == ["a", "b"]
        assert made.inode

    def test_replaced_by_another_namespace(self, ground: Ground, heard: list[tuple[str, int]]) -> None:
        """What is known of the old one is not believed of the new one."""
        old = ground.registry.get("a")
        other = create(ground.registry, "other")
        heard.clear()
        run("umount", old.path)
        run("mount", "--bind", other.path, old.path)
        found = ground.registry.all()[0]
        assert (found.name, found.inode, found.owner, found.description) == ("a", other.inode, 0, "")
        assert heard == [("removed", old.inode), ("added", other.inode)]
        with pytest.raises(NoSuchNamespace):
            ground.registry.open(old)
        again = ground.restart().all()[0]
        assert (again.inode, again.owner) == (other.inode, 0)

    def test_many_changes_are_one_look(self, ground: Ground, heard: list[tuple[str, int]]) -> None:
        inodes = [by_hand(ground.pins / f"h{number}") for number in range(5)]
        run("umount", ground.pins / "a")
        assert [found.inode for found in ground.registry.all()] == inodes
        assert len(heard) == 6
        assert ground.registry.all() == ground.registry.all()
        assert len(heard) == 6


class TestHolder:
    """Somebody unmounts the holder itself."""

    def test_it_is_set_up_again_and_the_namespaces_are_gone(
        self, ground: Ground, heard: list[tuple[str, int]], caplog: pytest.LogCaptureFixture
    ) -> None:
        old = ground.registry.get("a")
        run("umount", "--lazy", ground.pins)
        assert ground.registry.all() == []
        assert heard == [("removed", old.inode)]
        assert "was unmounted by somebody" in caplog.text
        new = create(ground.registry, "a")
        assert ground.registry.all() == [new]
        assert [found.inode for found in ground.restart().all()] == [new.inode]

    def test_and_a_creation_comes_first(self, ground: Ground) -> None:
        run("umount", "--lazy", ground.pins)
        made = create(ground.registry, "b")
        assert ground.registry.all() == [made]

    def test_no_descriptor_is_left_at_the_end(self, directory: Path) -> None:
        before = fd_count()
        with Ground(directory / "again"):
            assert fd_count() > before
        assert fd_count() == before

    def test_what_is_mounted_in_its_place_is_said_each_time(self, ground: Ground) -> None:
        """An answer that is wrong for want of a second look would be a lie."""
        run("umount", "--lazy", ground.pins)
        run("mount", "-t", "tmpfs", "other", ground.pins)
        for _ in range(3):
            with pytest.raises(Failed, match="not mountnsd's"):
                ground.registry.all()
        run("umount", ground.pins)
        assert ground.registry.all() == []
        create(ground.registry, "b")


class TestMetadata:
    """Somebody has a hand in the metadata."""

    @pytest.mark.parametrize("how", ["deleted", "garbled", "directory"])
    def test_running_and_after_a_restart(
        self, ground: Ground, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        found = ground.registry.get("a")
        kept = ground.runtime / "meta" / "a.json"
        kept.unlink()
        if how == "garbled":
            kept.write_bytes(os.urandom(100))
        elif how == "directory":
            kept.mkdir()
        assert ground.registry.all() == [found]  # what was read is still true
        after = ground.restart().get("a")
        assert (after.inode, after.id, after.owner, after.description) == (found.inode, found.id, 0, "")
        assert "root is its owner" in caplog.text
        destroy(ground.registry, after)
        assert ground.registry.all() == []
        if how != "directory":
            assert ground.lying() == (set(), set())

    def test_the_whole_directory(self, ground: Ground) -> None:
        inode = ground.registry.get("a").inode
        (ground.runtime / "meta" / "a.json").unlink()
        (ground.runtime / "meta").rmdir()
        after = ground.restart().get("a")
        assert (after.inode, after.owner) == (inode, 0)
        create(ground.registry, "b")
