# SPDX-License-Identifier: LGPL-2.1-or-later
"""Declarations: what they say, and that whatever is wrong with one is said with its file and its key."""

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd import declaration, syscalls
from mountnsd.declaration import Declaration, Fault
from mountnsd.errors import Failed, InvalidArgs
from mountnsd.namespace import Propagation
from mountnsd.options import CreateOptions

FILE = "/etc/mountnsd/namespaces/build.toml"
quick = settings(max_examples=300, deadline=None, database=None)

WHOLE = """
description = "Builds, with sources that stay"
propagation = "private"

[labels]
team = "build"

[[mount]]
type = "tmpfs"
where = "/mnt//scratch/"
options = "size=1m,nosuid,X-mount.mkdir=1777"

[[mount]]
what = "/srv/sources"
where = "/mnt/sources"
options = "rbind,ro"
"""
LAYERS = "lowerdir={lower},upperdir={upper},workdir={work}"
OVERLAY = f'[[mount]]\ntype = "overlay"\nwhere = "{{where}}"\noptions = "{LAYERS}"\n'


def faults(text: str | bytes) -> list[Fault]:
    """What is wrong with a text."""
    return declaration.examine("build", FILE, text if isinstance(text, bytes) else text.encode())[1]


def only(text: str | bytes) -> Fault:
    """The one thing that is wrong with a text."""
    (fault,) = faults(text)
    assert str(fault).isprintable()
    return fault


def a_mount(**keys: str) -> str:
    """One table."""
    return "[[mount]]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


class TestWhatIsSaid:
    """All of it arrives."""

    def test_the_whole(self) -> None:
        found, wrong = declaration.examine("build", FILE, WHOLE.encode())
        assert wrong == []
        assert (found.name, found.file) == ("build", FILE)
        assert found.options.description == "Builds, with sources that stay"
        assert found.options.propagation is Propagation.PRIVATE
        assert found.options.labels == {"team": "build"}
        scratch, sources = found.options.mounts
        assert (scratch.what, scratch.where, scratch.fstype) == ("tmpfs", "/mnt/scratch", "tmpfs")
        assert (scratch.attributes, scratch.mkdir) == (syscalls.MOUNT_ATTR_NOSUID, 0o1777)
        assert scratch.parameters == (("size", "1m"),)
        assert scratch.origin == f"{FILE}: mount[1]"
        assert (sources.what, sources.bind) == ("/srv/sources", syscalls.AT_RECURSIVE)
        assert sources.origin == f"{FILE}: mount[2]"

    def test_an_empty_file_declares_a_namespace_with_the_defaults(self) -> None:
        assert declaration.examine("build", FILE, b"") == (Declaration("build", FILE, CreateOptions()), [])


