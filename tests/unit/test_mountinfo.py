# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading mountinfo: whatever is mounted wherever is read as it is, and nothing that is malformed raises."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd import mountinfo
from mountnsd.mountinfo import Mount

quick = settings(max_examples=300, deadline=None, database=None)


def escape(text: str) -> bytes:
    """As the kernel does in show_mountinfo(): mangle() and seq_path_root()."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in os.fsencode(text))


def render(mount: Mount) -> bytes:
    """A mount's line, as the kernel writes it."""
    head = f"{mount.id} {mount.parent} {mount.device}".encode()
    fields = [head, escape(mount.root), escape(mount.target), mount.options.encode()]
    fields += [field.encode() for field in mount.propagation]
    fields += [b"-", escape(mount.fstype), escape(mount.source), mount.super_options.encode()]
    return b" ".join(fields) + b"\n"


raw = st.binary(max_size=40).filter(lambda data: b"\0" not in data)
nasty = st.text(" \t\n\\#-/\r\x0b\x0c\x1c\x85\u2028é0123457", max_size=30).map(os.fsencode)
free = st.one_of(raw, nasty, st.sampled_from([b"/deleted//deleted", b"\\040", b" - ", b"-"])).map(os.fsdecode)
path = free.map(lambda text: "/" + text)
word = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
number = st.integers(0, 1 << 31)
tags = st.one_of(
    number.map("shared:{}".format),
    number.map("master:{}".format),
    number.map("propagate_from:{}".format),
    st.just("unbindable"),
    word.filter(lambda text: text != "-"),
)
mount = st.builds(
    Mount,
    id=number,
    parent=number,
    device=st.builds("{}:{}".format, number, number),
    root=path,
    target=path,
    options=word,
    propagation=st.lists(tags, max_size=5).map(tuple),
    fstype=free.filter(bool),
    source=free,
    super_options=word,
)


class TestRoundTrip:
    """Any mount that a kernel can show."""

    @quick
    @given(st.lists(mount, max_size=4))
    def test_what_the_kernel_writes_is_what_we_read(self, mounts: list[Mount]) -> None:
        text = os.fsdecode(b"".join(render(item) for item in mounts))
        assert list(mountinfo.parse(text)) == mounts

    def test_propagation_is_understood(self) -> None:
        line = (
            "36 35 98:0 / / rw shared:7 master:12 propagate_from:2 future:thing unbindable - ext4 /dev/r rw"
        )
        found = mountinfo.parse_line(line)
        assert found is not None
        assert (found.peer_group, found.master, found.unbindable) == (7, 12, True)

    def test_without_propagation(self) -> None:
        found = mountinfo.parse_line("36 35 98:0 / / rw - ext4 /dev/root rw")
        assert found is not None
        assert (found.peer_group, found.master, found.unbindable) == (0, 0, False)

    def test_a_source_of_nothing(self) -> None:
        """Old kernels leave the field out altogether."""
        for line in ("36 35 0:9 / /t rw - tmpfs  rw", "36 35 0:9 / /t rw - tmpfs rw"):
            found = mountinfo.parse_line(line)
            assert found is not None
            assert (found.fstype, found.source, found.super_options) == ("tmpfs", "", "rw")


class TestMalformed:
    """A line that is none is passed over, and the others are read."""

    @quick
    @given(st.one_of(st.text(max_size=200), st.text(" -:/0123456789sharedm\n\\\ud800", max_size=200)))
    def test_no_text_raises(self, text: str) -> None:
        for found in mountinfo.parse(text):
            assert (found.peer_group, found.master) >= (0, 0)

    @quick
    @given(mount, st.data())
    def test_no_cut_line_raises(self, item: Mount, data: st.DataObject) -> None:
        line = render(item)
        cut = os.fsdecode(line[: data.draw(st.integers(0, len(line)))])
        good = "36 35 98:0 / /x rw - ext4 /dev/root rw\n"
        assert mountinfo.parse_line("") is None
        assert [found for found in mountinfo.parse(cut + "\n" + good) if found.target == "/x"]

    @pytest.mark.parametrize(
        "line", ["", "-", "1 2 3:4 / / rw", "x 35 98:0 / / rw - a b c", "1 2 3:4 / - a b c", " " * 30]
    )
    def test_lines_that_are_none(self, line: str) -> None:
        assert mountinfo.parse_line(line) is None


class TestReal:
    """The kernel's own table, beside findmnt's reading of it."""

    def findmnt(self, table: bytes, directory: Path) -> list[dict[str, str | int]]:
        """What findmnt reads in a table."""
        file = directory / "mountinfo"
        file.write_bytes(table)
        columns = "ID,PARENT,MAJ:MIN,FSROOT,TARGET,VFS-OPTIONS,FSTYPE,SOURCE,FS-OPTIONS"
        command = ["findmnt", "--json", "--list", "--nofsroot", "--output", columns, "--tab-file", str(file)]
        result = subprocess.run(command, capture_output=True, check=True, timeout=10)
        rows: list[dict[str, str | int]] = json.loads(result.stdout)["filesystems"]
        return rows

    def agree(self, text: str, directory: Path) -> None:
        """Compare field by field."""
        ours = list(mountinfo.parse(text))
        theirs = self.findmnt(os.fsencode(text), directory)
        assert len(ours) == len(theirs) == text.count("\n")
        for our, their in zip(ours, theirs, strict=True):
            assert str(our.id) == str(their["id"])
            assert str(our.parent) == str(their["parent"])
            assert our.device == their["maj:min"]
            assert our.root == their["fsroot"]
            assert our.target == their["target"]
            assert our.options == their["vfs-options"]
            assert our.fstype == their["fstype"]
            assert our.source == (their["source"] or "")
            assert our.super_options == their["fs-options"]

    def test_as_findmnt_reads_it(self, tmp_path: Path) -> None:
        self.agree(mountinfo.read("/proc/self/mountinfo"), tmp_path)

    def test_as_findmnt_reads_odd_names(self, tmp_path: Path) -> None:
        names = ["/a b", "/a\tb", "/back\\slash", "/hash#", "/é", "/\\040", "/-", "/ - ", "/quote\"'"]
        odd = [
            Mount(40 + n, 1, "0:9", name, name, "rw", (), "tmpfs", name, "rw") for n, name in enumerate(names)
        ]
        self.agree(os.fsdecode(b"".join(render(item) for item in odd)), tmp_path)

    def test_every_line_of_ours_is_read(self) -> None:
        text = mountinfo.read()
        assert len(list(mountinfo.parse(text))) == text.count("\n") > 0

    def test_one_that_is_too_long_is_refused(self) -> None:
        length = len(os.fsencode(mountinfo.read()))
        assert mountinfo.read(most=length + 10_000)
        with pytest.raises(OSError, match="too large"):
            mountinfo.read(most=length // 2)
