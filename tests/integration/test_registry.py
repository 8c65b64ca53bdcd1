# SPDX-License-Identifier: LGPL-2.1-or-later
"""The registry on the real kernel: lives of namespaces, limits, and what happens at the same time."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.ground import Ground, fd_count, run

from mountnsd import helper, namespace
from mountnsd.errors import (
    Failed,
    InvalidArgs,
    LimitsExceeded,
    MountFailed,
    NamespaceExists,
    NamespaceStale,
    NoSuchNamespace,
)
from mountnsd.metadata import Metadata, MetadataStore
from mountnsd.named import Limits, Listener, Namespace, State
from mountnsd.options import CreateOptions, DestroyOptions
from mountnsd.registry import Registry

HARD = DestroyOptions(kill=True)
LAZY = DestroyOptions(lazy=True)
PLAIN = DestroyOptions()

Story = Callable[[Registry], Coroutine[Any, Any, None]]


@pytest.fixture
def ground(directory: Path) -> Iterator[Ground]:
    """A registry in a runtime directory of its own, which leaves no descriptor open."""
    before = fd_count()
    with Ground(directory, Limits(namespaces=120, per_owner=3)) as made:
        yield made
    assert fd_count() == before


def tell(ground: Ground, story: Story) -> None:
    """Let a story happen, within a minute."""
    asyncio.run(asyncio.wait_for(story(ground.registry), 60))


async def new(registry: Registry, name: str, owner: int = 0, **options: Any) -> Namespace:
    """Make a namespace."""
    return (await registry.create(name, owner, CreateOptions(**options)))[0]


def names_of(registry: Registry) -> list[str]:
    """The names there are."""
    return [found.name for found in registry.all()]


def told(registry: Registry) -> list[tuple[str, str]]:
    """What the listener is told from now on."""
    heard: list[tuple[str, str]] = []
    registry.listener = Listener(
        lambda found: heard.append(("added", found.name)),
        lambda found: heard.append(("removed", found.name)),
        lambda found: heard.append((found.state.value, found.name)),
    )
    return heard


class TestLives:
    """From creation to destruction."""

    def test_a_life(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            heard = told(registry)
            before = time.time_ns() // 1000
            made, is_new = await registry.create(
                "a", 1000, CreateOptions(description="build", labels={"k": "v"})
            )
            assert is_new
            assert (made.name, made.owner, made.propagation) == ("a", 1000, "slave")
            assert (made.description, made.labels, made.state) == ("build", {"k": "v"}, State.ACTIVE)
            assert before <= made.created_usec <= time.time_ns() // 1000
            assert os.stat(made.path).st_ino == os.stat(ground.pins / "a").st_ino == made.inode
            assert registry.all() == [made]
            assert registry.get("a") == registry.find("a") == registry.with_inode(made.inode) == made
            assert await registry.destroy(made, PLAIN) == []
            assert registry.all() == []
            assert heard == [("added", "a"), ("removed", "a")]

        tell(ground, story)
        assert ground.lying() == (set(), set())

    def test_names_that_are_not_there(self, ground: Ground) -> None:
        registry = ground.registry
        with pytest.raises(NoSuchNamespace):
            registry.get("a")
        with pytest.raises(InvalidArgs):
            registry.get("../a")
        assert registry.find("a") is None
        assert registry.with_inode(1) is None

    def test_a_name_that_is_taken(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            with pytest.raises(NamespaceExists):
                await new(registry, "a")
            assert await registry.create("a", 0, CreateOptions(if_not_exists=True)) == (made, False)

        tell(ground, story)

    def test_from_what_is_not_there(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            with pytest.raises(NoSuchNamespace):
                await new(registry, "a", source="b")
            assert names_of(registry) == []

        tell(ground, story)
        assert ground.lying() == (set(), set())

    def test_a_namespace_that_was_replaced_is_refused(self, ground: Ground) -> None:
        """What somebody was allowed for the old one holds for the old one."""

        async def story(registry: Registry) -> None:
            old = await new(registry, "a")
            await registry.destroy(old, PLAIN)
            with pytest.raises(NoSuchNamespace):
                registry.open(old)
            await new(registry, "a")
            for work in (
                registry.destroy(old, PLAIN),
                registry.mounts(old),
                registry.unmount(old, "/x", False),
            ):
                with pytest.raises(NoSuchNamespace):
                    await work
            with pytest.raises(NoSuchNamespace):
                registry.open(old)
            assert names_of(registry) == ["a"]

        tell(ground, story)

    def test_a_descriptor_is_of_the_very_namespace(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            fd = registry.open(made)
            try:
                assert os.fstat(fd).st_ino == made.inode
                assert not os.get_inheritable(fd)
            finally:
                os.close(fd)

        tell(ground, story)

    def test_no_descriptor_is_left_after_three_hundred(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            await registry.destroy(await new(registry, "a"), PLAIN)
            before = fd_count()
            for _ in range(300):
                await registry.destroy(await new(registry, "a"), PLAIN)
            assert fd_count() == before

        tell(ground, story)

    def test_a_holder_that_is_covered_keeps_nothing_new(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            run("mount", "-t", "tmpfs", "cover", ground.pins)
            with pytest.raises(Failed, match="overmounted") as refusal:
                await new(registry, "b")
            assert "umount" in str(refusal.value)
            assert registry.all() == [made]
            os.close(registry.open(made))
            run("umount", ground.pins)
            await new(registry, "b")

        tell(ground, story)


class TestLimits:
    """How many there may be."""

    def test_of_each_owner_but_root(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            for number in range(3):
                await new(registry, f"u{number}", 1000)
            with pytest.raises(LimitsExceeded, match="max_namespaces_per_user"):
                await new(registry, "u3", 1000)
            await new(registry, "other", 1001)
            for number in range(5):
                await new(registry, f"r{number}")
            await registry.destroy(registry.get("u0"), PLAIN)
            await new(registry, "u3", 1000)

        tell(ground, story)

    def test_in_all_and_root_is_no_exception(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            registry.limits = Limits(namespaces=4, per_owner=100)
            for number in range(4):
                await new(registry, f"n{number}")
            with pytest.raises(LimitsExceeded, match="max_namespaces "):
                await new(registry, "n4")
            assert await registry.create("n0", 5, CreateOptions(if_not_exists=True))

        tell(ground, story)

    def test_what_is_under_way_counts(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            work = [new(registry, f"n{number}", 1000) for number in range(10)]
            results = await asyncio.gather(*work, return_exceptions=True)
            assert sum(isinstance(result, Namespace) for result in results) == 3
            assert sum(isinstance(result, LimitsExceeded) for result in results) == 7
            registry.limits = Limits(namespaces=5, per_owner=100)
            results = await asyncio.gather(
                *(new(registry, f"r{number}") for number in range(10)), return_exceptions=True
            )
            assert sum(isinstance(result, Namespace) for result in results) == 2

        tell(ground, story)


class TestAtOnce:
    """Several things at the same time."""

    def test_one_name_one_winner(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            heard = told(registry)
            results = await asyncio.gather(*(new(registry, "a") for _ in range(10)), return_exceptions=True)
            assert sum(isinstance(result, Namespace) for result in results) == 1
            assert sum(isinstance(result, NamespaceExists) for result in results) == 9
            assert heard == [("added", "a")]

        tell(ground, story)

    def test_if_not_exists_waits_for_the_winner(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            options = CreateOptions(if_not_exists=True)
            results = await asyncio.gather(*(registry.create("a", 0, options) for _ in range(10)))
            assert sum(is_new for _, is_new in results) == 1
            assert len({found.inode for found, _ in results}) == 1

        tell(ground, story)

    def test_a_hundred(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            before = fd_count()
            made = await asyncio.gather(*(new(registry, f"n{number}") for number in range(100)))
            assert len({found.inode for found in made}) == 100
            assert registry.all() == sorted(made, key=lambda found: found.name)
            await asyncio.gather(*(registry.destroy(found, PLAIN) for found in made))
            assert names_of(registry) == []
            assert fd_count() == before

        tell(ground, story)
        assert ground.lying() == (set(), set())

    def test_destroyed_twice(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            made = await new(registry, "a")
            work = (registry.destroy(made, PLAIN), registry.destroy(made, PLAIN))
            results = await asyncio.gather(*work, return_exceptions=True)
            assert [type(result) for result in results] == [list, NoSuchNamespace]

        tell(ground, story)

    @pytest.mark.parametrize("source", [None, "one"])
    def test_a_creation_that_is_cancelled_leaves_nothing(
        self, ground: Ground, monkeypatch: pytest.MonkeyPatch, source: str | None
    ) -> None:
        started, let_go = threading.Event(), threading.Event()
        make = namespace.make

        def slowly(*arguments: Any) -> int:
            fd = make(*arguments)
            started.set()
            assert let_go.wait(10)
            return fd

        async def story(registry: Registry) -> None:
            await new(registry, "one")
            await helper.run(lambda: None)
            before, mounts = fd_count(), leaks.mounts_below(ground.runtime)
            monkeypatch.setattr(namespace, "make", slowly)
            task = asyncio.ensure_future(new(registry, "a", source=source))
            async with asyncio.timeout(10):
                while not started.is_set():
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                monkeypatch.setattr(namespace, "make", make)
                let_go.set()
                while fd_count() != before:
                    await asyncio.sleep(0.001)
            assert leaks.mounts_below(ground.runtime) == mounts
            assert names_of(registry) == ["one"]
            await new(registry, "a")

        tell(ground, story)

    def test_what_the_disk_refuses_leaves_nothing(
        self, ground: Ground, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        async def story(registry: Registry) -> None:
            for step in ("prepare", "commit"):
                with monkeypatch.context() as patch:
                    patch.setattr(MetadataStore, step, full)
                    with pytest.raises(MountFailed, match="ENOSPC"):
                        await new(registry, "a")
                assert ground.lying() == (set(), set())
            await new(registry, "a")

        tell(ground, story)


class TestMetadata:
    """What is believed."""

    def test_that_of_another_inode_is_not(self, ground: Ground) -> None:
        async def story(registry: Registry) -> None:
            await new(registry, "a", 1000, description="build")

        tell(ground, story)
        ground.stop()
        store = MetadataStore(str(ground.runtime))
        kept = store.read("a")
        assert kept is not None
        for other in (
            Metadata(inode=kept.inode + 1, id=kept.id, owner=1000),
            Metadata(inode=kept.inode, id=kept.id + 1, owner=1000),
        ):
            store.prepare("a", other)
            store.commit("a")
            found = ground.start().get("a")
            assert (found.owner, found.description) == (0, "")
            assert found.inode == kept.inode
            assert kept.id in (found.id, 0)
            ground.stop()
        store.close()

    def test_two_daemons_are_one_too_many(self, ground: Ground) -> None:
        other = Ground(ground.runtime.parent)
        with pytest.raises(Failed, match="Another mountnsd"):
            other.start()
        other.stop()

    def test_a_covered_namespace_is_stale(self, ground: Ground, directory: Path) -> None:
        async def story(registry: Registry) -> None:
            heard = told(registry)
            made = await new(registry, "a")
            (directory / "cover").touch()
            run("mount", "--bind", directory / "cover", made.path)
            (found,) = registry.all()
            assert found.state is State.STALE
            for work in (registry.destroy(found, PLAIN), registry.mounts(found)):
                with pytest.raises(NamespaceStale):
                    await work
            run("umount", made.path)
            assert registry.all() == [made]
            assert heard == [("added", "a"), ("stale", "a"), ("active", "a")]

        tell(ground, story)