class TestWhatIsWrong:
    """One fault each, with its key."""

    @pytest.mark.parametrize(
        ("text", "key", "said"),
        [
            ("colour = 1", "colour", "there are description, propagation, labels, mount"),
            ('"a\\u001bb" = 1', "'a\\x1bb'", "no such key"),
            ("description = 1", "description", "string"),
            ('description = "a\\nb"', "description", "control characters"),
            ("propagation = true", "propagation", "string"),
            ('propagation = "no"', "propagation", "slave, private, shared, unchanged"),
            ('labels = "a"', "labels", "table"),
            ("[labels]\na = 1", "labels", "table of strings"),
            ('[labels]\n"a b" = ""', "labels", "key for a label"),
            ("mount = 1", "mount", "[[mount]]"),
            ("mount = [1]", "mount", "[[mount]]"),
            ('[mount]\nwhere = "/mnt"', "mount", "[[mount]]"),
            (a_mount(where="/m", type="t", opts="x"), "mount[1].opts", "what, where, type, options"),
            (a_mount(type="tmpfs"), "mount[1].where", "missing"),
            ('[[mount]]\nwhere = 1\ntype = "t"', "mount[1].where", "string"),
            (a_mount(where="/m"), "mount[1].type", "filesystem type"),
            (a_mount(where="/", type="tmpfs"), "mount[1].where", "root of a namespace"),
            (a_mount(where="m", type="tmpfs"), "mount[1].where", "absolute"),
            (a_mount(where="/m/../n", type="tmpfs"), "mount[1].where", "without '..'"),
            (a_mount(where="/m", options="bind"), "mount[1].what", "absolute path in the host"),
            (a_mount(where="/m", type="t", options="x-systemd.requires=a"), "mount[1].options", "X-mount.mkdir"),
            (a_mount(where="/m", type="t") * 2, "mount[2]", "same mount as mount[1]"),
            (a_mount(where="/m", type="t") + a_mount(where="/m/.", type="t"), "mount[2]", "mount[1]"),
            (a_mount(where="/m", type="t") * 257, "mount", "at most 256"),
            ("x" * (64 * 1024 + 1), "", "65536 bytes"),
            ("a = 'x", "line 1", "TOML"),
            ("\n\na =", "line 3", "TOML"),
            ("\n\n[labels]\na b = 1", "line 4, column 3", "TOML"),
            ("a = " + "[" * 5000, "", "nested"),
            ("a = " + "9" * 5000, "", "TOML"),
            (b"a = 1\n# \xff", "line 2", "UTF-8"),
        ],
    )  # fmt: skip
    def test_one_thing(self, text: str | bytes, key: str, said: str) -> None:
        fault = only(text)
        assert fault.key == key
        assert said in fault.text

    @pytest.mark.parametrize(
        ("what", "where", "options", "fine"),
        [
            ("/srv", "/srv", "rbind", False),
            ("/srv", "/srv/a", "rbind", False),
            ("//srv/./", "/srv/a", "rbind,ro", False),
            ("/", "/mnt", "rbind", False),
            ("/srv", "/srvice", "rbind", True),
            ("/srv/a", "/srv", "rbind", True),
            ("/srv", "/srv", "bind,ro", True),
        ],
    )
    def test_an_rbind_into_itself(self, what: str, where: str, options: str, fine: bool) -> None:
        text = a_mount(what=what, where=where, options=options)
        if fine:
            assert faults(text) == []
        else:
            assert (only(text).key, "rbind must not lie in" in only(text).text) == ("mount[1].where", True)

    @pytest.mark.parametrize(
        ("where", "lower", "upper", "work", "key"),
        [
            ("/m", "/a", "/u", "/w", None),
            ("/m", "/", "/u", "/w", None),  # may be another filesystem
            ("/a", "/a", "/u", "/w", None),
            ("/m", "/a", "/u", "/u/w", "options"),
            ("/m", "/a", "/w/u", "/w", "options"),
            ("/m", "/a", "/u", "/u", "options"),
            ("/m", "/a:/u", "/u", "/w", "options"),
            ("/m", "/a:/w/a", "/u", "/w", "options"),
            ("/u", "/a", "/u", "/w", "where"),
            ("/w/a/m", "/a", "/u", "/w", "where"),
        ],
    )
    def test_an_overlay_in_itself(
        self, where: str, lower: str, upper: str, work: str, key: str | None
    ) -> None:
        found = faults(OVERLAY.format(where=where, lower=lower, upper=upper, work=work))
        assert [fault.key for fault in found] == ([] if key is None else [f"mount[1].{key}"])

    def test_an_overlay_with_half_of_what_it_needs(self) -> None:
        text = a_mount(type="overlay", where="/m", options="lowerdir=/a,upperdir=/u")
        assert "both upperdir and workdir" in only(text).text

    def test_all_of_it_at_once(self) -> None:
        text = (
            "a = 1\ndescription = 2\n" + a_mount(where="m", options="bind,x") + a_mount(type="tmpfs", b="c")
        )
        keys = [fault.key for fault in faults(text)]
        wanted = ["a", "description", *(f"mount[1].{key}" for key in ("where", "options", "what"))]
        assert keys == [*wanted, "mount[2].b", "mount[2].where"]


class TestAnyText:
    """The parser raises nothing, and what is wrong is always one printable line."""

    @quick
    @given(st.binary(max_size=200))
    def test_bytes(self, text: bytes) -> None:
        for fault in faults(text):
            assert str(fault).isprintable()

    @quick
    @given(st.text(st.sampled_from("[]mount=wherw'\"\\u0019/.-,\n#{}abind:1e"), max_size=120))
    def test_what_looks_like_toml(self, text: str) -> None:
        for fault in faults(text):
            assert str(fault).isprintable()

    VALUES = st.one_of(
        st.booleans(),
        st.integers(),
        st.text(max_size=20),
        st.sampled_from(["/mnt", "/", "bind", "rbind,ro", "overlay", "lowerdir=/a,upperdir=/a/..", "\x00"]),
    )
    TABLES = st.dictionaries(st.sampled_from(["what", "where", "type", "options", "x"]), VALUES, max_size=5)

    @quick
    @given(st.lists(TABLES, max_size=4), st.dictionaries(st.text(max_size=5), VALUES, max_size=3), VALUES)
    def test_any_document(
        self, mounts: list[dict[str, object]], labels: dict[str, object], value: object
    ) -> None:
        document = {"mount": mounts, "labels": labels, "description": value, "propagation": value}
        reading = declaration._Reading(FILE)
        chosen = reading.document(document)
        assert len(chosen.mounts) <= len(mounts)
        for fault in reading.faults:
            assert str(fault).isprintable()
        if not reading.faults:
            assert len(chosen.mounts) == len(mounts)
            assert all(mount.where.startswith("/") for mount in chosen.mounts)


