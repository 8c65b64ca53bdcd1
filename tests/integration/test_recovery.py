# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kill at any moment loses nothing that was acknowledged, and leaves nothing of what was not."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.buses import PrivateBus
from support.client import Client
from support.daemon import Daemon
from support.ground import Ground, fd_count, run

from mountnsd import holder
from mountnsd.named import Namespace
from mountnsd.options import CreateOptions
from mountnsd.registry import Registry
from mountnsd.witness import open_pin

OPTIONS = CreateOptions(description="build", labels={"k": "v"})


@pytest.fixture
def ground(directory: Path) -> Iterator[Ground]:
    """A registry with one namespace that was there before, and is there ever after."""
    before = fd_count()
    with Ground(directory) as made:
        create(made.registry, "before")
        yield made
        found = made.registry.get("before")
        assert (found.owner, found.description) == (1000, "build")
    assert fd_count() == before


def create(registry: Registry, name: str) -> Namespace:
    """Make one of user 1000."""
    return asyncio.run(registry.create(name, 1000, OPTIONS))[0]


def prepare(ground: Ground, name: str, inode: int) -> None:
    """What the first step of a creation leaves."""
    (ground.runtime / "meta" / f".{name}.json.new").write_text(f'{{"inode": {inode}, "owner": 1000}}')


def names_of(ground: Ground) -> list[str]:
    """The names after a restart."""
    return [found.name for found in ground.restart().all()]


def test_names_are_kept_once(ground: Ground) -> None:
    """Of thousands: by the holder and by the registry."""
    registry = ground.restart()
    held = {id(name) for name in registry.holder._inventory.names()}
    assert {id(found.name) for found in registry.all()} == held


def test_a_start_opens_each_pin_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    create(ground.registry, "a")
    opened: list[str] = []

    def witness(directory: int, name: str, inode: int | None = None) -> int | None:
        opened.append(name)
        return open_pin(directory, name, inode)

    monkeypatch.setattr(holder, "open_pin", witness)
    assert names_of(ground) == ["a", "before"]
    assert sorted(opened) == ["a", "before"]


class TestWhatACrashLeaves:
    """Each state that a creation or a destruction can be cut short in."""

    def test_prepared_metadata(self, ground: Ground) -> None:
        prepare(ground, "a", 1)
        (ground.runtime / "meta" / ".b.json.new").write_text('{"inode":')
        assert names_of(ground) == ["before"]
        assert ground.lying() == ({"before"}, {"before.json"})

    def test_and_the_pins_file(self, ground: Ground) -> None:
        prepare(ground, "a", 1)
        (ground.pins / "a").touch()
        assert names_of(ground) == ["before"]
        assert ground.lying() == ({"before"}, {"before.json"})

    def test_and_the_pin(self, ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
        create(ground.registry, "a")
        meta = ground.runtime / "meta"
        (meta / "a.json").rename(meta / ".a.json.new")
        assert names_of(ground) == ["before"]
        assert ground.lying() == ({"before"}, {"before.json"})
        assert "creation of namespace a was cut short" in caplog.text

    def test_and_the_pin_beside_metadata_of_one_that_is_long_gone(self, ground: Ground) -> None:
        create(ground.registry, "a")
        meta = ground.runtime / "meta"
        (meta / "a.json").rename(meta / ".a.json.new")
        (meta / "a.json").write_text('{"inode": 7, "owner": 5}')
        assert names_of(ground) == ["before"]
        assert ground.lying() == ({"before"}, {"before.json"})

    def test_and_a_pin_that_somebody_else_made(self, ground: Ground) -> None:
        create(ground.registry, "a")
        (ground.runtime / "meta" / "a.json").unlink()
        prepare(ground, "a", 1)
        assert names_of(ground) == ["a", "before"]
        assert ground.registry.get("a").owner == 0

    def test_valid_metadata(self, ground: Ground) -> None:
        create(ground.registry, "a")
        assert names_of(ground) == ["a", "before"]
        assert ground.registry.get("a").labels == {"k": "v"}

    def test_a_pin_that_is_unmounted(self, ground: Ground) -> None:
        create(ground.registry, "a")
        run("umount", ground.pins / "a")
        assert names_of(ground) == ["before"]
        assert ground.lying() == ({"before"}, {"before.json"})

    def test_and_removed(self, ground: Ground) -> None:
        create(ground.registry, "a")
        run("umount", ground.pins / "a")
        (ground.pins / "a").unlink()
        assert names_of(ground) == ["before"]
        assert ground.lying() == ({"before"}, {"before.json"})

    def test_metadata_that_cannot_be_believed(self, ground: Ground) -> None:
        inode = create(ground.registry, "a").inode
        kept = ground.runtime / "meta" / "a.json"
        kept.write_text("{")
        found = ground.restart().get("a")
        assert (found.inode, found.owner) == (inode, 0)
        kept.unlink()
        kept.mkdir()
        found = ground.restart().get("a")
        assert (found.inode, found.owner) == (inode, 0)


@pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)
class TestDaemon:
    """The daemon itself is killed."""

    def test_a_thousand_survive(self, bus: PrivateBus, directory: Path) -> None:
        (directory / "daemon").mkdir()
        with Daemon(bus, directory / "daemon") as daemon, Client(bus.address) as root:
            start = time.monotonic()
            for number in range(1000):
                root.manager("Create", "sa{sv}", f"n{number:04}", {"description": ("s", f"number {number}")})
            made = time.monotonic() - start
            before = root.manager("List")[0]
            assert len(before) == 1000
            daemon.kill(signal.SIGKILL)
            start = time.monotonic()
            daemon.start()
            recovered = time.monotonic() - start
            start = time.monotonic()
            assert root.manager("List")[0] == before
            listed = time.monotonic() - start
            path = "/org/mountnsd1/namespace/n0999"
            assert root.get(path, "org.mountnsd1.Namespace", "Description") == "number 999"
            start = time.monotonic()
            for number in range(1000):
                root.manager("Destroy", "sa{sv}", f"n{number:04}", {})
            destroyed = time.monotonic() - start
            assert root.manager("List")[0] == []
        print(
            f"1000 namespaces: created in {made:.2f} s, recovered after SIGKILL in {recovered:.2f} s "
            f"(start to ready), listed in {listed * 1000:.0f} ms, destroyed in {destroyed:.2f} s"
        )

    def test_killed_while_it_creates(self, bus: PrivateBus, directory: Path) -> None:
        """What was answered is there; of the rest, each is whole or absent."""
        (directory / "daemon").mkdir()
        with Daemon(bus, directory / "daemon") as daemon, Client(bus.address) as root:
            for attempt in range(5):
                serials = [
                    root.send(
                        "/org/mountnsd1",
                        "org.mountnsd1.Manager",
                        "Create",
                        "sa{sv}",
                        f"a{attempt}n{number}",
                        {},
                    )
                    for number in range(100)
                ]
                (answered,) = root.reply(serials[10 * attempt])
                daemon.kill(signal.SIGKILL)
                daemon.start()
                rows = root.manager("List")[0]
                assert answered in {row[1] for row in rows}
                names = {row[0] for row in rows}
                assert set(os.listdir(daemon.pins)) == names
                assert set(os.listdir(daemon.runtime / "meta")) == {f"{name}.json" for name in names}
