# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nobody but root does anything that polkit has not said yes to: about this caller, this action, this namespace."""

import contextlib
import grp
import os
import pwd
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.buses import PrivateBus
from support.client import INTERACTIVE, MANAGER, NAMESPACE, PATH, PROPERTIES, Client
from support.contract import (
    DENIED,
    INTERACTIVE_REQUIRED,
    INTROSPECTABLE,
    LIMITS,
    NO_SUCH,
    OBJECT_MANAGER,
    PEER,
    action,
    create,
    destroy,
    listed,
    methods,
    mounted_at_mnt,
    names,
    on,
    path_of,
    refused,
    run,
    wait_until,
)
from support.daemon import Daemon
from support.polkit import NAME as POLKIT_NAME
from support.polkit import Polkit, RealPolkit
from support.raw import (
    DESTINATION,
    ERROR,
    ERROR_NAME,
    METHOD_RETURN,
    REPLY_SERIAL,
    SENDER,
    SIGNATURE,
    Field,
    Frame,
    RawConnection,
    frame,
    marshal,
)
from support.stub import Owner

pytestmark = pytest.mark.usefixtures("daemon")

OTHER = 1  # a user of every system (daemon), who is not the user of the tests
TRUE: list[str] = ["/bin/true"]
ENTER = "sasa{uh}a{sv}"


@dataclass(frozen=True)
class Ask:
    """A call to a method, and what polkit is to be asked about it.

    Arguments: action: its last word; details: but for `name` and `owner` of the namespace x, where `about` says
        that it is about that.
    """

    path: str
    interface: str
    member: str
    signature: str = ""
    args: tuple[Any, ...] = ()
    action: str = "list"
    details: dict[str, str] = field(default_factory=dict)

    def send(self, client: Client, flags: int = 0) -> int:
        """Send the call."""
        return client.send(self.path, self.interface, self.member, self.signature, *self.args, flags=flags)

    def call(self, client: Client, flags: int = 0) -> tuple[Any, ...]:
        """Call it."""
        return client.reply(self.send(client, flags))


X = path_of("x")
ABOUT_X = {"name": "x", "owner": "0"}
NOBODY = str(pwd.getpwnam("nobody").pw_uid)
NEW = {"name": "new", "owner": NOBODY, "propagation": "slave"}
ABOUT_MOUNT = ABOUT_X | {"what": "t", "where": "/mnt", "type": "tmpfs", "options": ""}
AS_SELF = ABOUT_X | {"user": NOBODY, "program": "/bin/true"}

