# SPDX-License-Identifier: LGPL-2.1-or-later
"""However a stream of messages is cut, whatever is in it: the same frames come out, and no descriptor is lost."""

import asyncio
import contextlib
import errno
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jeepney.low_level import Endianness, parse_signature

from mountnsd import disposal, frames
from mountnsd.descriptors import Descriptors
from mountnsd.frames import Frame, Framer, MalformedMessage, ProtocolError
from mountnsd.passing import unpack

LIMIT = frames.MAX_MESSAGE
ORDERS = {"l": Endianness.little, "B": Endianness.big}
BASIC = "ybnqiuxtdsogh"
RANGES = {"y": (0, 255), "n": (-(1 << 15), (1 << 15) - 1), "q": (0, 65535), "i": (-(1 << 31), (1 << 31) - 1)}
RANGES |= {"u": (0, (1 << 32) - 1), "x": (-(1 << 63), (1 << 63) - 1), "t": (0, (1 << 64) - 1)}
TEXT = st.text(max_size=12).map(lambda text: text.replace("\0", ""))


@dataclass
class Sent:
    """A message as its sender made it.

    Arguments: fields: code to signature and value; n_fds: how many descriptors go along.
    """

    fields: dict[int, tuple[str, Any]]
    body: bytes = b""
    order: str = "l"
    kind: int = 1
    flags: int = 0
    serial: int = 1
    n_fds: int = 0
    leads_to: list[tuple[int, int]] = field(default_factory=list)  # its descriptors, made when it is sent

    def header(self) -> bytes:
        """The header, padded."""
        items = [(code, value) for code, value in self.fields.items()]
        if self.n_fds:
            items.append((frames.UNIX_FDS, ("u", self.n_fds)))
        array = parse_signature(list("a(yv)")).serialise(items, 12, ORDERS[self.order])
        mark = "<" if self.order == "l" else ">"
        start = struct.pack(
            mark + "cBBBII", self.order.encode(), self.kind, self.flags, 1, len(self.body), self.serial
        )
        whole = start + bytes(array)
        return whole + b"\0" * (-len(whole) % 8)

    def wire(self) -> bytes:
        """The whole message."""
        return self.header() + self.body

    def known(self) -> dict[int, Any]:
        """The fields that the framer is to report."""
        found = {code: value for code, (_, value) in self.fields.items() if 1 <= code <= 8}
        return found | ({frames.UNIX_FDS: self.n_fds} if self.n_fds else {})


def open_fds() -> set[str]:
    """Our open descriptors, but for the one that looks."""
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def settled_fds() -> set[str]:
    """Those that are open once everything that came with messages is closed, which is done in threads."""
    deadline = time.monotonic() + 5
    while (disposal._waiting or disposal._threads) and time.monotonic() < deadline:
        time.sleep(0.0002)
    return open_fds()


@pytest.fixture(autouse=True)
def _no_descriptor_is_lost() -> Iterator[None]:
    before = settled_fds()
    yield
    assert settled_fds() == before


