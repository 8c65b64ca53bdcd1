# SPDX-License-Identifier: LGPL-2.1-or-later
"""GetManagedObjects of thousands: put together piece by piece, as whole as if it were marshalled at once."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jeepney import HeaderFields, Message

from mountnsd import frames, interface, names, standard
from mountnsd.bus import Bus, Call, Variant, marshal
from mountnsd.frames import Frame
from mountnsd.interface import NAMESPACE
from mountnsd.named import Namespace
from mountnsd.plan import Answer, Plan
from mountnsd.ready import Ready, element
from mountnsd.standard import Standard

OBJECTS = "a{oa{sa{sv}}}"
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)


class _Socket:
    """In place of the stream: keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def room(self) -> None:
        """There always is."""

    def send(self, data: bytes, _fds: list[int] | None = None, _instead: bytes = b"") -> None:
        """Keep it."""
        self.sent.append(data)


def sent(body: list[Any] | Ready) -> bytes:
    """The message in which an answer leaves."""

    async def story() -> bytes:
        connection = Bus()
        connection._stream = socket = _Socket()  # type: ignore[assignment]
        fields: dict[int, str | int] = {frames.SENDER: ":1.7"}
        await connection.reply(Call(Frame(frames.METHOD_CALL, 0, 5, True, fields, b"")), OBJECTS, body)
        (data,) = socket.sent
        return data

    return asyncio.run(story())


async def ran(plan: Plan) -> Answer:
    """What a plan comes to."""
    return await plan.run()


def namespace(number: int, **more: Any) -> Namespace:
    """One of many."""
    name = f"n-{number}"
    values: dict[str, Any] = {"description": "", "labels": {}} | more
    return Namespace(name, "/ns", number, number, 0, 1, "slave", generation=number, **values)


class TestMessage:
    @given(st.lists(st.tuples(TEXT, st.dictionaries(TEXT, TEXT, max_size=3)), max_size=5))
    def test_it_is_the_same_to_the_last_byte(self, given: list[tuple[str, dict[str, str]]]) -> None:
        """Whatever the lengths, and so the padding."""
        objects = {
            f"/object/_{number}": {
                NAMESPACE: {"Name": Variant("s", text), "Labels": Variant("a{ss}", labels)}
            }
            for number, (text, labels) in enumerate(given)
        }
        pieces = [element(marshal(OBJECTS, {path: values})) for path, values in objects.items()]
        assert sent(Ready(lambda: pieces)) == sent([objects])

    def test_another_library_reads_it(self) -> None:
        pieces = [element(marshal(OBJECTS, {f"/a{number}": {"i": {}}})) for number in range(100)]
        message = Message.from_buffer(sent(Ready(lambda: pieces)))
        assert message.header.fields[HeaderFields.signature] == OBJECTS
        assert message.body == ({f"/a{number}": {"i": {}} for number in range(100)},)


class TestGetManagedObjects:
    """Of a registry that changes meanwhile."""

    def plan(self, there: list[Namespace]) -> Plan:
        """What a call is to do, over what is there at that moment."""
        registry: Any = SimpleNamespace(all=lambda: list(there))
        entry = Standard(registry, interface.load_all()).entries()[
            interface.OBJECT_MANAGER, "GetManagedObjects"
        ]
        request: Any = SimpleNamespace(namespace=None)
        plan = entry.prepare(request)
        assert isinstance(plan, Plan)
        return plan

    def told(self, answer: Answer) -> dict[str, Any]:
        """Names and states that an answer has."""
        (objects,) = Message.from_buffer(sent(answer.body)).body
        assert all(path == names.to_path(values[NAMESPACE]["Name"][1]) for path, values in objects.items())
        return {values[NAMESPACE]["Name"][1]: values[NAMESPACE]["State"][1] for values in objects.values()}

    def test_others_have_their_turn(self) -> None:
        """Each in a fraction of the time that all take."""
        turns = 0

        async def story() -> None:
            nonlocal turns
            running = asyncio.ensure_future(plan.run())
            while not running.done():
                await asyncio.sleep(0)
                turns += 1

        plan = self.plan([namespace(number) for number in range(1000)])
        asyncio.run(story())
        assert turns >= 10

    def test_it_says_what_is_so_when_it_leaves(self) -> None:
        """What signals told of before it is in it, whatever was there when it was begun."""
        there = [namespace(number) for number in range(3)]
        answer = asyncio.run(ran(self.plan(there)))
        there[0] = namespace(7)
        del there[1]
        assert self.told(answer) == {"n-7": "active", "n-2": "active"}

    def test_another_namespace_of_the_same_name_is_told_of(self) -> None:
        there = [namespace(1, description="the first")]
        plan = self.plan(there)
        first = asyncio.run(ran(plan))
        assert b"the first" in sent(first.body)
        there[0] = namespace(1, description="the second")
        second = sent(asyncio.run(ran(plan)).body)
        assert b"the second" in second
        assert b"the first" not in second

    def test_what_was_marshalled_is_kept_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(standard, "_KEPT", 0.01)
        there = [namespace(number) for number in range(3)]
        registry: Any = SimpleNamespace(all=lambda: list(there))
        served = Standard(registry, interface.load_all())
        request: Any = SimpleNamespace(namespace=None)

        async def story() -> Answer:
            await ran(served._get_managed_objects(request))
            assert served._objects.keys() == {"n-0", "n-1", "n-2"}
            while served._objects:
                await asyncio.sleep(0.001)
            return await ran(served._get_managed_objects(request))

        answer = asyncio.run(asyncio.wait_for(story(), 10))
        assert self.told(answer).keys() == {"n-0", "n-1", "n-2"}

    def test_marshalling_leaves_no_garbage(self) -> None:
        """Ten thousand of them in one answer are many, before it is collected."""
        served = Standard(SimpleNamespace(), interface.load_all())  # type: ignore[arg-type]
        served._object(namespace(0))
        gc.collect()
        enabled = gc.isenabled()
        gc.disable()
        try:
            for number in range(1, 100):
                served._object(namespace(number))
            assert gc.collect() < 100
        finally:
            if enabled:
                gc.enable()
