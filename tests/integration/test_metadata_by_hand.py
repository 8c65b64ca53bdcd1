# SPDX-License-Identifier: LGPL-2.1-or-later
"""Somebody has a hand in the metadata: the namespace is what the kernel says, and nothing is believed or followed."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.client import NAMESPACE, Client
from support.contract import MOUNT_FAILED, create, destroy, listed, names, path_of, refused, run
from support.daemon import Daemon
from support.ground import run as command
from support.identity import NOBODY
from support.polkit import Polkit

pytestmark = pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)


def content(kept: Path, text: bytes) -> None:
    kept.write_bytes(text)


def forged(kept: Path, **changes: object) -> bytes:
    """What was kept, with changes."""
    return json.dumps(json.loads(kept.read_bytes()) | changes).encode()


def replaced_by_link(kept: Path) -> None:
    """A link to a file that says the right thing."""
    elsewhere = kept.parents[1] / "elsewhere"
    kept.rename(elsewhere)
    kept.symlink_to(elsewhere)


def linked_to_a_users(kept: Path) -> None:
    """A hard link to another user's file that says the right thing."""
    elsewhere = kept.parents[1] / "elsewhere"
    elsewhere.write_bytes(kept.read_bytes())
    os.chown(elsewhere, NOBODY, NOBODY)
    kept.unlink()
    kept.hardlink_to(elsewhere)


def linked_to_anothers(kept: Path) -> None:
    """A hard link to the metadata of another namespace."""
    kept.unlink()
    kept.hardlink_to(kept.with_name("b.json"))


def as_directory(kept: Path) -> None:
    kept.unlink()
    kept.mkdir()


def as_fifo(kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept)


def as_device(kept: Path) -> None:
    kept.unlink()
    os.mknod(kept, stat.S_IFCHR | 0o600, os.makedev(1, 5))


TAMPERED: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "garbled": lambda kept: content(kept, os.urandom(200)),
    "truncated": lambda kept: os.truncate(kept, kept.stat().st_size - 5),
    "emptied": lambda kept: os.truncate(kept, 0),
    "too large": lambda kept: content(kept, kept.read_bytes() + b" " * (1 << 20)),
    "of another inode": lambda kept: content(kept, forged(kept, inode=1)),
    "of another id": lambda kept: content(kept, forged(kept, id=7)),
    "with a line for the log": lambda kept: content(kept, b'{"inode": "1\\nERROR: forged"}\nERROR: forged\n'),
    "a fifo": as_fifo,
    "a symbolic link": replaced_by_link,
    "a directory": as_directory,
    "a device": as_device,
    "a hard link to another user's file": linked_to_a_users,
    "a hard link to another namespace's": linked_to_anothers,
    "another user's": lambda kept: os.chown(kept, NOBODY, NOBODY),
    "writable by others": lambda kept: kept.chmod(0o622),
}
# What mountnsd does not remove.
STAYS = ("a directory",)


@pytest.fixture
def kept(daemon: Daemon, root: Client, user: Client, polkit: Polkit) -> Path:
    """The metadata of `a`, which is a user's and has a description; beside it there is `b`."""
    polkit.allow("org.mountnsd1.create", user.uid)
    create(user, "a", description=("s", "build"))
    create(root, "b", description=("s", "other"))
    return daemon.runtime / "meta" / "a.json"