def identity(fd: int) -> tuple[int, int]:
    """What a descriptor leads to."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def make_fds(count: int) -> list[int]:
    """So many descriptors that can be told apart."""
    return [os.memfd_create(f"frame-{number}") for number in range(count)]


def reads(messages: Sequence[Sent], cuts: set[int]) -> Iterator[tuple[bytes, list[int]]]:
    """What recvmsg(2) gives of the messages: cut anywhere, and behind each message that has descriptors.

    Descriptors come with the read that takes their message's first byte.  Makes the descriptors.
    """
    stream = b""
    starts: dict[int, Sent] = {}
    for message in messages:
        if message.n_fds:
            starts[len(stream)] = message
        stream += message.wire()
        if message.n_fds:
            cuts.add(len(stream))
    places = sorted({0, len(stream)} | {cut for cut in cuts if 0 < cut < len(stream)})
    for start, end in pairwise(places):
        fds: list[int] = []
        for offset, message in starts.items():
            if start <= offset < end:
                made = make_fds(message.n_fds)
                message.leads_to = [identity(fd) for fd in made]
                fds += made
        yield stream[start:end], fds


def taken_out(frame: Frame) -> list[tuple[int, int]]:
    """What the descriptors of a frame lead to; they are closed."""
    found = []
    if frame.fds.parcel is not None:
        for fd in unpack(frame.fds.parcel, len(frame.fds)):
            found.append(identity(fd))
            os.close(fd)
    frame.fds.close()
    return found


def feed(messages: Sequence[Sent], cuts: set[int]) -> list[tuple[Frame, list[tuple[int, int]]]]:
    """The frames, and what their descriptors lead to; these are closed."""
    framer = Framer()
    found = []
    for data, fds in reads(messages, cuts):
        for frame in framer.feed(data, fds):
            found.append((frame, taken_out(frame)))
    framer.close()
    return found


def values(signature: str) -> st.SearchStrategy[Any]:
    """Values of one complete type, as jeepney takes them."""
    token = signature[0]
    if token in RANGES:
        return st.integers(*RANGES[token])
    if token == "a" and signature[1] == "{":
        return st.dictionaries(values(signature[2]), values(signature[3:-1]), max_size=3)
    if token == "a":
        return st.lists(values(signature[1:]), max_size=3)
    if token == "(":
        return st.tuples(*(values(part) for part in split(signature[1:-1])))
    simple: dict[str, st.SearchStrategy[Any]] = {
        "b": st.booleans(),
        "d": st.floats(allow_nan=False),
        "s": TEXT,
        "o": st.sampled_from(["/", "/a/b"]),
        "g": st.sampled_from(["", "s", "a{sv}"]),
        "v": st.sampled_from([("u", 7), ("as", ["a", "b"]), ("v", ("v", ("(yt)", (1, 2))))]),
    }
    return simple[token]


def split(signature: str) -> list[str]:
    """The complete types in a signature."""
    found = []
    position = 0
    while position < len(signature):
        end = frames.type_end(signature, position)
        found.append(signature[position:end])
        position = end
    return found


# `h` is a number on the wire; jeepney would want a descriptor for it.
SIGNATURES = st.recursive(
    st.sampled_from([*BASIC.replace("h", ""), "v"]),
    lambda inner: st.one_of(
        inner.map(lambda kind: "a" + kind),
        st.lists(inner, min_size=1, max_size=3).map(lambda kinds: f"({''.join(kinds)})"),
        st.tuples(st.sampled_from("ysu"), inner).map(lambda pair: f"a{{{pair[0]}{pair[1]}}}"),
    ),
    max_leaves=5,
)
UNKNOWN = st.tuples(
    st.integers(10, 255),
    SIGNATURES.flatmap(lambda signature: st.tuples(st.just(signature), values(signature))),
)
KNOWN = st.fixed_dictionaries(
    {frames.PATH: st.tuples(st.just("o"), st.sampled_from(["/", "/org/mountnsd1"]))},
    optional={
        frames.INTERFACE: st.tuples(st.just("s"), TEXT),
        frames.MEMBER: st.tuples(st.just("s"), TEXT),
        frames.SENDER: st.tuples(st.just("s"), TEXT),
        frames.REPLY_SERIAL: st.tuples(st.just("u"), values("u")),
        frames.SIGNATURE: st.tuples(st.just("g"), st.sampled_from(["s", "a{sv}"])),
    },
)


SMALL = st.binary(max_size=60)
LARGE = st.sampled_from([LIMIT - 4096, LIMIT, 3 * LIMIT]).map(lambda size: b"b" * size)


@st.composite
def messages(draw: st.DrawFn, bodies: st.SearchStrategy[bytes] = SMALL) -> Sent:
    """A message of either endianness, with known and unknown fields in any order, and descriptors."""
    fields = list((draw(KNOWN) | dict(draw(st.lists(UNKNOWN, max_size=2)))).items())
    body = draw(bodies)
    return Sent(
        fields=dict(draw(st.permutations(fields))),
        body=body,
        order=draw(st.sampled_from("lB")),
        kind=draw(st.integers(1, 4)),
        flags=draw(st.integers(0, 7)),
        serial=draw(st.integers(1, 0xFFFFFFFF)),
        n_fds=draw(st.sampled_from([0, 0, 1, 3])),
    )


def call(member: str = "Ping", **more: Any) -> Sent:
    """An ordinary call."""
    return Sent({frames.PATH: ("o", "/"), frames.MEMBER: ("s", member)}, **more)


class TestAnyCut:
    """Where the reads end says nothing about where the messages do."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(messages(SMALL | LARGE), min_size=1, max_size=5), st.data())
    def test_the_same_frames(self, sent: list[Sent], data: st.DataObject) -> None:
        length = sum(len(message.wire()) for message in sent)
        cuts = set(data.draw(st.lists(st.integers(1, length), max_size=8)))
        found = feed(sent, cuts)
        assert len(found) == len(sent)
        for message, (frame, fds) in zip(sent, found, strict=True):
            assert (frame.kind, frame.flags, frame.serial) == (message.kind, message.flags, message.serial)
            assert frame.little_endian == (message.order == "l")
            assert frame.fields == message.known()
            assert frame.oversized == (len(message.wire()) > LIMIT)
            assert frame.body == (b"" if frame.oversized else message.body)
            assert len(fds) == message.n_fds

    def test_byte_by_byte(self) -> None:
        sent = [call("One", n_fds=2), call("Two", body=b"x" * 9), call("Three", n_fds=1, order="B")]
        length = sum(len(message.wire()) for message in sent)
        found = feed(sent, set(range(length)))
        assert [frame.text(frames.MEMBER) for frame, _ in found] == ["One", "Two", "Three"]

    @pytest.mark.parametrize("cuts", [set(), {5}, {30, 31, 90}])
    def test_descriptors_go_with_their_message(self, cuts: set[int]) -> None:
        sent = [call("A"), call("B", n_fds=2), call("C"), call("D", n_fds=1), call("E", n_fds=3), call("F")]
        framer = Framer()
        for data, fds in reads(sent, cuts):
            for frame in framer.feed(data, fds):
                message = sent["ABCDEF".index(frame.text(frames.MEMBER))]
                assert taken_out(frame) == message.leads_to