ASKS = [
    Ask(PATH, MANAGER, "Create", "sa{sv}", ("new", {}), "create", NEW),
    Ask(PATH, MANAGER, "Enter", ENTER, ("x", TRUE, {}, {}), "enter", AS_SELF),
    Ask(PATH, MANAGER, "Open", "s", ("x",), "open", ABOUT_X),
    Ask(PATH, MANAGER, "Destroy", "sa{sv}", ("x", {}), "destroy", ABOUT_X),
    Ask(PATH, MANAGER, "List"),
    Ask(PATH, MANAGER, "GetNamespace", "s", ("x",), "list", ABOUT_X),
    Ask(PATH, MANAGER, "GetNamespaceByPID", "u", (1,)),
    Ask(X, NAMESPACE, "Enter", "asa{uh}a{sv}", (TRUE, {}, {}), "enter", AS_SELF),
    Ask(X, NAMESPACE, "Open", "", (), "open", ABOUT_X),
    Ask(X, NAMESPACE, "Destroy", "a{sv}", ({},), "destroy", ABOUT_X),
    Ask(X, NAMESPACE, "GetProcesses", details=ABOUT_X),
    Ask(X, NAMESPACE, "GetMounts", details=ABOUT_X),
    Ask(X, NAMESPACE, "GetChanges", details=ABOUT_X),
    Ask(X, NAMESPACE, "Mount", "ssss", ("t", "/mnt", "tmpfs", ""), "mount", ABOUT_MOUNT),
    Ask(X, NAMESPACE, "Unmount", "sa{sv}", ("/mnt", {}), "mount", ABOUT_X | {"where": "/mnt"}),
    Ask(PATH, INTROSPECTABLE, "Introspect"),
    Ask(PATH, PROPERTIES, "Get", "ss", (MANAGER, "Count")),
    Ask(PATH, PROPERTIES, "GetAll", "s", (MANAGER,)),
    Ask(X, PROPERTIES, "Get", "ss", (NAMESPACE, "Name"), details={"name": "x"}),
    Ask(X, PROPERTIES, "GetAll", "s", (NAMESPACE,), details={"name": "x"}),
    Ask(PATH, OBJECT_MANAGER, "GetManagedObjects"),
]
AS_ANOTHER = ABOUT_X | {"user": "0", "program": "/bin/true"}
NEW_PRIVILEGES = {"new_privileges": ("b", True)}
MORE = [
    Ask(
        PATH,
        MANAGER,
        "Create",
        "sa{sv}",
        ("new", {"from": ("s", "x")}),
        "create",
        NEW | {"from": "x"},
    ),
    Ask(PATH, MANAGER, "Enter", ENTER, ("x", TRUE, {}, {"user": ("s", "root")}), "enter-as", AS_ANOTHER),
    Ask(
        PATH,
        MANAGER,
        "Enter",
        ENTER,
        ("x", TRUE, {}, {"user": ("s", "0")}),
        "enter-as",
        AS_ANOTHER,
    ),
    Ask(PATH, MANAGER, "Enter", ENTER, ("x", TRUE, {}, {"user": ("s", NOBODY)}), "enter", AS_SELF),
    Ask(
        PATH,
        MANAGER,
        "Enter",
        ENTER,
        ("x", TRUE, {}, NEW_PRIVILEGES),
        "enter-as",
        AS_ANOTHER | {"target": NOBODY, "new_privileges": "yes"},
    ),
    Ask(
        PATH,
        MANAGER,
        "Enter",
        ENTER,
        ("x", TRUE, {}, NEW_PRIVILEGES | {"user": ("s", str(OTHER))}),
        "enter-as",
        AS_ANOTHER | {"target": str(OTHER), "new_privileges": "yes"},
    ),
    Ask(PATH, MANAGER, "Enter", ENTER, ("x", [], {}, {}), "enter", AS_SELF | {"program": ""}),
    Ask(
        PATH,
        MANAGER,
        "Enter",
        ENTER,
        ("x", ["a\nb\x1b[0m"], {}, {}),
        "enter",
        AS_SELF | {"program": "a\\nb\\x1b[0m"},
    ),
]
IDS = [f"{ask.interface.rpartition('.')[2]}.{ask.member}" for ask in ASKS]


@pytest.fixture(autouse=True)
def _x(daemon: Daemon, root: Client) -> None:
    create(root, "x")


def state(daemon: Daemon, root: Client) -> tuple[Any, ...]:
    """All that a call could have changed."""
    rows = listed(root)
    mounts = [mounted_at_mnt(root, name) for name, *_ in rows]
    return rows, mounts, daemon.pinned()


def test_every_method_is_asked_about() -> None:
    guarded = {(m.interface, m.name) for m in methods() if m.interface != PEER} - {(PROPERTIES, "Set")}
    assert {(ask.interface, ask.member) for ask in ASKS} == guarded


class TestQuestions:
    """What polkit is asked."""

    @pytest.mark.parametrize("ask", [*ASKS, *MORE], ids=[*IDS, *(f"more{n}" for n in range(len(MORE)))])
    def test_who_what_and_about_what(
        self, daemon: Daemon, polkit: Polkit, root: Client, user: Client, ask: Ask
    ) -> None:
        before = state(daemon, root)
        assert refused(ask.call, user).name == DENIED
        assert refused(ask.call, user, INTERACTIVE).name == DENIED
        plain, interactive = polkit.questions()
        for question in (plain, interactive):
            assert question.action == action(ask.action)
            assert (question.kind, question.subject) == ("system-bus-name", {"name": user.unique_name})
            assert question.uid == user.uid
            assert question.details == ask.details
        assert (plain.flags, interactive.flags) == (0, 1)
        assert interactive.cancellation
        assert state(daemon, root) == before

    def test_root_is_not_asked_about(self, polkit: Polkit, root: Client) -> None:
        for ask in ASKS:
            with contextlib.suppress(Exception):
                ask.call(root)
            if not names(root):
                create(root, "x")
        assert polkit.questions() == []

    def test_peer_needs_nothing(self, polkit: Polkit, user: Client) -> None:
        user.call(PATH, PEER, "Ping")
        user.call(PATH, PEER, "GetMachineId")
        assert polkit.questions() == []

    def test_what_is_malformed_is_not_asked_about(self, polkit: Polkit, user: Client) -> None:
        refused(user.manager, "Create", "sa{sv}", "../x", {})
        refused(user.manager, "Open", "s", "none")
        refused(user.manager, "Destroy", "sa{sv}", "x", {"kill": ("s", "yes")})
        assert polkit.questions() == []

    def test_every_call_is_asked_about_again(self, polkit: Polkit, user: Client) -> None:
        polkit.allow(action("list"))
        for _ in range(3):
            user.manager("List")
        assert len(polkit.questions()) == 3


