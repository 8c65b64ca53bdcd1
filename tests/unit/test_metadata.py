# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metadata: written whole, read with distrust; what cannot be believed is absent, and the log says so."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd.errors import Failed
from mountnsd.metadata import Metadata, MetadataStore

FULL = Metadata(
    inode=4026532000,
    id=77,
    owner=1000,
    created_usec=1_700_000_000_000_000,
    propagation="slave",
    description="é \u2603",
    labels={"team": "build"},
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    """A store, which leaves no descriptor open."""
    before = os.listdir("/proc/self/fd")
    opened = MetadataStore(str(tmp_path))
    yield opened
    opened.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture
def place(store: MetadataStore, tmp_path: Path) -> Path:
    """Where the store keeps its files."""
    del store
    return tmp_path / "meta"


def keep(store: MetadataStore, name: str, metadata: Metadata) -> None:
    """Write and make valid."""
    store.prepare(name, metadata)
    store.commit(name)


class TestWriting:
    """A file is there whole or not at all."""

    def test_there_and_back(self, store: MetadataStore) -> None:
        keep(store, "a", FULL)
        assert store.read("a") == FULL
        assert store.names() == {"a"}
        assert store.prepared() == set()

    def test_prepared_is_not_yet_there(self, store: MetadataStore) -> None:
        store.prepare("a", FULL)
        assert store.read("a") is None
        assert (store.names(), store.prepared()) == (set(), {"a"})
        store.discard("a")
        assert store.prepared() == set()

    def test_what_is_new_replaces_at_once(self, store: MetadataStore, place: Path) -> None:
        keep(store, "a", FULL)
        old = (place / "a.json").stat().st_ino
        store.prepare("a", Metadata(inode=2))
        assert store.read("a") == FULL
        store.commit("a")
        assert store.read("a") == Metadata(inode=2)
        assert (place / "a.json").stat().st_ino != old

    def test_a_prepared_file_that_a_crash_left_is_no_obstacle(
        self, store: MetadataStore, place: Path
    ) -> None:
        (place / ".a.json.new").write_text('{"inode": 1')
        keep(store, "a", FULL)
        assert store.read("a") == FULL

    def test_a_symlink_in_the_way_is_not_followed(
        self, store: MetadataStore, place: Path, tmp_path: Path
    ) -> None:
        (place / ".a.json.new").symlink_to(tmp_path / "elsewhere")
        keep(store, "a", FULL)
        assert not (tmp_path / "elsewhere").exists()

    def test_for_root_only(self, store: MetadataStore, place: Path) -> None:
        before = os.umask(0)
        try:
            keep(store, "a", FULL)
        finally:
            os.umask(before)
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE((place / "a.json").stat().st_mode) == 0o600

    def test_a_directory_that_was_open_to_others_is_closed(self, tmp_path: Path) -> None:
        (tmp_path / "meta").mkdir(mode=0o777)
        MetadataStore(str(tmp_path)).close()
        assert stat.S_IMODE((tmp_path / "meta").stat().st_mode) == 0o700

    def test_forgetting_twice(self, store: MetadataStore) -> None:
        keep(store, "a", FULL)
        store.remove("a")
        store.remove("a")
        store.discard("a")
        assert store.read("a") is None


def directory(path: Path) -> None:
    path.mkdir()


def symlink(path: Path) -> None:
    good = path.with_name("good")
    good.write_text(json.dumps({"inode": 1}))
    path.symlink_to(good)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def foreign(path: Path) -> None:
    path.write_text(json.dumps({"inode": 1}))
    os.chown(path, 65534, 65534)


def writable_by_all(path: Path) -> None:
    path.write_text(json.dumps({"inode": 1}))
    path.chmod(0o666)


def device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: endless


def too_large(path: Path) -> None:
    path.write_text(json.dumps({"inode": 1, "description": "x" * 70_000}))


def text(content: Any) -> Callable[[Path], None]:
    """A file of that content, which is JSON unless it is text."""

    def write(path: Path) -> None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    return write


UNBELIEVABLE = {
    "a directory": directory,
    "a symlink": symlink,
    "a fifo": fifo,
    "somebody else's": foreign,
    "writable by all": writable_by_all,
    "a device": device,
    "too large": too_large,
    "empty": text(""),
    "cut short": text('{"inode": 12'),
    "no object": text([1, 2]),
    "nothing": text(None),
    "without an inode": text({"owner": 5}),
    "unknown key": text({"inode": 1, "colour": "red"}),
    "inode as text": text({"inode": "1"}),
    "inode as truth": text({"inode": True}),
    "negative": text({"inode": -1}),
    "beyond 64 bits": text({"inode": 1 << 64}),
    "a fraction": text({"inode": 1.5}),
    "owner is no uid": text({"inode": 1, "owner": 1 << 32}),
    "description is none": text({"inode": 1, "description": None}),
    "description is half a character": text('{"inode": 1, "description": "\\ud800"}'),
    "description with NUL": text('{"inode": 1, "description": "a\\u0000b"}'),
    "label is half a character": text('{"inode": 1, "labels": {"\\udc80": "x"}}'),
    "propagation is a number": text({"inode": 1, "propagation": 3}),
    "labels are a list": text({"inode": 1, "labels": ["a"]}),
    "a label is a number": text({"inode": 1, "labels": {"a": 1}}),
    "a huge number": text('{"inode": ' + "9" * 5000 + "}"),
    "deep": text("[" * 60_000),
}


class TestReading:
    """Nothing in the directory can block, raise or be believed that the daemon did not write."""

    @pytest.mark.parametrize("kind", UNBELIEVABLE)
    def test_what_cannot_be_believed_is_absent_and_logged(
        self, kind: str, store: MetadataStore, place: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        UNBELIEVABLE[kind](place / "a.json")
        assert store.read("a") is None
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "namespace a" in caplog.text

    def test_what_is_not_there_is_absent_and_not_logged(
        self, store: MetadataStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert store.read("a") is None
        assert caplog.records == []

    @settings(max_examples=200, deadline=None, database=None)
    @given(
        st.one_of(
            st.binary(max_size=200),
            st.dictionaries(
                st.sampled_from(["inode", "id", "owner", "labels", "description"]),
                st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.integers())),
            ).map(lambda value: json.dumps(value).encode()),
        )
    )
    def test_no_content_raises(self, content: bytes) -> None:
        decoded = read_bytes(content)
        assert decoded is None or decoded.inode >= 0

    def test_only_names_of_namespaces_count(self, store: MetadataStore, place: Path) -> None:
        keep(store, "a", FULL)
        for other in ("-a.json", "a..b.json", ".json", "a.txt", "é.json"):
            (place / other).write_text("{}")
        assert store.names() == {"a"}

    def test_a_directory_in_the_way_is_left_alone(
        self, store: MetadataStore, place: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (place / "a.json").mkdir()
        store.remove("a")
        assert (place / "a.json").is_dir()
        assert "Left alone" in caplog.text


def read_bytes(content: bytes) -> Metadata | None:
    """What a store makes of a file's content."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        store = MetadataStore(directory)
        try:
            (Path(directory) / "meta" / "a.json").write_bytes(content)
            return store.read("a")
        finally:
            store.close()


_STUCK = """
import ctypes, os, sys, threading, time
from mountnsd.metadata import MetadataStore
store = MetadataStore(sys.argv[1])
store.lock()
threading.Thread(target=time.sleep, args=(60,)).start()
os.write(1, b"locked")
if sys.argv[2] == "stuck":
    ctypes.CDLL(None).syscall(ctypes.c_long(60 if os.uname().machine == "x86_64" else 93), 0)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["running", "stuck"])
def test_one_daemon_a_directory(tmp_path: Path, state: str) -> None:
    """One that was killed with a thread stuck in the kernel has its lock still, and does not count."""
    command = [sys.executable, "-c", _STUCK, str(tmp_path), state]
    repository = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=repository) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.read(6) == b"locked"
            store = MetadataStore(str(tmp_path))
            if state == "running":
                with pytest.raises(Failed, match="Another mountnsd"):
                    store.lock(0.2)
            else:
                store.lock(5)
                third = MetadataStore(str(tmp_path))
                with pytest.raises(Failed, match="Another mountnsd"):
                    third.lock(0.2)
                third.close()
            store.close()
        finally:
            other.kill()
