# SPDX-License-Identifier: LGPL-2.1-or-later
"""One table says what there is to call and what guards it; nothing runs that was not allowed."""

import asyncio
import os
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd import bus as bus_module
from mountnsd import frames, interface, plan, standard
from mountnsd.authority import Action
from mountnsd.bus import Bus, Call
from mountnsd.callers import Caller
from mountnsd.descriptors import Descriptors
from mountnsd.errors import AccessDenied, Error, InvalidArgs, LimitsExceeded
from mountnsd.launcher import Launcher
from mountnsd.plan import Answer, Entry, Plan, Request
from mountnsd.quota import MAX_PENDING_PER_USER
from mountnsd.ready import Ready
from mountnsd.registry import Registry
from mountnsd.service import ACTING, Service
from mountnsd.unread import MAX_BYTES_PER_USER, MAX_DESCRIPTORS_PER_USER

DBUS = Path(__file__).resolve().parents[2] / "dbus"
MANAGER, NAMESPACE = "org.mountnsd1.Manager", "org.mountnsd1.Namespace"
PEER, PROPERTIES = "org.freedesktop.DBus.Peer", "org.freedesktop.DBus.Properties"
INTROSPECTABLE, OBJECT_MANAGER = "org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.ObjectManager"

# As the design has it: what guards what.
GUARDED = {
    (MANAGER, "Create"): {"create"},
    (MANAGER, "Enter"): {"enter", "enter-as"},
    (MANAGER, "Open"): {"open"},
    (MANAGER, "Destroy"): {"destroy"},
    (MANAGER, "List"): {"list"},
    (MANAGER, "GetNamespace"): {"list"},
    (MANAGER, "GetNamespaceByPID"): {"list"},
    (NAMESPACE, "Enter"): {"enter", "enter-as"},
    (NAMESPACE, "Open"): {"open"},
    (NAMESPACE, "Destroy"): {"destroy"},
    (NAMESPACE, "GetProcesses"): {"list"},
    (NAMESPACE, "GetMounts"): {"list"},
    (NAMESPACE, "GetChanges"): {"list"},
    (NAMESPACE, "Mount"): {"mount"},
    (NAMESPACE, "Unmount"): {"mount"},
    (PEER, "Ping"): set(),
    (PEER, "GetMachineId"): set(),
    (INTROSPECTABLE, "Introspect"): {"list"},
    (PROPERTIES, "Get"): {"list"},
    (PROPERTIES, "GetAll"): {"list"},
    (PROPERTIES, "Set"): {"list"},
    (OBJECT_MANAGER, "GetManagedObjects"): {"list"},
}


def elements(kind: str) -> Iterator[tuple[str, ET.Element]]:
    """Every method, signal or property of the files in dbus/, with its interface."""
    for path in DBUS.glob("*.xml"):
        for element in ET.parse(path).iter("interface"):
            for item in element.iter(kind):
                yield element.attrib["name"], item


