# SPDX-License-Identifier: LGPL-2.1-or-later
"""What SECURITY.md says of mountnsd that somebody might expect otherwise ("Known properties")."""

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import MANAGER, Client
from support.contract import (
    BUSY,
    DENIED,
    NO_SUCH,
    NO_SUCH_USER,
    OBJECT_MANAGER,
    action,
    create,
    destroy,
    entered,
    names,
    on,
    path_of,
    refused,
    run,
    somebody_inside,
)
from support.daemon import Daemon
from support.polkit import Polkit

pytestmark = [
    pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True),
    pytest.mark.usefixtures("daemon"),
]

ENTER = "sasa{uh}a{sv}"


class TestWhatCanBeLearnt:
    """By a user to whom polkit says no to everything."""

    def test_names_are_public(self, root: Client, user: Client, polkit: Polkit) -> None:
        with user.signals(MANAGER) as told, user.signals(OBJECT_MANAGER) as objects:
            create(root, "x", description=("s", "no secret"), labels=("a{ss}", {"k": "v"}))
            assert told.wait().body == ("x", path_of("x"))
            added = objects.wait().body[1]["org.mountnsd1.Namespace"]
            assert added["Description"] == ("s", "no secret")
            assert added["Labels"] == ("a{ss}", {"k": "v"})
            assert added["OwnerUID"] == ("u", 0)
            destroy(root, "x")
            assert told.wait(accept=lambda one: one.member == "NamespaceRemoved").body[0] == "x"
        assert refused(user.manager, "List").name == DENIED
        assert {question.action for question in polkit.questions()} == {action("list")}

    def test_whether_a_name_exists(self, root: Client, user: Client, polkit: Polkit) -> None:
        create(root, "x")
        for member, signature, more in (
            ("GetNamespace", "s", ()),
            ("Open", "s", ()),
            ("Destroy", "sa{sv}", ({},)),
            ("Enter", ENTER, (["/bin/true"], {}, {})),
        ):
            assert refused(user.manager, member, signature, "x", *more).name == DENIED
            asked = len(polkit.questions())
            assert refused(user.manager, member, signature, "y", *more).name == NO_SUCH
            assert len(polkit.questions()) == asked

    def test_whether_a_user_exists(self, root: Client, user: Client, polkit: Polkit) -> None:
        create(root, "x")
        for who, name in (("daemon", DENIED), ("no-such-user", NO_SUCH_USER)):
            options = {"user": ("s", who)}
            assert refused(user.manager, "Enter", ENTER, "x", ["/bin/true"], {}, options).name == name
        assert len(polkit.questions()) == 1


class TestRights:
    """What a yes is a yes to."""

    def test_ownership_gives_none(self, user: Client, polkit: Polkit) -> None:
        polkit.allow(action("create"), user.uid)
        create(user, "mine")
        polkit.deny(action("create"), user.uid)
        for member, signature, more in (
            ("GetNamespace", "s", ()),
            ("Open", "s", ()),
            ("Destroy", "sa{sv}", ({},)),
            ("Enter", ENTER, (["/bin/true"], {}, {})),
        ):
            assert refused(user.manager, member, signature, "mine", *more).name == DENIED
            assert polkit.questions()[-1].details["owner"] == str(user.uid)
        assert refused(on, user, "mine", "GetMounts").name == DENIED
        assert refused(on, user, "mine", "Mount", "ssss", "t", "/mnt", "tmpfs", "").name == DENIED

    def test_to_create_is_to_copy_and_not_to_enter(self, root: Client, user: Client, polkit: Polkit) -> None:
        create(root, "roots")
        on(root, "roots", "Mount", "ssss", "t", "/mnt", "tmpfs", "mode=0755")
        polkit.allow(action("create"), user.uid)
        create(user, "copy", from_=("s", "roots"))
        assert polkit.questions()[-1].details["from"] == "roots"
        assert "/mnt" in {row[4] for row in on(root, "copy", "GetMounts")[0]}
        assert refused(user.manager, "Enter", ENTER, "copy", ["/bin/true"], {}, {}).name == DENIED

    def test_the_program_is_what_the_caller_calls_it(
        self, root: Client, user: Client, polkit: Polkit
    ) -> None:
        create(root, "x")
        on(root, "x", "Mount", "ssss", "/bin/echo", "/usr/bin/id", "", "bind")
        polkit.allow(action("enter"), user.uid)
        assert run(user, "x", "/usr/bin/id", "another program") == "another program\n"
        assert polkit.questions()[-1].details["program"] == "/usr/bin/id"


def test_kill_ends_whoever_is_inside(
    bus: PrivateBus, daemon: Daemon, root: Client, user: Client, polkit: Polkit
) -> None:
    """Of any user, and whoever brought him in."""
    create(root, "x")
    for word in ("enter", "destroy"):
        polkit.allow(action(word), user.uid)
    with (
        somebody_inside(daemon.pins / "x") as of_root,
        entered(root, "x", ["/bin/sleep", "60"], user=("s", "daemon")) as of_another,
        entered(user, "x", ["/bin/sleep", "60"]) as his,
    ):
        inside = {of_root, of_another.pid, his.pid}
        assert refused(destroy, user, "x").name == BUSY
        with Client(bus.address, user.uid) as same:
            assert {*destroy(same, "x", kill=("b", True))} == inside
        for pid in inside:
            assert leaks.wait_gone(pid)
    assert names(root) == []