class TestTooLarge:
    """What is too large is measured, and thrown away without having been kept."""

    def test_a_body_is_skipped_and_its_header_known(self) -> None:
        large = call("Large", body=b"x" * 4_000_000, serial=9, n_fds=2)
        framer = Framer()
        found = []
        most = 0
        for data, fds in reads([large, call("Next")], set(range(0, 4_100_000, LIMIT))):
            for frame in framer.feed(data, fds):
                found.append((frame.text(frames.MEMBER), frame.oversized, frame.body, len(frame.fds)))
                frame.fds.close()
            most = max(most, len(framer._buffer))
        assert found == [("Large", True, b"", 2), ("Next", False, b"", 0)]
        assert most <= LIMIT

    @pytest.mark.parametrize("with_fds", [0, 3])
    def test_a_header_is_skipped_and_its_descriptors_closed(self, with_fds: int) -> None:
        large = call("Large", n_fds=with_fds, body=b"body")
        large.fields[77] = ("s", "x" * (LIMIT + 1))
        found = feed([call("Before"), large, call("After", n_fds=1)], set(range(0, 200_000, LIMIT)))
        assert [(frame.text(frames.MEMBER), len(fds)) for frame, fds in found] == [
            ("Before", 0),
            ("After", 1),
        ]

    def test_just_what_is_allowed(self) -> None:
        exact = call("Exact")
        exact.body = b"x" * (LIMIT - len(exact.header()))
        more = call("Exact", body=exact.body + b"x")
        [(first, _), (second, _)] = feed([exact, more], set())
        assert (len(first.body), first.oversized) == (len(exact.body), False)
        assert (len(second.body), second.oversized) == (0, True)

    @pytest.mark.parametrize("order", ["l", "B"])
    def test_more_than_the_specification_allows(self, order: str) -> None:
        mark = "<" if order == "l" else ">"
        start = struct.pack(mark + "cBBBIII", order.encode(), 1, 0, 1, (1 << 27) + 1, 1, 0)
        with pytest.raises(ProtocolError, match="longer"):
            list(Framer().feed(start, []))