class RecordingBus(Bus):
    """A bus that sends nothing and keeps what it was to send."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[tuple[str, list[Any] | Ready]] = []
        self.errors: list[tuple[str, str]] = []
        self.size = 100  # of an answer, in bytes

    async def reply(
        self,
        call: Call,  # noqa: ARG002
        signature: str,
        body: list[Any] | Ready,
        fds: list[int] | None = None,
    ) -> int:
        """Keep an answer."""
        Descriptors(fds or []).close()
        self.replies.append((signature, body))
        return self.size

    def flush(self) -> None:
        """Nothing waits."""

    def error(self, call: Call, error: Error) -> None:  # noqa: ARG002
        """Keep an error."""
        self.errors.append((error.dbus_name, error.message))

    async def call_driver(self, *_call: Any) -> list[Any]:
        """Say that every caller is the user 1000."""
        return [{"UnixUserID": bus_module.Variant("u", 1000)}]


class NoNamespaces:
    """What of a registry the dispatch itself needs: nothing is in this one."""

    listener: object = None
    holder = SimpleNamespace(path="/nowhere")
    limits = SimpleNamespace(namespaces=1)

    def find(self, name: str) -> None:
        """There is none."""

    def all(self) -> list[object]:
        """There are none."""
        return []

    def __len__(self) -> int:
        return 0


class World:
    """A service without a bus, whose authority says what it is told to.

    Attributes: asked: the actions that the authority was asked about; allow: what it says; asks: whether that takes
        a question.
    """

    def __init__(self) -> None:
        self.bus = RecordingBus()
        self.service = Service(self.bus, cast(Registry, NoNamespaces()), Launcher())
        self.asked: list[tuple[str, dict[str, str], bool]] = []
        self.allow = True
        self.asks = True
        self.service._authority.check = self._check  # type: ignore[assignment,method-assign]

    async def _check(
        self, _caller: Caller, action: Action, details: Mapping[str, str], interactive: bool
    ) -> bool:
        self.asked.append((str(action), dict(details), interactive))
        if not self.allow:
            raise AccessDenied("no")
        return self.asks

    def add(self, member: str, actions: tuple[Action, ...], prepare: Callable[[Request], Plan]) -> None:
        """Put something else behind a method of the manager."""
        self.service._table[MANAGER, member] = Entry(actions, prepare)

    async def call(
        self,
        member: str,
        name: str = MANAGER,
        path: str = "/org/mountnsd1",
        signature: str = "",
        flags: int = 0,
        body: bytes = b"",
    ) -> None:
        """Serve one call to its end."""
        fields: dict[int, str | int] = {frames.PATH: path, frames.MEMBER: member, frames.SENDER: ":1.1"}
        fields |= {frames.INTERFACE: name} if name else {}
        fields |= {frames.SIGNATURE: signature} if signature else {}
        frame = frames.Frame(frames.METHOD_CALL, flags, 1, True, fields, body)
        await self.service._serve(Call(frame), None)


Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story) -> World:
    """Run a story in a world of its own."""

    async def run() -> World:
        world = World()
        await story(world)
        return world

    return asyncio.run(run())


def table() -> dict[tuple[str, str], Entry]:
    """The dispatch table."""

    async def nothing(world: World) -> None:
        pass

    return play(nothing).service._table


def plan_of(run: Callable[[], Awaitable[Answer]], action: Action | None = None) -> Callable[[Request], Plan]:
    """A method that does nothing but run."""
    return lambda _request: Plan(run, {"name": "x"}, action)


class TestTable:
    """The table, the XML and the design agree."""

    def test_it_has_every_method_of_the_interfaces_and_no_other(self) -> None:
        assert set(table()) == {(owner, item.attrib["name"]) for owner, item in elements("method")}

    def test_what_guards_what(self) -> None:
        found = {
            key: {action.removeprefix("org.mountnsd1.") for action in e.actions} for key, e in table().items()
        }
        assert found == GUARDED

    def test_only_peer_is_unguarded(self) -> None:
        assert {owner for (owner, _), entry in table().items() if not entry.actions} == {PEER}

    def test_the_usual_action_comes_first(self) -> None:
        assert table()[MANAGER, "Enter"].actions[0] is Action.ENTER

    def test_every_action_is_declared_and_used(self) -> None:
        declared = {item.attrib["id"] for item in ET.parse(DBUS / "org.mountnsd1.policy").iter("action")}
        used = {str(action) for entry in table().values() for action in entry.actions}
        assert declared == used == {str(action) for action in Action}

    def test_the_interfaces_are_those_of_the_files(self) -> None:
        found = interface.load_all()
        assert set(found) == {owner for owner, _ in elements("method")}
        for owner, item in elements("method"):
            arguments = [(arg.attrib["direction"], arg.attrib["type"]) for arg in item.iter("arg")]
            method = found[owner].methods[item.attrib["name"]]
            assert method.takes == "".join(kind for direction, kind in arguments if direction == "in")
            assert method.gives == "".join(kind for direction, kind in arguments if direction == "out")

    def test_every_property_has_a_value(self) -> None:
        served = {MANAGER: standard._MANAGER_PROPERTIES, NAMESPACE: standard._NAMESPACE_PROPERTIES}
        declared = {(owner, item.attrib["name"]) for owner, item in elements("property")}
        assert declared == {(owner, name) for owner, properties in served.items() for name in properties}


class TestOrder:
    """First the question, then the deed; and one answer to every call."""

    def test_what_is_refused_does_not_run(self) -> None:
        async def story(world: World) -> None:
            async def run() -> Answer:
                raise AssertionError("it ran")

            world.allow = False
            caller = Caller(":1.1", 1000, 1, None)
            call = Call(frames.Frame(frames.METHOD_CALL, 0, 1, True, {}, b""))
            for entry in world.service._table.values():
                if entry.actions:
                    with pytest.raises(AccessDenied):
                        await world.service._allowed(entry, Plan(run), call, caller)

        guarded = [entry.actions[0] for entry in table().values() if entry.actions]
        assert [action for action, _, _ in play(story).asked] == guarded

    def test_the_flags_and_details_arrive(self) -> None:
        async def story(world: World) -> None:
            async def run() -> Answer:
                return Answer([[]])

            world.add("List", (Action.LIST,), plan_of(run))
            await world.call("List", flags=frames.ALLOW_INTERACTIVE_AUTHORIZATION)
            await world.call("List")

        world = play(story)
        action = "org.mountnsd1.list"
        assert world.asked == [(action, {"name": "x"}, True), (action, {"name": "x"}, False)]
        assert world.bus.replies == [("a(sotut)", [[]])] * 2

    @pytest.mark.parametrize("asked", [True, False])
    def test_what_may_have_changed_is_looked_at_again_once_it_was_asked(self, asked: bool) -> None:
        """Before it is done; and where nobody was asked, no time has passed."""
        log: list[str] = []

        async def story(world: World) -> None:
            async def run() -> Answer:
                log.append("run")
                return Answer([[]])

            async def again() -> None:
                log.append("again")

            world.asks = asked
            world.add("List", (Action.LIST,), lambda _: Plan(run, again=again))
            await world.call("List")

        play(story)
        assert log == (["again", "run"] if asked else ["run"])

    def test_the_log_is_told_once_it_is_answered(self) -> None:
        async def story(world: World) -> None:
            async def run() -> Answer:
                return Answer([[]], told=lambda: told.append(len(world.bus.replies)))

            world.add("List", (Action.LIST,), plan_of(run))
            await world.call("List")

        told: list[int] = []
        play(story)
        assert told == [1]

    def test_the_log_is_told_of_what_is_done_though_it_cannot_be_answered(self) -> None:
        async def story(world: World) -> None:
            async def run() -> Answer:
                return Answer([[]], told=lambda: told.append("done"))

            async def fail(*_answer: Any) -> int:
                raise MemoryError

            world.bus.reply = fail  # type: ignore[assignment,method-assign]
            world.add("List", (Action.LIST,), plan_of(run))
            await world.call("List")

        told: list[str] = []
        assert len(play(story).bus.errors) == 1
        assert told == ["done"]

    def test_an_action_that_is_not_in_the_entry_is_refused(self) -> None:
        async def story(world: World) -> None:
            async def run() -> Answer:
                raise AssertionError("it ran")

            world.add("List", (Action.DESTROY,), plan_of(run, Action.LIST))
            await world.call("List")

        world = play(story)
        assert [name for name, _ in world.bus.errors] == ["org.freedesktop.DBus.Error.AccessDenied"]
        assert world.asked == []

    def test_what_is_in_the_xml_and_not_in_the_table_is_refused(self) -> None:
        async def story(world: World) -> None:
            del world.service._table[MANAGER, "List"]
            await world.call("List")

        assert [name for name, _ in play(story).bus.errors] == ["org.freedesktop.DBus.Error.UnknownMethod"]

    def test_a_fault_of_ours_says_nothing_of_itself(self) -> None:
        async def story(world: World) -> None:
            async def run() -> Answer:
                raise RuntimeError("a secret in /usr/lib/mountnsd/secret.py")

            world.add("List", (Action.LIST,), plan_of(run))
            await world.call("List")

        [(name, message)] = play(story).bus.errors
        assert name == "org.freedesktop.DBus.Error.Failed"
        assert "secret" not in message
        assert "journalctl" in message

    def test_a_call_that_is_cut_short_is_answered(self) -> None:
        async def story(world: World) -> None:
            begun = asyncio.Event()

            async def run() -> Answer:
                begun.set()
                await asyncio.get_running_loop().create_future()
                raise AssertionError

            world.add("List", (Action.LIST,), plan_of(run))
            world.service.start()
            fields: dict[int, str | int] = {
                frames.PATH: "/org/mountnsd1",
                frames.MEMBER: "List",
                frames.INTERFACE: MANAGER,
                frames.SENDER: ":1.1",
            }
            call = Call(frames.Frame(frames.METHOD_CALL, 0, 1, True, fields, b""))
            world.bus.handler(call)
            await asyncio.wait_for(begun.wait(), 5)
            assert world.service.busy
            await world.service.close()
            world.bus.handler(call)

        world = play(story)
        assert [message for _, message in world.bus.errors] == ["mountnsd is stopping; call again."] * 2

    def test_without_a_guard_nobody_is_asked(self) -> None:
        async def story(world: World) -> None:
            await world.call("Ping", PEER, "/anywhere")

        world = play(story)
        assert world.asked == []
        assert world.bus.replies == [("", [])]

    def test_an_entry_is_frozen(self) -> None:
        entry = table()[MANAGER, "List"]
        with pytest.raises(AttributeError):
            entry.actions = ()  # type: ignore[misc]
        assert plan.Answer().fds == []


class TestNoAnswerWanted:
    """Who wants no answer to a method that does nothing but answer costs nothing: he can send any number."""

    @pytest.mark.parametrize(
        ("flags", "served"),
        [(frames.NO_REPLY_EXPECTED, ACTING), (0, {item.attrib["name"] for _, item in elements("method")})],
    )
    def test_what_only_answers_is_dropped(self, flags: int, served: set[str]) -> None:
        found: set[str] = set()

        async def story(world: World) -> None:
            async def serve(call: Call, counted: object) -> None:
                found.add(call.member)

            world.service._serve = serve  # type: ignore[method-assign]
            world.service.start()
            for _, item in elements("method"):
                fields: dict[int, str | int] = {frames.MEMBER: item.attrib["name"]}
                world.bus.handler(Call(frames.Frame(frames.METHOD_CALL, flags, 1, True, fields, b"")))
            await asyncio.gather(*world.service._tasks)

        play(story)
        assert found == served

    def test_all_that_does_something_is_known(self) -> None:
        answering = {Action.LIST, Action.OPEN}
        acting = {member for (_, member), entry in table().items() if not set(entry.actions) <= answering}
        assert acting == ACTING


class TestWaitingAnswers:
    """An answer that waits for the bus is a call that is open, and keeps little of it."""

    def test_they_count(self) -> None:
        async def story(world: World) -> None:
            room = asyncio.Event()
            waiting: list[Call] = []
            reply = world.bus.reply

            async def wait(call: Call, *answer: Any) -> int:
                waiting.append(call)
                await room.wait()
                return await reply(call, *answer)

            world.bus.reply = wait  # type: ignore[assignment,method-assign]
            path = "/" + "x" * 50_000
            calls = [asyncio.ensure_future(world.call("Ping", PEER, path)) for _ in range(100)]
            while len(waiting) + len(world.bus.errors) < 100:
                await asyncio.sleep(0)
            assert len(waiting) == MAX_PENDING_PER_USER
            assert {name for name, _ in world.bus.errors} == {LimitsExceeded.dbus_name}
            for call in waiting:
                assert (call.body, call.frame.body) == ([], b"")
                assert sum(len(str(value)) for value in call.frame.fields.values()) < 1000
            room.set()
            await asyncio.gather(*calls)
            await world.call("Ping", PEER)

        assert len(play(story).bus.replies) == MAX_PENDING_PER_USER + 1


class TestUnread:
    """Who may not have read what he got waits before he gets more, but not for what he did not get."""

    def test_bytes(self) -> None:
        async def story(world: World) -> None:
            world.bus.size = MAX_BYTES_PER_USER
            await world.call("Ping", PEER)
            second = asyncio.ensure_future(world.call("Ping", PEER))
            await asyncio.sleep(0.01)
            assert len(world.bus.replies) == 1
            world.bus.left(":1.1")
            await asyncio.wait_for(second, 5)

        assert len(play(story).bus.replies) == 2

    def test_descriptors(self) -> None:
        async def story(world: World) -> None:
            async def run() -> Answer:
                return Answer([0], [os.open("/dev/null", os.O_RDONLY)])

            async def look() -> int:
                return MAX_DESCRIPTORS_PER_USER

            async def fail() -> Answer:
                raise InvalidArgs("no")

            takes = interface.load_all()[MANAGER].methods["Open"].takes
            fields = {"signature": takes, "body": b"\1\0\0\0x\0"}
            world.service._unread_descriptors._look = look
            world.add("Open", (Action.OPEN,), plan_of(fail))
            for _ in range(2 * MAX_DESCRIPTORS_PER_USER):
                await world.call("Open", **fields)  # type: ignore[arg-type]
            world.add("Open", (Action.OPEN,), plan_of(run))
            for _ in range(MAX_DESCRIPTORS_PER_USER):
                await world.call("Open", **fields)  # type: ignore[arg-type]
            last = asyncio.ensure_future(world.call("Open", **fields))  # type: ignore[arg-type]
            await asyncio.sleep(0.01)
            assert not last.done()
            await world.call("Ping", PEER)
            world.bus.left(":1.1")
            await asyncio.wait_for(last, 5)

        world = play(story)
        assert len(world.bus.errors) == 2 * MAX_DESCRIPTORS_PER_USER
        assert len(world.bus.replies) == MAX_DESCRIPTORS_PER_USER + 2


class TestSerials:
    """Serials go round, and leave zero out."""

    def test_wrap(self) -> None:
        async def story(world: World) -> None:
            world.bus._serial = 0xFFFFFFFE
            assert [world.bus._next_serial() for _ in range(3)] == [0xFFFFFFFF, 1, 2]

        play(story)


class TestBodies:
    """Nobody has checked a body before us: whatever is in it, it is decoded or it is InvalidArgs."""

    @staticmethod
    def decode(signature: str, body: bytes, little_endian: bool = True) -> list[Any] | None:
        fields: dict[int, str | int] = {frames.SIGNATURE: signature}
        call = Call(frames.Frame(frames.METHOD_CALL, 0, 1, little_endian, fields, body))
        try:
            call.decode()
        except InvalidArgs:
            return None
        return call.body

    @settings(max_examples=400, deadline=None)
    @given(
        st.sampled_from(["s", "sa{sv}", "sasa{uh}a{sv}", "ssss", "u", "ssv"]),
        st.binary(max_size=120),
        st.booleans(),
    )
    def test_any_bytes(self, signature: str, body: bytes, little_endian: bool) -> None:
        self.decode(signature, body, little_endian)

    @pytest.mark.parametrize(
        ("signature", "body"),
        [
            ("s", b"\1\0\0\0a\0x"),
            ("s", b"\5\0\0\0a\0"),
            ("s", b"\3\0\0\0a\0b\0"),
            ("s", b"\1\0\0\0ab"),
            ("s", b"\1\0\0\0\xff\0"),
            ("s", b"\xff\xff\xff\xffa\0"),
            ("b", b"\2\0\0\0"),
            ("as", b"\xff\xff\xff\x7f"),
            ("v", b"\2ss\0\0\0\0\0\0\0\0\0\0\0\0"),
            ("v", b"\0\0"),
            ("v", b"\1z\0\0"),
            ("v", b"\1v\0" * 20_000),
            ("v", b"\xfe" + b"(" * 254 + b"\0"),
            ("", b"more"),
            ("s", b""),
        ],
    )
    def test_what_does_not_fit(self, signature: str, body: bytes) -> None:
        assert self.decode(signature, body) is None

    @pytest.mark.parametrize(
        ("body", "value"),
        [
            (b"\1v\0\1y\0\7", None),
            (b"\2ay\0\0\0\0\0", None),
            (b"\5a{sv}\0" + b"\0" * 9, None),
            (b"\3(y)\0\0\0\0\7", None),
            (b"\1h\0\0\0\0\0\0", None),
            (b"\1y\0\7", 7),
            (b"\1b\0\0\1\0\0\0", True),
        ],
    )
    def test_a_variant_holds_what_some_option_takes(self, body: bytes, value: object) -> None:
        decoded = self.decode("v", body)
        assert (decoded[0].value if decoded else None) == value

    def test_either_endianness(self) -> None:
        assert self.decode("us", b"\0\0\0\7\0\0\0\1a\0", little_endian=False) == [7, "a"]
        assert self.decode("us", b"\7\0\0\0\1\0\0\0a\0") == [7, "a"]

    def test_the_cache_of_types_is_bounded(self) -> None:
        for number in range(2000):
            kinds = "".join("ybnqiuxtds"[int(digit)] for digit in str(number))
            self.decode(kinds, b"")
        assert bus_module._tree.cache_info().currsize <= 256