class TestAnswers:
    """What comes of polkit's answer."""

    @pytest.mark.parametrize("ask", ASKS, ids=IDS)
    def test_yes(self, polkit: Polkit, user: Client, root: Client, ask: Ask) -> None:
        polkit.allow(action(ask.action), user.uid)
        if ask.member == "Unmount":
            on(root, "x", "Mount", "ssss", "t", "/mnt", "tmpfs", "")
        if ask.member == "GetNamespaceByPID":
            assert "NoNamespaceForPID" in refused(ask.call, user).name
        else:
            for part in ask.call(user):
                if hasattr(part, "fileno"):
                    part.close()

    def test_yes_to_another_action_or_user_is_no_yes(
        self, daemon: Daemon, polkit: Polkit, root: Client, user: Client
    ) -> None:
        before = state(daemon, root)
        for ask in [*ASKS, *MORE]:
            polkit.forget()
            for word in ("create", "enter", "enter-as", "open", "mount", "destroy", "list"):
                if word != ask.action:
                    polkit.allow(action(word))
            polkit.allow(action(ask.action), OTHER)
            assert refused(ask.call, user).name == DENIED, ask
        assert state(daemon, root) == before

    @pytest.mark.parametrize("ask", ASKS, ids=IDS)
    def test_a_challenge(self, daemon: Daemon, polkit: Polkit, root: Client, user: Client, ask: Ask) -> None:
        before = state(daemon, root)
        polkit.challenge(action(ask.action))
        error = refused(ask.call, user)
        assert error.name == INTERACTIVE_REQUIRED
        assert action(ask.action) in error.message
        polkit.challenge(action(ask.action), passes=False)
        assert refused(ask.call, user, INTERACTIVE).name == DENIED
        assert state(daemon, root) == before

    def test_a_challenge_that_is_met(self, polkit: Polkit, user: Client) -> None:
        polkit.challenge(action("open"))
        user.manager("Open", "s", "x", flags=INTERACTIVE)[0].close()

    def test_a_late_yes(self, polkit: Polkit, root: Client, user: Client) -> None:
        polkit.hold()
        calls = [ask.send(user, INTERACTIVE) for ask in ASKS[4:7]]
        polkit.wait_for_questions(3)
        assert names(root) == ["x"]
        polkit.allow(action("list"))
        assert polkit.release() == 3
        answered: set[int | None] = set()
        while len(answered) < 3:
            header = user.connection.receive(timeout=5).header
            answered.add(next((value for key, value in header.fields.items() if value in calls), None))
            answered.discard(None)

    def test_a_late_no(self, daemon: Daemon, polkit: Polkit, root: Client, user: Client) -> None:
        before = state(daemon, root)
        polkit.hold()
        call = ASKS[3].send(user, INTERACTIVE)
        polkit.wait_for_questions()
        assert polkit.release() == 1
        assert refused(user.reply, call).name == DENIED
        assert state(daemon, root) == before