class Place:
    """The two directories."""

    def __init__(self, base: Path) -> None:
        self.own, self.vendor = base / "etc", base / "usr"
        for directory in (self.own, self.vendor):
            directory.mkdir(mode=0o755)

    def load(self, name: str = "build") -> Declaration | None:
        """What is declared."""
        return declaration.load(name, (self.own, self.vendor))

    def refused(self, kind: type[Exception] = Failed) -> str:
        """Why it cannot be used."""
        with pytest.raises(kind) as refusal:
            self.load()
        return str(refusal.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where namespaces are declared."""
    return Place(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of root's")
class TestFiles:
    """Where declarations lie, and whose they have to be."""

    def test_none(self, place: Place, tmp_path: Path) -> None:
        assert place.load() is None
        assert declaration.load("build", (tmp_path / "nowhere",)) is None
        with pytest.raises(InvalidArgs, match="no name"):
            declaration.load("../build", (place.own,))

    def test_none_is_seen_without_asking_what_may_not_answer(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A filesystem on a block device is asked; what is there, or may be, is looked at in a thread."""
        both = (place.own, place.vendor)
        device = 8

        def status(fd: int) -> tuple[int, int, int]:
            return os.fstat(fd).st_mode, 0, device

        monkeypatch.setattr(syscalls, "known_status", status)
        assert declaration.is_surely_none("build", ())
        assert declaration.is_surely_none("build", both)
        for directory in both:
            (directory / "build.toml").touch()
            assert not declaration.is_surely_none("build", both)
            assert declaration.is_surely_none("other", both)
            (directory / "build.toml").unlink()
            (directory / "build.toml").symlink_to("nowhere")
            assert not declaration.is_surely_none("build", both)
            (directory / "build.toml").unlink()
        (tmp_path / "linked").symlink_to(place.own)
        assert not declaration.is_surely_none("build", (tmp_path / "linked",))
        device = 0
        assert not declaration.is_surely_none("build", both)

    def test_an_older_kernel_knows_nothing(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: str) -> int:
            raise OSError(errno.EINVAL, "no such flag")

        monkeypatch.setattr(syscalls, "open_cached", refuse)
        assert not declaration.is_surely_none("build", (place.own,))

    def test_the_first_directory_counts(self, place: Place) -> None:
        for directory, said in ((place.vendor, "vendor"), (place.own, "own")):
            (directory / "build.toml").write_text(f'description = "{said}"')
            found = place.load()
            assert found is not None
            assert (found.options.description, found.file) == (said, str(directory / "build.toml"))

    def test_what_is_wrong_comes_with_the_file(self, place: Place) -> None:
        (place.own / "build.toml").write_text(a_mount(where="x", type="tmpfs"))
        assert place.refused(InvalidArgs).startswith(f"{place.own}/build.toml: mount[1].where: ")
        (place.own / "build.toml").write_text("\nx")
        assert place.refused(InvalidArgs).startswith(f"{place.own}/build.toml: line 2: ")

    @pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
    def test_one_that_others_can_write(self, place: Place, mode: int) -> None:
        (place.own / "build.toml").touch()
        (place.own / "build.toml").chmod(mode)
        assert "must belong to root" in place.refused()

    def test_one_of_somebody_else(self, place: Place) -> None:
        (place.own / "build.toml").touch()
        os.chown(place.own / "build.toml", 1000, 0)
        assert place.refused().startswith(f"{place.own}/build.toml: This must belong to root")

    def test_a_directory_that_others_can_write(self, place: Place) -> None:
        (place.own / "build.toml").touch()
        place.own.chmod(0o777)
        assert place.refused().startswith(f"{place.own}: This must belong to root")

    def test_what_is_no_file(self, place: Place) -> None:
        (place.vendor / "real.toml").touch()
        (place.own / "build.toml").symlink_to(place.vendor / "real.toml")
        assert f"{place.own}/build.toml: This is a symbolic link" in place.refused()
        (place.own / "build.toml").unlink()
        os.mkfifo(place.own / "build.toml", 0o600)
        assert "not a regular file" in place.refused()
        (place.own / "build.toml").unlink()
        os.mknod(place.own / "build.toml", stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero
        assert "not a regular file" in place.refused()
        (place.own / "build.toml").unlink()
        (place.own / "build.toml").mkdir(mode=0o755)
        assert "directory" in place.refused()

    def test_one_that_is_too_long_is_not_read_to_its_end(self, place: Place) -> None:
        with (place.own / "build.toml").open("wb") as file:
            file.truncate(1 << 40)
        assert "at most 65536 bytes" in place.refused(InvalidArgs)
