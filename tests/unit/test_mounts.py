# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a caller may ask to be mounted, and what differs between two tables of mounts."""

import os
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd import mountrequest, mounts, syscalls
from mountnsd.errors import InvalidArgs
from mountnsd.mountinfo import Mount

HOLDER = "/run/mountnsd/ns"
quick = settings(max_examples=200, deadline=None, database=None)


def a_mount(target: str, source: str = "s", options: str = "rw", fstype: str = "tmpfs") -> Mount:
    """A mount at some place."""
    return Mount(1, 0, "0:1", "/", target, options, (), fstype, source, "rw")


def changes(host: Iterable[Mount], inside: Iterable[Mount]) -> list[tuple[str, str]]:
    """The kinds of changes and where."""
    return [(change.kind, change.mount.target) for change in mounts.changes(host, inside, HOLDER)]


class TestCheck:
    """Each argument is looked at before anything is done."""

    def test_a_tmpfs_with_options(self) -> None:
        request = mountrequest.check(
            "tmpfs", "/mnt", "tmpfs", "size=1m,nosuid,nodev,ro,rw,defaults,mode=0700,huge"
        )
        assert request.parameters == (("size", "1m"), ("mode", "0700"), ("huge", None))
        expected = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_RDONLY
        assert request.attributes == expected
        assert request.bind is None

    @pytest.mark.parametrize(("option", "flags"), [("bind", 0), ("rbind", syscalls.AT_RECURSIVE)])
    def test_a_bind(self, option: str, flags: int) -> None:
        request = mountrequest.check("/srv", "/mnt", "", f"{option},ro")
        assert (request.bind, request.attributes) == (flags, syscalls.MOUNT_ATTR_RDONLY)

    @pytest.mark.parametrize(
        ("where", "why"),
        [("", "absolute"), ("mnt", "absolute"), ("/a/../b", "without"), ("/a\0", "absolute")],
    )
    def test_where_is_an_absolute_path(self, where: str, why: str) -> None:
        with pytest.raises(InvalidArgs, match=why) as refusal:
            mountrequest.check("tmpfs", where, "tmpfs", "")
        assert "'where'" in refusal.value.message

    @pytest.mark.parametrize(
        ("what", "fstype", "options", "named"),
        [
            ("srv", "", "bind", "'what'"),
            ("", "", "rbind", "'what'"),
            ("/srv", "", "bind,size=1", "size"),
            ("a\0b", "tmpfs", "", "'what'"),
            ("x" * 4096, "tmpfs", "", "'what'"),
            ("tmpfs", "", "", "'type'"),
            ("tmpfs", "x" * 256, "", "'type'"),
            ("tmpfs", "tm\0pfs", "", "'type'"),
            ("tmpfs", "tmpfs", "k" * 256, "option"),
            ("tmpfs", "tmpfs", "mode=" + "0" * 4091, "4095 bytes in all"),
            ("tmpfs", "tmpfs", "X-mount.mkdir=9", "chmod"),
            ("tmpfs", "tmpfs", "X-mount.mkdir=", "chmod"),
            ("tmpfs", "tmpfs", "x-systemd.automount", "X-mount.mkdir"),
            ("o", "overlay", "lowerdir=/a:b", "lowerdir of an overlay is an absolute path"),
            ("o", "overlay", "lowerdir=/a,upperdir=/b/../c", "upperdir of an overlay"),
            ("tmpfs", "tmpfs", "a\0b", "option"),
            ("", "tmpfs", "source=/dev/sda1", "'what'"),
            ("", "tmpfs", "ro,source", "'what'"),
        ],
    )
    def test_what_is_wrong_is_named(self, what: str, fstype: str, options: str, named: str) -> None:
        with pytest.raises(InvalidArgs) as refusal:
            mountrequest.check(what, "/mnt", fstype, options)
        assert named in refusal.value.message
        assert "\0" not in refusal.value.message

    @pytest.mark.parametrize(
        ("option", "mode"),
        [("X-mount.mkdir", 0o755), ("X-mount.mkdir=1777", 0o1777), ("X-mount.mkdir=700,bind", 0o700)],
    )
    def test_directories_that_are_missing_are_made_with_a_mode(self, option: str, mode: int) -> None:
        request = mountrequest.check("/srv", "/mnt", "tmpfs", option)
        assert (request.mkdir, request.parameters) == (mode, ())
        assert mountrequest.check("/srv", "/mnt", "tmpfs", "").mkdir is None

    @pytest.mark.parametrize("mode", ["0777", "1777", "775", "2", "20"])
    def test_only_root_has_directories_made_for_others_to_write_to(self, mode: str) -> None:
        request = mountrequest.check("t", "/mnt", "tmpfs", f"X-mount.mkdir={mode}")
        with pytest.raises(InvalidArgs, match=f"not mode {int(mode, 8):04o}: leave out 022"):
            mountrequest.check_for_user(request, f"X-mount.mkdir={mode}")
        for fine in ("", "X-mount.mkdir", "X-mount.mkdir=0750", "X-mount.mkdir=5755", "mode=1777"):
            mountrequest.check_for_user(mountrequest.check("t", "/mnt", "tmpfs", fine), fine)

    def test_what_is_too_long_for_fsconfig(self) -> None:
        def is_long(what: str, options: str) -> bool:
            return mountrequest.check(what, "/mnt", "tmpfs", options).is_long

        assert not is_long("x" * 255, "a,mode=" + "0" * 255)
        assert is_long("x" * 256, "")
        assert is_long("t", "a,mode=" + "0" * 256)
        assert mountrequest.check("t", "/m", "tmpfs", "a,ro,b=1,nosuid").data == "a,b=1"
        assert not is_long("/" + "x" * 1000, "bind")

    def test_the_directories_of_an_overlay(self) -> None:
        options = r"lowerdir=/a:/b\:c::/d\\e,upperdir=/u,workdir=/w"
        request = mountrequest.check("o", "/mnt", "overlay", options)
        assert request.layers("lowerdir") == ["/a", "/b:c", "/d\\e"]
        assert (request.layers("upperdir"), request.layers("workdir")) == (["/u"], ["/w"])
        assert mountrequest.check("o", "/mnt", "tmpfs", "lowerdir=a").layers("lowerdir") == []

    def test_all_that_is_wrong_is_found(self) -> None:
        _, wrong = mountrequest.examine("srv", "mnt", "", "bind,size=1")
        assert sorted(error.argument for error in wrong) == ["options", "what", "where"]

    @quick
    @given(
        st.text(max_size=50), st.text(max_size=50), st.text(max_size=20), st.text("abind=,ro\0é", max_size=60)
    )
    def test_nothing_else_is_raised(self, what: str, where: str, fstype: str, options: str) -> None:
        message = ""
        try:
            request = mountrequest.check(what, where, fstype, options)
        except InvalidArgs as error:
            message = error.message
        else:
            assert request.where.startswith("/")
            assert "\0" not in what + where + fstype + options
        assert message == "" or message.isprintable()

    @pytest.mark.parametrize("where", ["/", "//", "///", "/.", "/./", "//.//./"])
    def test_the_root_is_never_unmounted(self, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """umount2(2) of one's root does not unmount it: it makes the filesystem, the host's, read-only."""

        def never(*_: object) -> None:
            raise AssertionError("this would have made the host's root read-only")

        monkeypatch.setattr(syscalls, "umount2", never)
        monkeypatch.setattr(mounts, "join", never)
        with pytest.raises(InvalidArgs, match="root of a namespace"):
            mounts.unmount(-1, where, lazy=False)
        with pytest.raises(InvalidArgs, match="root of a namespace"):
            mountrequest.check("t", where, "tmpfs", "")  # nobody could undo it

    @pytest.mark.parametrize("where", ["/link/", "/link/.", "//link", "/./link//."])
    def test_nor_by_a_link_that_leads_there(self, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[str, int]] = []
        monkeypatch.setattr(syscalls, "umount2", lambda target, flags: asked.append((target, flags)))
        monkeypatch.setattr(mounts, "join", lambda _: None)
        directories: list[str] = []
        monkeypatch.setattr("os.fchdir", lambda fd: directories.append(os.readlink(f"/proc/self/fd/{fd}")))
        mounts.unmount(-1, where, lazy=False)
        assert (directories, asked) == (["/"], [("link", syscalls.UMOUNT_NOFOLLOW)])


class TestChanges:
    """The difference, by mount point."""

    def test_none(self) -> None:
        table = [a_mount("/"), a_mount("/proc")]
        assert changes(table, table) == []

    def test_ids_and_propagation_are_no_difference(self) -> None:
        here = a_mount("/")
        assert changes([here], [replace(here, id=99, parent=7, propagation=("master:3",))]) == []

    def test_added_removed_changed_in_order_of_their_places(self) -> None:
        host = [a_mount("/"), a_mount("/gone"), a_mount("/same"), a_mount("/other")]
        inside = [a_mount("/"), a_mount("/same"), a_mount("/other", options="ro"), a_mount("/new")]
        assert changes(host, inside) == [("removed", "/gone"), ("added", "/new"), ("changed", "/other")]

    def test_the_holder_is_the_hosts_own(self) -> None:
        host = [a_mount("/"), a_mount(HOLDER), a_mount(HOLDER + "/a", fstype="nsfs")]
        assert changes(host, [a_mount("/")]) == []
        assert changes([*host, a_mount(HOLDER + "2")], [a_mount("/")]) == [("removed", HOLDER + "2")]

    def test_mounts_over_each_other_are_compared_from_the_bottom(self) -> None:
        host = [a_mount("/m", "one")]
        inside = [a_mount("/m", "one"), a_mount("/m", "two")]
        (change,) = mounts.changes(host, inside, HOLDER)
        assert (change.kind, change.mount.source) == ("added", "two")
        (change,) = mounts.changes(inside, host, HOLDER)
        assert (change.kind, change.mount.source) == ("removed", "two")

    def test_options_as_findmnt_joins_them(self) -> None:
        found = replace(a_mount("/", options="ro,nosuid"), super_options="rw,size=1k,nosuid")
        assert mounts.all_options(found) == "ro,nosuid,size=1k"

    @quick
    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=6), st.data())
    def test_undoing_every_change_gives_the_host_again(
        self, rows: list[tuple[str, str]], data: st.DataObject
    ) -> None:
        host = [a_mount("/" + place, source) for place, source in rows]
        other = data.draw(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=6))
        inside = [a_mount("/" + place, source) for place, source in other]
        kinds = [kind for kind, _ in changes(host, inside)]
        assert len(inside) - len(host) == kinds.count("added") - kinds.count("removed")
        assert (changes(host, inside) == []) == (sorted(rows, key=first) == sorted(other, key=first))


def first(row: tuple[str, str]) -> str:
    """What a stable sort of mounts by place goes by."""
    return row[0]
