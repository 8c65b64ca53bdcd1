# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who a process is to be."""

import contextlib
import grp
import os
import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountnsd import identity
from mountnsd.errors import AccessDenied, NoSuchUser

ALICE = pwd.struct_passwd(("alice", "x", 1000, 1000, "", "/home/alice", "/bin/bash"))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> dict[int, pwd.struct_passwd]:
    """A user database with alice, whom it puts into the groups 1000, 27 and 100."""
    entries = {1000: ALICE}
    by_name = {"alice": ALICE}
    monkeypatch.setattr(pwd, "getpwuid", entries.__getitem__)
    monkeypatch.setattr(pwd, "getpwnam", by_name.__getitem__)
    monkeypatch.setattr(os, "getgrouplist", lambda _name, gid: [gid, 27, 100, gid])
    return entries


@pytest.mark.parametrize("user", ["root", "0"])
def test_root_by_name_and_by_number(user: str) -> None:
    root = identity.of_user(user)
    assert (root.uid, root.gid, root.name) == (0, 0, "root")
    assert root.home == pwd.getpwuid(0).pw_dir


def test_a_user_has_all_his_groups() -> None:
    for entry in pwd.getpwall()[:20]:
        known = {group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem}
        assert {*identity.of_user(entry.pw_name).groups} >= known | {entry.pw_gid}


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("user", ["alice", "1000"])
def test_of_user(user: str) -> None:
    expected = identity.Identity(1000, 1000, (1000, 27, 100), "alice", "/home/alice", "/bin/bash")
    assert identity.of_user(user) == expected


@pytest.mark.parametrize(
    "user",
    [
        "",
        "no-such-user",
        "4294967295",  # (uid_t)-1: setresuid would leave the process root
        "4294967296",
        "18446744073709551616",
        "-1",
        "+0",
        " 0",
        "0 ",
        "00",
        "0x0",
        "٠",  # a digit, but not one of ASCII
        "root\n",
        "root\0",
        "\udcff",
        "x" * 10000,
    ],
)
def test_no_such_user(user: str) -> None:
    with pytest.raises(NoSuchUser) as caught:
        identity.of_user(user)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


@given(st.text())
def test_any_text_is_a_user_or_refused(text: str) -> None:
    with contextlib.suppress(NoSuchUser):
        found = identity.of_user(text)
        assert text in (found.name, str(found.uid))


@pytest.mark.usefixtures("database")
def test_the_caller_has_the_groups_that_the_bus_reports_and_no_other() -> None:
    himself = identity.of_caller(1000, (100, 1000))
    assert himself.groups == (100, 1000)
    assert himself.gid == 1000


@pytest.mark.usefixtures("database")
def test_a_caller_who_dropped_his_primary_group_does_not_get_it_back() -> None:
    himself = identity.of_caller(1000, (100, 65534))
    assert himself.groups == (100, 65534)
    assert himself.gid == 100


@pytest.mark.usefixtures("database")
def test_an_old_bus_reports_no_groups() -> None:
    assert identity.of_caller(1000, None) == identity.of_user("alice")


@pytest.mark.usefixtures("database")
def test_a_caller_in_no_group_is_refused() -> None:
    with pytest.raises(AccessDenied):
        identity.of_caller(1000, ())


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("uid", [1001, 2**32 - 1, 2**32, -1])
def test_a_caller_whom_the_database_does_not_know(uid: int) -> None:
    with pytest.raises(NoSuchUser):
        identity.of_caller(uid, (100,))


@given(st.lists(st.integers(0, identity.MAX_ID), min_size=1))
def test_a_caller_never_gains_a_group(groups: list[int]) -> None:
    himself = identity.of_caller(0, tuple(groups))
    assert {*himself.groups} == {*groups}
    assert himself.gid in groups


def test_what_the_database_leaves_out(database: dict[int, pwd.struct_passwd]) -> None:
    database[1000] = pwd.struct_passwd(("alice", "x", 1000, 1000, "", "", ""))
    himself = identity.of_caller(1000, (1000,))
    assert (himself.home, himself.shell) == ("/", "/bin/sh")


@pytest.mark.parametrize(
    ("uid", "gid", "shell"), [(2**32 - 1, 0, "/bin/sh"), (1000, 2**32 - 1, "/bin/sh"), (1000, 1000, "bin/sh")]
)
def test_what_the_database_has_wrong(
    database: dict[int, pwd.struct_passwd], uid: int, gid: int, shell: str
) -> None:
    database[1000] = pwd.struct_passwd(("alice", "x", uid, gid, "", "/", shell))
    with pytest.raises(NoSuchUser):
        identity.of_caller(1000, (gid,))


@pytest.mark.parametrize(("uid", "gid", "groups"), [(2**32 - 1, 0, ()), (0, -1, ()), (0, 0, (2**32 - 1,))])
def test_no_identity_has_an_id_that_means_unchanged(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no uid or gid"):
        identity.Identity(uid, gid, groups, "x", "/", "/bin/sh")