class TestVanishing:
    """Who leaves is asked about no longer, and gets nothing done."""

    def test_the_question_is_cancelled(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client, uid: int
    ) -> None:
        before = state(daemon, root)
        polkit.hold()
        with Client(bus.address, uid) as leaving:
            for ask in ASKS[:4]:
                ask.send(leaving, INTERACTIVE)
            questions = polkit.wait_for_questions(4)
        assert sorted(polkit.wait_for_cancelled(4)) == sorted(q.cancellation for q in questions)
        assert len({question.cancellation for question in questions}) == 4
        polkit.allow(action("destroy"))
        polkit.release()
        assert state(daemon, root) == before

    def test_of_two_callers_one_leaves(self, bus: PrivateBus, polkit: Polkit, user: Client, uid: int) -> None:
        polkit.hold()
        call = ASKS[2].send(user, INTERACTIVE)
        polkit.wait_for_questions()
        with Client(bus.address, uid) as leaving:
            ASKS[2].send(leaving, INTERACTIVE)
            [_, second] = polkit.wait_for_questions(2)
        assert polkit.wait_for_cancelled() == [second.cancellation]
        polkit.allow(action("open"))
        assert polkit.release() == 1
        user.reply(call)[0].close()

    def test_a_caller_who_is_gone_before_he_is_looked_at(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client, uid: int
    ) -> None:
        polkit.allow(action("create"))
        for number in range(20):
            with RawConnection(bus.address, uid) as leaving:
                body = marshal("sa{sv}", f"n{number}", {})
                leaving.call(PATH, MANAGER, "Create", "sa{sv}", body, flags=INTERACTIVE)
        assert "x" in names(root)
        wait_until(lambda: len(names(root)) == len(daemon.pinned()))
        assert "Traceback" not in daemon.log()


class TestReplaced:
    """A yes is about the namespace that was asked about, not about the next one of that name."""

    CALLS = (
        Ask(PATH, MANAGER, "Open", "s", ("x",)),
        Ask(X, NAMESPACE, "Open"),
        Ask(PATH, MANAGER, "Enter", ENTER, ("x", TRUE, {}, {})),
        Ask(X, NAMESPACE, "Enter", "asa{uh}a{sv}", (TRUE, {}, {})),
        Ask(PATH, MANAGER, "Destroy", "sa{sv}", ("x", {})),
        Ask(X, NAMESPACE, "Destroy", "a{sv}", ({"kill": ("b", True)},)),
        Ask(X, NAMESPACE, "GetMounts"),
        Ask(X, NAMESPACE, "GetChanges"),
        Ask(X, NAMESPACE, "Mount", "ssss", ("t", "/mnt", "tmpfs", "")),
        Ask(X, NAMESPACE, "Unmount", "sa{sv}", ("/mnt", {})),
        Ask(PATH, MANAGER, "Create", "sa{sv}", ("copy", {"from": ("s", "x")})),
    )

    @pytest.mark.parametrize("ask", CALLS, ids=lambda ask: f"{ask.interface[14:]}.{ask.member}")
    def test_while_the_question_was_open(
        self, daemon: Daemon, polkit: Polkit, root: Client, user: Client, ask: Ask
    ) -> None:
        polkit.hold()
        call = ask.send(user, INTERACTIVE)
        [question] = polkit.wait_for_questions()
        destroy(root, "x")
        create(root, "x")
        before = state(daemon, root)
        polkit.allow(question.action)
        polkit.release()
        assert refused(user.reply, call).name == NO_SUCH
        assert state(daemon, root) == before


class LyingPolkit(Owner):
    """A polkit that answers every question with the same thing, whatever its type."""

    def __init__(self, address: str, signature: str, body: bytes, error: str = "") -> None:
        self._what = (signature, body, error)
        super().__init__(address, 0, POLKIT_NAME)

    def _answer(self, message: Frame, count: int) -> None:  # noqa: ARG002
        signature, body, error = self._what
        fields = [Field(DESTINATION, "s", message.fields[SENDER]), Field(REPLY_SERIAL, "u", message.serial)]
        fields += [Field(SIGNATURE, "g", signature)] if signature else []
        fields += [Field(ERROR_NAME, "s", error)] if error else []
        kind = ERROR if error else METHOD_RETURN
        serial = self._connection.next_serial()
        self._connection.send(frame(fields, body, kind=kind, flags=1, serial=serial))


YES: tuple[Any, ...] = ((True, False, {}),)
LIES = {
    "nothing": ("", ()),
    "a boolean": ("b", (True,)),
    "numbers": ("(uua{ss})", ((1, 1, {}),)),
    "text": ("(ssa{ss})", (("yes", "yes", {}),)),
    "two values": ("(bba{ss})b", (*YES, True)),
    "a shorter struct": ("(bb)", ((True, False),)),
    "a longer struct": ("(bba{ss}b)", ((True, False, {}, True),)),
    "no struct": ("bba{ss}", (True, False, {})),
    "a variant": ("v", (("(bba{ss})", YES[0]),)),
    "an array": ("ab", ([True, True, True],)),
    "details of another type": ("(bba{sv})", ((False, True, {"polkit.dismissed": ("s", "1")}),)),
    "neither": ("(bba{ss})", ((False, False, {}),)),
    "dismissed": ("(bba{ss})", ((False, True, {"polkit.dismissed": "1"}),)),
}