class TestUnknownFields:
    """A header may have fields that nobody knows yet."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(UNKNOWN, min_size=1, max_size=4, unique_by=lambda item: item[0]), st.sampled_from("lB"))
    def test_of_any_type(self, unknown: list[tuple[int, tuple[str, Any]]], order: str) -> None:
        first = Sent({**dict(unknown), **call().fields}, order=order)
        last = Sent({**call().fields, **dict(unknown)}, order=order)
        for frame, _ in feed([first, last], set()):
            assert frame.fields == {frames.PATH: "/", frames.MEMBER: "Ping"}

    def test_a_descriptor_as_a_field(self) -> None:
        fields = b"\x63\x01h\0\0\0\0\0" + b"\x03\x01s\0\x04\0\0\0Ping\0"
        assert frames.parse_fields(fields, "<") == {frames.MEMBER: "Ping"}

    def test_nested_without_end(self) -> None:
        deep = b"\x63" + b"\x01v\0" * 20_000
        with pytest.raises(MalformedMessage):
            frames.parse_fields(deep, "<")


MALFORMED = {
    "a known field of another type": {frames.MEMBER: ("u", 1)},
    "a number as text": {frames.REPLY_SERIAL: ("s", "1")},
}


class TestMalformed:
    """One bad header costs one message, and what is no D-Bus costs the connection."""

    @pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
    @pytest.mark.parametrize("with_fds", [0, 2])
    @pytest.mark.parametrize("cuts", [set(), set(range(0, 2000, 7))], ids=["at once", "in pieces"])
    def test_the_next_message_is_read(
        self, fields: dict[int, tuple[str, Any]], with_fds: int, cuts: set[int]
    ) -> None:
        bad = Sent(fields, n_fds=with_fds)
        found = feed([call("Before", n_fds=1), bad, call("After", n_fds=1), call("Last", n_fds=2)], cuts)
        seen = [(frame.text(frames.MEMBER), len(fds)) for frame, fds in found]
        assert seen == [("Before", 1), ("After", 1), ("Last", 2)]

    @pytest.mark.parametrize("with_fds", [0, 2])
    def test_a_serial_of_zero_is_no_message(self, with_fds: int) -> None:
        found = feed([Sent(call().fields, serial=0, n_fds=with_fds), call("After", n_fds=1)], set())
        assert [(frame.text(frames.MEMBER), len(fds)) for frame, fds in found] == [("After", 1)]

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=6))
    def test_garbage(self, chunks: list[bytes]) -> None:
        self.survive(lambda framer: [list(framer.feed(chunk, [])) for chunk in chunks])

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(messages(), min_size=1, max_size=3),
        st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6),
    )
    def test_bytes_changed_on_the_way(self, sent: list[Sent], changes: list[tuple[int, int]]) -> None:
        def run(framer: Framer) -> None:
            for data, fds in reads(sent, set()):
                changed = bytearray(data)
                for place, value in changes:
                    changed[place % len(changed)] = value
                for frame in framer.feed(bytes(changed), fds):
                    frame.fds.close()

        self.survive(run)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=300), st.sampled_from("<>"))
    def test_header_fields_of_any_bytes(self, data: bytes, order: str) -> None:
        with contextlib.suppress(MalformedMessage):
            frames.parse_fields(data, order)

    @staticmethod
    def survive(run: Callable[[Framer], object]) -> None:
        """Nothing but ProtocolError, and nothing stays open."""
        before = settled_fds()
        framer = Framer()
        with contextlib.suppress(ProtocolError):
            run(framer)
        framer.close()
        assert settled_fds() == before

    @pytest.mark.parametrize(
        "start", [b"x" + b"\0" * 15, b"l\1\0\2" + b"\0" * 12, b"\0" * 16, b"GET / HTTP/1.1\r\n"]
    )
    def test_what_is_no_dbus(self, start: bytes) -> None:
        with pytest.raises(ProtocolError, match="D-Bus"):
            list(Framer().feed(start, []))


class TestDescriptors:
    """Descriptors that do not fit what was announced are closed, and those of no message are, too."""

    @pytest.mark.parametrize(("announced", "come"), [(1, 0), (1, 2), (2, 1)])
    def test_another_number_than_announced(self, announced: int, come: int) -> None:
        framer = Framer()
        with pytest.raises(ProtocolError, match="announced"):
            list(framer.feed(call(n_fds=announced).wire(), make_fds(come)))
        framer.close()

    def test_some_were_lost_on_the_way(self) -> None:
        [frame] = Framer().feed(call(n_fds=5).wire(), make_fds(2), truncated=True)
        assert frame.fds.truncated
        assert len(frame.fds) == 2
        frame.fds.close()

    def test_a_message_that_never_became_whole(self) -> None:
        framer = Framer()
        assert list(framer.feed(call(n_fds=2, body=b"x" * 50).wire()[:40], make_fds(2))) == []
        framer.close()

    def test_they_are_in_no_table_until_they_are_taken_out(self) -> None:
        before = open_fds()
        made = make_fds(3)
        fds = Descriptors(made)
        assert asyncio.run(disposal.begun(5))
        end = time.monotonic() + 5
        while len(open_fds() - before) > 1 and time.monotonic() < end:
            time.sleep(0.001)  # a thread has taken the last one, and is about to close it
        assert len(open_fds() - before) == 1  # the parcel
        fds.close()
        fds.close()
        assert len(fds) == 0

    def test_one_that_cannot_be_sent_on_counts_as_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ETOOMANYREFS, "")

        monkeypatch.setattr("mountnsd.descriptors._pack", refuse)
        fds = Descriptors(make_fds(2))
        assert fds.truncated
        assert fds.parcel is None