class TestOneFile:
    """One namespace's metadata cannot be believed."""

    @pytest.mark.parametrize("how", TAMPERED)
    def test_the_namespace_is_there_and_roots(
        self, daemon: Daemon, root: Client, kept: Path, how: str
    ) -> None:
        before = listed(root)
        if how == "of another id" and json.loads(kept.read_bytes())["id"] == 0:
            how = "garbled"  # a kernel without ids
        TAMPERED[how](kept)
        assert listed(root) == before  # what was read is true still
        daemon.kill()
        daemon.start()
        assert [row[:3] for row in listed(root)] == [row[:3] for row in before]
        assert [row[3] for row in listed(root)] == [0, 0]
        assert root.get(path_of("a"), NAMESPACE, "Description") == ""
        assert root.get(path_of("b"), NAMESPACE, "Description") == "other"
        assert "namespace a has no metadata: root is its owner" in daemon.log().replace(
            "Namespace", "namespace"
        )
        assert "\nERROR: forged" not in daemon.log()
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"
        destroy(root, "a")
        assert names(root) == ["b"]
        if how not in STAYS:
            assert [entry.name for entry in kept.parent.iterdir()] == ["b.json"]
            create(root, "a", description=("s", "new"))
            daemon.restart()
            assert root.get(path_of("a"), NAMESPACE, "Description") == "new"

    def test_what_it_led_to_is_untouched(self, daemon: Daemon, root: Client, kept: Path) -> None:
        victim = kept.parents[1] / "victim"
        victim.write_text("precious")
        for name in ("a.json", ".a.json.new"):
            (kept.parent / name).unlink(missing_ok=True)
            (kept.parent / name).symlink_to(victim)
        daemon.restart()
        destroy(root, "a")
        create(root, "a", description=("s", "new"))
        assert victim.read_text() == "precious"
        assert not kept.is_symlink()

    def test_a_users_own_word_makes_him_no_owner(self, daemon: Daemon, root: Client, kept: Path) -> None:
        """Nor does it take the namespace away from who has it."""
        kept.with_name("b.json").write_bytes(forged(kept.with_name("b.json"), owner=NOBODY))
        os.chown(kept.with_name("b.json"), NOBODY, NOBODY)
        daemon.restart()
        assert [row[3] for row in listed(root)] == [NOBODY, 0]


@pytest.fixture
def meta(kept: Path) -> Iterator[Path]:
    """The directory.  What was put in its place is removed."""
    yield kept.parent
    if kept.parent.is_symlink():
        kept.parent.unlink()


class TestTheDirectory:
    """All of it is gone, or something else is there."""

    def test_removed(self, daemon: Daemon, root: Client, meta: Path) -> None:
        shutil.rmtree(meta)
        before = listed(root)
        create(root, "c", description=("s", "new"))
        assert stat.S_IMODE(meta.stat().st_mode) == 0o700
        assert [entry.name for entry in meta.iterdir()] == ["c.json"]
        daemon.kill()
        daemon.start()
        assert [row[:3] for row in listed(root)][:2] == [row[:3] for row in before]
        assert [row[3] for row in listed(root)] == [0, 0, 0]
        assert root.get(path_of("c"), NAMESPACE, "Description") == "new"
        destroy(root, "a")

    def test_moved_away(self, daemon: Daemon, root: Client, meta: Path) -> None:
        meta.rename(meta.with_name("old"))
        meta.mkdir(0o777)
        os.chown(meta, NOBODY, NOBODY)
        create(root, "c", description=("s", "new"))
        status = meta.stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o700)
        daemon.restart()
        assert root.get(path_of("c"), NAMESPACE, "Description") == "new"

    @pytest.mark.parametrize("what", ["a symbolic link", "a file"])
    def test_replaced_by_what_is_none(
        self, daemon: Daemon, directory: Path, root: Client, meta: Path, what: str
    ) -> None:
        """Nothing is written to where it leads; and all is as it was once that is put right."""
        before = listed(root)
        elsewhere = directory / "elsewhere"
        elsewhere.mkdir()
        meta.rename(meta.with_name("old"))
        if what == "a file":
            meta.touch()
        else:
            meta.symlink_to(elsewhere)
        error = refused(create, root, "c")
        assert error.name == MOUNT_FAILED
        assert "write its metadata" in error.message
        assert listed(root) == before
        assert run(root, "a", "/bin/echo", "inside") == "inside\n"
        daemon.kill()
        with pytest.raises(RuntimeError, match="remove what is there") as caught:
            daemon.start()
        assert "Traceback" not in str(caught.value)
        meta.unlink()
        meta.with_name("old").rename(meta)
        daemon.start()
        assert listed(root) == before
        assert not [*elsewhere.iterdir()]
        create(root, "c")

    def test_read_only(self, daemon: Daemon, root: Client, meta: Path) -> None:
        """A creation fails whole, and everything else goes on."""
        command("mount", "--bind", "--read-only", meta, meta)
        try:
            daemon.restart()
            before = listed(root)
            assert refused(create, root, "c").name == MOUNT_FAILED
            assert listed(root) == before
            assert not (daemon.pins / "c").exists()
        finally:
            command("umount", "--lazy", meta)
        daemon.restart()
        create(root, "c")