class TestNoAnswer:
    """Without a yes that can be understood the answer is no; for root nothing changes."""

    @pytest.mark.parametrize("flags", [0, INTERACTIVE])
    def test_there_is_no_polkit(self, daemon: Daemon, root: Client, user: Client, flags: int) -> None:
        before = state(daemon, root)
        for ask in ASKS:
            error = refused(ask.call, user, flags)
            assert error.name == DENIED, ask
            assert "polkit" in error.message
        assert state(daemon, root) == before
        create(root, "y")
        destroy(root, "y")

    def test_a_yes_by_the_book(self, bus: PrivateBus, user: Client) -> None:
        """So that what is refused below is refused for what is wrong with it."""
        with LyingPolkit(bus.address, "(bba{ss})", marshal("(bba{ss})", *YES)):
            assert user.manager("List")[0]

    @pytest.mark.parametrize(("signature", "values"), LIES.values(), ids=LIES)
    @pytest.mark.parametrize("flags", [0, INTERACTIVE])
    def test_an_answer_that_makes_no_sense(
        self,
        bus: PrivateBus,
        daemon: Daemon,
        root: Client,
        user: Client,
        signature: str,
        values: tuple[Any, ...],
        flags: int,
    ) -> None:
        before = state(daemon, root)
        with LyingPolkit(bus.address, signature, marshal(signature, *values) if signature else b""):
            assert refused(ASKS[3].call, user, flags).name in (DENIED, INTERACTIVE_REQUIRED)
        assert state(daemon, root) == before
        assert "Traceback" not in daemon.log()

    def test_an_error(self, bus: PrivateBus, daemon: Daemon, user: Client) -> None:
        text = "a\nforged line\x1b[2J"
        with LyingPolkit(bus.address, "s", marshal("s", text), "org.freedesktop.PolicyKit1.Error.Failed"):
            assert refused(ASKS[3].call, user).name == DENIED
        assert "forged line" in daemon.log()
        assert "\nforged line" not in daemon.log()
        assert "\x1b" not in daemon.log()

    @pytest.mark.parametrize("flags", [0, INTERACTIVE])
    def test_polkit_dies_in_the_middle_of_a_question(
        self, daemon: Daemon, polkit: Polkit, root: Client, user: Client, flags: int
    ) -> None:
        before = state(daemon, root)
        polkit.hold()
        call = ASKS[3].send(user, flags)
        polkit.wait_for_questions()
        os.kill(polkit.pid, signal.SIGKILL)
        assert refused(user.reply, call).name == DENIED
        assert state(daemon, root) == before

    def test_polkit_comes_back(self, polkit: Polkit, user: Client) -> None:
        polkit.stop()
        assert refused(user.manager, "List").name == DENIED
        polkit.start()
        polkit.allow(action("list"))
        assert user.manager("List")[0]

    def test_somebody_else_answers(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client, user: Client, uid: int
    ) -> None:
        before = state(daemon, root)
        polkit.hold()
        call = ASKS[3].send(user, INTERACTIVE)
        polkit.wait_for_questions()
        owner = root.bus_call("GetNameOwner", "s", "org.mountnsd1")[0]
        body = marshal("(bba{ss})", *YES)
        with RawConnection(bus.address, uid) as forger:
            for serial in range(1, 200):
                fields = [
                    Field(DESTINATION, "s", owner),
                    Field(REPLY_SERIAL, "u", serial),
                    Field(SIGNATURE, "g", "(bba{ss})"),
                ]
                forger.send(frame(fields, body, kind=METHOD_RETURN, flags=1, serial=forger.next_serial()))
            forger.reply(forger.call("/", PEER, "Ping"))
        assert polkit.held() == 1
        assert state(daemon, root) == before
        polkit.release()
        assert refused(user.reply, call).name == DENIED


class TestQuota:
    """One user's open calls are counted, and hold up nobody else."""

    MOST = 64
    AT_ONCE = 16  # so many of them are before polkit, the others wait

    def test_the_next_one_is_refused(
        self, bus: PrivateBus, polkit: Polkit, root: Client, user: Client, uid: int
    ) -> None:
        polkit.hold()
        calls = [ASKS[4].send(user, INTERACTIVE) for _ in range(self.MOST)]
        polkit.wait_for_questions(self.AT_ONCE)
        error = refused(user.manager, "List")
        assert error.name == LIMITS
        assert str(self.MOST) in error.message
        with Client(bus.address, uid) as same_user:
            assert refused(same_user.manager, "List").name == LIMITS
        assert names(root) == ["x"]
        with Client(bus.address, OTHER) as other:
            ASKS[4].send(other)
            polkit.wait_for_questions(self.AT_ONCE + 1)
        polkit.allow(action("list"))
        assert polkit.release() == self.AT_ONCE + 1
        answered = 0
        while answered < self.MOST:
            header = user.connection.receive(timeout=5).header
            answered += any(value in calls for value in header.fields.values())
        assert user.manager("List")[0]


RULES = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.mountnsd1.enter" && action.lookup("name") == "x" && action.lookup("owner") == "0"
        && action.lookup("program") == "/usr/bin/id" && subject.isInGroup("%s"))
        return polkit.Result.YES;
});
"""

# The first knows of no new privileges, the second does.
RULES_FOR_USERS = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.mountnsd1.enter-as" && action.lookup("user") == "%d")
        return polkit.Result.YES;
});
polkit.addRule(function(action, subject) {
    if (action.id == "org.mountnsd1.enter-as" && action.lookup("new_privileges") == "yes" &&
        action.lookup("target") == "%s")
        return polkit.Result.YES;
});
"""


class TestRealPolkit:
    """The real polkitd, with the actions as they are shipped."""

    @pytest.fixture
    def group(self, uid: int) -> str:
        """The name of the user's group."""
        return grp.getgrgid(pwd.getpwuid(uid).pw_gid).gr_name

    def test_defaults(
        self, bus: PrivateBus, daemon: Daemon, directory: Path, root: Client, user: Client
    ) -> None:
        before = state(daemon, root)
        with RealPolkit(bus, directory):
            for ask in [*ASKS, *MORE]:
                if ask.action == "list":
                    if ask.member != "GetNamespaceByPID":
                        ask.call(user)
                    continue
                assert refused(ask.call, user).name == INTERACTIVE_REQUIRED, ask
                assert refused(ask.call, user, INTERACTIVE).name == DENIED, ask
        assert state(daemon, root) == before

    def test_a_rule_lets_a_group_in(
        self, bus: PrivateBus, directory: Path, root: Client, user: Client, group: str
    ) -> None:
        create(root, "y")
        with RealPolkit(bus, directory, RULES % group), Client(bus.address, OTHER) as other:
            assert run(user, "x", "/usr/bin/id", "-un").strip() == "nobody"
            for client, name, program, options in (
                (other, "x", "/usr/bin/id", {}),
                (user, "y", "/usr/bin/id", {}),
                (user, "x", "/bin/sh", {}),
                (user, "x", "/usr/bin/id", {"user": ("s", "root")}),
                (user, "x", "/usr/bin/id", NEW_PRIVILEGES),
            ):
                error = refused(client.manager, "Enter", ENTER, name, [program], {}, options)
                assert error.name == INTERACTIVE_REQUIRED

    def test_a_rule_for_who_one_may_be_gives_no_more_than_him(
        self, bus: PrivateBus, directory: Path, user: Client
    ) -> None:
        """With new_privileges one may become root: only a rule that allows that, or knows of it, allows it."""
        other = ("s", str(OTHER))
        with RealPolkit(bus, directory, RULES_FOR_USERS % (OTHER, NOBODY)):
            assert run(user, "x", "/usr/bin/id", "-u", user=other).strip() == str(OTHER)
            assert run(user, "x", "/usr/bin/id", "-u", new_privileges=("b", True)).strip() == NOBODY
            error = refused(
                user.manager, "Enter", ENTER, "x", ["/usr/bin/id"], {}, NEW_PRIVILEGES | {"user": other}
            )
            assert error.name == INTERACTIVE_REQUIRED
