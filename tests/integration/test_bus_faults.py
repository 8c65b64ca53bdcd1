# SPDX-License-Identifier: LGPL-2.1-or-later
"""What anybody on the bus can send, and what the bus itself can do: each fault is contained where it happens."""

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from jeepney import HeaderFields, Message, MessageType
from jeepney.low_level import Endianness, Header
from support import leaks
from support.buses import KINDS, PrivateBus, generous
from support.client import INTERACTIVE, MANAGER, NAME, NO_REPLY, PATH, PROPERTIES, Client, DBusError
from support.contract import (
    DENIED,
    FAILED,
    INVALID,
    LIMITS,
    OBJECT_MANAGER,
    PEER,
    UNKNOWN_METHOD,
    UNKNOWN_OBJECT,
    action,
    create,
    destroy,
    names,
    path_of,
    refused,
    run,
    settled_fds,
    wait_until,
)
from support.daemon import Daemon
from support.polkit import Polkit
from support.raw import Field, RawConnection, marshal
from support.raw import Frame as Answer

from mountnsd.stream import Stream

MANY = 64
EnterArguments = tuple[str, list[str], dict[int, int], dict[str, object]]


@pytest.fixture(params=KINDS)
def bus(request: pytest.FixtureRequest, directory: Path) -> Iterator[PrivateBus]:
    """A private bus that lets more descriptors through than one has by default."""
    place = directory / "bus"
    place.mkdir()
    with generous(request.param, place) as running:
        yield running


@pytest.fixture
def raw(bus: PrivateBus) -> Iterator[RawConnection]:
    """A connection of root that sends anything."""
    with RawConnection(bus.address) as connection:
        yield connection


@pytest.fixture
def null() -> Iterator[int]:
    """A descriptor to send."""
    descriptor = os.open("/dev/null", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def quickly(client: Client, seconds: float = 1.0) -> None:
    """Another caller is answered, and soon."""
    start = time.monotonic()
    client.call(PATH, PEER, "Ping", timeout=seconds)
    assert time.monotonic() - start < seconds


def answers(connection: RawConnection, calls: list[int]) -> list[Answer]:
    """The answers to some calls, which may come in any order, in the order of the calls."""
    found: dict[int, Answer] = {}
    while len(found) < len(calls):
        message = connection.receive()
        message.close_fds()
        if message.reply_to in calls:
            found[message.reply_to] = message
    return [found[call] for call in calls]


def error_names(connection: RawConnection, calls: list[int]) -> set[str]:
    """The names of the errors that some calls get, '' for an answer that is none."""
    return {answer.error_name for answer in answers(connection, calls)}


@pytest.mark.usefixtures("daemon")
class TestDescriptors:
    """A caller's descriptors are closed, whatever his call was."""

    CALLS = (
        ("a method that takes none", PATH, PEER, "Ping", 0, ""),
        ("a call without an answer", PATH, PEER, "Ping", NO_REPLY, ""),
        ("an unknown method", PATH, MANAGER, "Nothing", 0, UNKNOWN_METHOD),
        ("an unknown object", "/nowhere", MANAGER, "List", 0, UNKNOWN_OBJECT),
        ("an unknown method without an answer", PATH, MANAGER, "Nothing", NO_REPLY, ""),
        ("arguments that are missing", PATH, MANAGER, "Enter", 0, INVALID),
    )

    @pytest.mark.parametrize(
        ("path", "interface", "member", "flags", "error"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS]
    )
    def test_a_thousand_calls_with_many(
        self,
        daemon: Daemon,
        root: Client,
        raw: RawConnection,
        null: int,
        path: str,
        interface: str,
        member: str,
        flags: int,
        error: str,
    ) -> None:
        before = settled_fds(daemon, root)
        for _ in range(100):
            serials = [raw.call(path, interface, member, flags=flags, fds=[null] * MANY) for _ in range(10)]
            if not flags & NO_REPLY:
                assert error_names(raw, serials) == {error}
            raw.reply(raw.call(PATH, PEER, "Ping"))
        quickly(root)
        assert settled_fds(daemon, root) == before

    def test_as_many_as_a_message_can_carry(
        self, daemon: Daemon, root: Client, raw: RawConnection, null: int
    ) -> None:
        before = settled_fds(daemon, root)
        assert not raw.reply(raw.call(PATH, PEER, "Ping", fds=[null] * 253)).error_name
        assert settled_fds(daemon, root) == before

    def test_more_than_there_is_room_for(
        self, daemon: Daemon, root: Client, raw: RawConnection, null: int
    ) -> None:
        create(root, "kept")
        before = settled_fds(daemon, root)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (len(before) + 20, len(before) + 20))
        body = marshal("sasa{uh}a{sv}", "kept", ["/bin/true"], {}, {})
        for _ in range(20):
            call = raw.call(PATH, MANAGER, "Enter", "sasa{uh}a{sv}", body, fds=[null] * 200)
            assert raw.reply(call).error_name == LIMITS
        assert not raw.reply(raw.call(PATH, PEER, "Ping")).error_name
        assert settled_fds(daemon, root) == before

    def test_they_are_in_a_parcel_and_not_in_our_table_while_they_are_held(
        self, daemon: Daemon, polkit: Polkit, root: Client, user: Client, null: int
    ) -> None:
        create(root, "kept")
        before = settled_fds(daemon, root)
        polkit.hold()
        body: EnterArguments = ("kept", ["/bin/true"], {}, {})
        user.send(PATH, MANAGER, "Enter", "sasa{uh}a{sv}", *body, fds=[null] * 5)
        polkit.wait_for_questions()
        held = settled_fds(daemon, root)
        (parcel,) = (held[fd] for fd in held.keys() - before.keys())
        assert parcel.startswith("socket:")
        for fd in held:
            flags = Path(f"/proc/{daemon.pid}/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
            assert int(flags, 8) & os.O_CLOEXEC or fd <= 2, held[fd]
        polkit.release()
        wait_until(lambda: daemon.open_fds() == before)

    def test_a_process_that_is_entered_gets_none(
        self, polkit: Polkit, root: Client, user: Client, null: int
    ) -> None:
        create(root, "kept")
        polkit.hold()
        body: EnterArguments = ("kept", ["/bin/true"], {}, {})
        user.send(PATH, MANAGER, "Enter", "sasa{uh}a{sv}", *body, fds=[null] * 5)
        polkit.wait_for_questions()
        seen = run(root, "kept", "/bin/ls", "/proc/self/fd").split()
        assert seen == ["0", "1", "2", "3"]  # the last is what ls itself reads
        polkit.release()

    def test_those_that_wait_have_a_bound(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client, user: Client, null: int
    ) -> None:
        """They count against root, and keep its other services from passing any."""
        create(root, "kept")
        before = settled_fds(daemon, root)
        polkit.hold()
        body: EnterArguments = ("kept", ["/bin/true"], {}, {})

        def enter(client: Client, count: int) -> int:
            return client.send(PATH, MANAGER, "Enter", "sasa{uh}a{sv}", *body, fds=[null] * count)

        with Client(bus.address, 1) as other, Client(bus.address, 2) as third:
            calls = [enter(user, 100), enter(user, 100)]
            polkit.wait_for_questions(2)
            error = refused(user.reply, enter(user, 100))
            assert (error.name, "253" in error.message) == (LIMITS, True)
            calls += [enter(user, 53)]
            others = [enter(other, 200)]
            polkit.wait_for_questions(4)
            error = refused(third.reply, enter(third, 100))
            assert (error.name, "512" in error.message) == (LIMITS, True)
            root.reply(enter(root, 253))
            polkit.release()
            for client, call in [(user, call) for call in calls] + [(other, call) for call in others]:
                assert refused(client.reply, call).name == DENIED
            assert refused(third.reply, enter(third, 253)).name == DENIED
        wait_until(lambda: settled_fds(daemon, root) == before)

    def test_one_that_is_closed_costs_the_one_answer_it_was_in(self) -> None:
        """On a socket of our own: no caller can bring this about."""

        async def story() -> tuple[bytes, int]:
            ours, theirs = socket.socketpair()
            ended: list[str] = []
            stream = Stream(ours, lambda frame: frame.fds.close(), ended.append)
            stream.start()
            opened, closed = (os.open("/dev/null", os.O_RDONLY) for _ in range(2))
            os.close(closed)
            stream.send(b"first", [closed], b"instead,")
            stream.send(b"second", [opened], b"unused")
            await stream.drain(2)
            with theirs:
                data, fds, _, _ = socket.recv_fds(theirs, 100, 10)
            for fd in fds:
                os.close(fd)
            assert ended == []
            stream.close()
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                os.fstat(opened)
            return data, len(fds)

        assert asyncio.run(story()) == (b"instead,second", 1)


@pytest.mark.usefixtures("daemon")
class TestSizes:
    """What is too large is refused by its size, before it is looked at."""

    SIZE = 4 << 20

    @pytest.mark.parametrize(
        ("member", "signature", "body"),
        [
            ("Create", "sa{sv}", lambda size: marshal("sa{sv}", "x", {"description": ("s", "d" * size)})),
            ("Create", "sa{sv}", lambda size: marshal("sa{sv}", "x" * size, {})),
            (
                "Enter",
                "sasa{uh}a{sv}",
                lambda size: marshal("sasa{uh}a{sv}", "x", ["a"] * (size // 8), {}, {}),
            ),
        ],
        ids=["an option", "a name", "an argument list"],
    )
    def test_a_large_call(
        self,
        root: Client,
        raw: RawConnection,
        member: str,
        signature: str,
        body: Callable[[int], bytes],
    ) -> None:
        data = body(self.SIZE)
        start = time.monotonic()
        call = raw.call(PATH, MANAGER, member, signature, data)
        quickly(root)
        answer = raw.reply(call)
        assert answer.error_name == LIMITS
        assert "64" in answer.decode()[0] or "65536" in answer.decode()[0]
        assert time.monotonic() - start < 2
        assert names(root) == []

    def test_large_arrays_of_variants(self, daemon: Daemon, root: Client, raw: RawConnection) -> None:
        data = marshal("sa{sv}", "x", {"labels": ("av", [("u", 1)] * (1 << 17))})
        before = daemon.rss_kib()
        start = time.monotonic()
        calls = [raw.call(PATH, MANAGER, "Create", "sa{sv}", data) for _ in range(8)]
        quickly(root)
        assert error_names(raw, calls) == {LIMITS}
        assert time.monotonic() - start < 5
        assert daemon.rss_kib() - before < 8192

    def test_a_large_header(self, root: Client, raw: RawConnection) -> None:
        """Such a call has no answer, for who sent it is not known; the next one has."""
        raw.call(PATH, PEER, "Ping", extra=[Field(99, "s", "x" * 100_000)])
        with contextlib.suppress(ConnectionError):  # a bus may refuse it
            raw.reply(raw.call(PATH, PEER, "Ping"))
        quickly(root)
        assert names(root) == []

    def test_just_below_the_limit(self, root: Client) -> None:
        long = "d" * 60_000
        error = refused(root.manager, "Create", "sa{sv}", "x", {"description": ("s", long)})
        assert error.name == INVALID


@pytest.mark.usefixtures("daemon")
class TestSignatures:
    """Types that no method takes are refused, and forgotten."""

    def test_thousands_of_them(self, daemon: Daemon, root: Client, raw: RawConnection) -> None:
        def kind(number: int) -> str:
            return "(" + "".join("ybnqiuxtds"[int(digit)] for digit in f"{number:06}") + ")"

        def send(numbers: range) -> None:
            for number in numbers:
                value = tuple("" if token == "s" else 0 for token in kind(number)[1:-1])
                body = marshal("sa{sv}", "x", {"labels": (kind(number), value)})
                calls = [
                    raw.call(PATH, MANAGER, "Create", kind(number), marshal(kind(number), value)),
                    raw.call(PATH, MANAGER, "Create", "sa{sv}", body),
                ]
                assert error_names(raw, calls) == {INVALID}

        send(range(200))
        before = daemon.rss_kib()
        send(range(1000, 4000))
        assert daemon.rss_kib() - before < 8192
        quickly(root)

    def test_a_type_of_255_characters(self, root: Client) -> None:
        kind = "(" + "u" * 253 + ")"
        value = (0,) * 253
        error = refused(root.manager, "Create", "sa{sv}", "x", {"labels": (kind, value)})
        assert error.name == INVALID

    def test_variants_in_variants(self, root: Client, raw: RawConnection) -> None:
        inner = b"\1v\0" * 30 + b"\1y\0\0"
        body = marshal("s", "x")
        body += b"\0" * (-(len(body)) % 4)
        entry = marshal("s", "labels") + inner
        start = body + b"\0" * (-len(body) % 4)
        pad = -(len(start) + 4) % 8
        whole = start + struct.pack("<I", len(entry)) + b"\0" * pad + entry
        answer = raw.reply(raw.call(PATH, MANAGER, "Create", "sa{sv}", whole))
        assert answer.error_name == INVALID
        quickly(root)


@pytest.mark.usefixtures("daemon")
class TestHeaders:
    """Headers as other libraries make them, and may make them one day."""

    @pytest.mark.parametrize(
        "extra",
        [Field(11, "s", "new"), Field(42, "a{sv}", {"deep": ("v", ("u", 1))}), Field(255, "(yt)", (1, 2))],
        ids=lambda field: field.signature,
    )
    def test_an_unknown_field(self, root: Client, raw: RawConnection, extra: Field) -> None:
        for _ in range(3):
            assert not raw.reply(raw.call(PATH, MANAGER, "List", extra=[extra])).error_name
        quickly(root)

    def test_a_big_endian_caller(self, root: Client) -> None:
        fields = {
            HeaderFields.path: PATH,
            HeaderFields.destination: NAME,
            HeaderFields.interface: MANAGER,
            HeaderFields.member: "Create",
            HeaderFields.signature: "sa{sv}",
        }
        options = {"description": ("s", "größer"), "labels": ("a{ss}", {"a": "b"})}
        with_body = Message(
            Header(Endianness.big, MessageType.method_call, 0, 1, -1, -1, fields), ("big", options)
        )
        serial: int = next(root.connection.outgoing_serial)
        root.connection.sock.sendall(with_body.serialise(serial=serial))
        assert root.reply(serial) == (path_of("big"),)
        assert root.get(path_of("big"), "org.mountnsd1.Namespace", "Description") == "größer"

    def test_what_is_no_call_is_passed_over(self, root: Client, raw: RawConnection) -> None:
        for kind in (2, 3, 4, 77):
            extra = [Field(5, "u", 1), Field(4, "s", "a.b")]
            with contextlib.suppress(ConnectionError):
                raw.call(PATH, MANAGER, "List", extra=extra, overrides={"kind": kind})
        quickly(root)


@pytest.mark.usefixtures("daemon")
class TestBrokenBodies:
    """A body that its signature does not describe: a bus ends its sender's connection, or passes it to us as it is.

    What becomes of it with us is shown in the unit tests of the dispatch, which need no bus to pass it.
    """

    BODIES = (
        ("longer", "sa{sv}", marshal("sa{sv}", "x", {}) + b"more"),
        ("shorter", "sa{sv}", marshal("s", "x")),
        ("empty", "sa{sv}", b""),
        ("NUL in the name", "sa{sv}", b"\3\0\0\0a\0b\0" + b"\0" * 8),
        ("no NUL at the end", "sa{sv}", b"\1\0\0\0aa\0\0" + b"\0" * 8),
        ("no text", "sa{sv}", b"\1\0\0\0\xff\0\0\0" + b"\0" * 8),
        ("a length beyond the end", "sa{sv}", b"\xff\xff\xff\x7fa\0\0\0" + b"\0" * 8),
        ("an array beyond the end", "sa{sv}", b"\1\0\0\0a\0\0\0\xff\xff\xff\x03\0\0\0\0"),
        (
            "variants without end",
            "sa{sv}",
            marshal("s", "x")
            + b"\0\0"
            + struct.pack("<I", 60_000)
            + b"\0" * 4
            + marshal("s", "from")
            + b"\1v\0" * 20_000,
        ),
        ("a type that is none", "sa{sv}", b"\1\0\0\0x\0\0\0\x10\0\0\0\0\0\0\0\4\0\0\0from\0\1Z\0\0\0\0\0"),
        (
            "brackets without end",
            "sa{sv}",
            b"\1\0\0\0x\0\0\0\xff\0\0\0\0\0\0\0\4\0\0\0from\0\xc8" + b"(" * 200 + b"\0",
        ),
    )

    @pytest.mark.parametrize(("signature", "body"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES])
    def test_is_refused(
        self, daemon: Daemon, root: Client, raw: RawConnection, signature: str, body: bytes
    ) -> None:
        with contextlib.suppress(ConnectionError):
            assert raw.reply(raw.call(PATH, MANAGER, "Create", signature, body)).error_name == INVALID
        quickly(root)
        assert names(root) == []
        assert "Traceback" not in daemon.log()


@pytest.mark.usefixtures("daemon")
class TestSlowReaders:
    """Who does not read what he asked for holds nobody else up, and gets it when he does."""

    COUNT = 30

    def test_large_answers_wait(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client, uid: int
    ) -> None:
        polkit.allow(action("list"))
        labels = {f"{number:02}".ljust(64, "k"): "v" * 256 for number in range(32)}
        for number in range(3):
            create(root, f"large{number}", labels=("a{ss}", labels))
        before = daemon.rss_kib()
        with RawConnection(bus.address, uid) as raw:
            calls = [raw.call(PATH, OBJECT_MANAGER, "GetManagedObjects") for _ in range(self.COUNT)]
            polkit.wait_for_questions(self.COUNT)
            quickly(root)
            sizes = [len(answer.body) for answer in answers(raw, calls)]
        assert min(sizes) > 20_000
        assert daemon.rss_kib() - before < 16 * 1024
        quickly(root)

    def test_who_never_reads(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        labels = {f"{number:02}".ljust(64, "k"): "v" * 256 for number in range(32)}
        for number in range(3):
            create(root, f"large{number}", labels=("a{ss}", labels))
        before = settled_fds(daemon, root)
        with RawConnection(bus.address) as raw:
            for _ in range(1000):
                raw.call(PATH, OBJECT_MANAGER, "GetManagedObjects")
            quickly(root, 8)
        quickly(root, 8)
        assert settled_fds(daemon, root) == before


class TestCallersWhoLeave:
    """A caller who leaves leaves nothing behind."""

    def test_in_the_middle_of_a_call(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        create(root, "kept")
        before = settled_fds(daemon, root)
        for number in range(50):
            with RawConnection(bus.address) as raw:
                raw.call(PATH, MANAGER, "Open", "s", marshal("s", "kept"))
                if number % 2:
                    raw.call(PATH, MANAGER, "List")
        assert names(root) == ["kept"]
        wait_until(lambda: settled_fds(daemon, root) == before)
        assert "Traceback" not in daemon.log()

    def test_in_the_middle_of_a_question(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, root: Client, uid: int, null: int
    ) -> None:
        create(root, "kept")
        before = settled_fds(daemon, root)
        polkit.hold()
        with Client(bus.address, uid) as user:
            body: EnterArguments = ("kept", ["/bin/true"], {}, {})
            for _ in range(5):
                user.send(PATH, MANAGER, "Enter", "sasa{uh}a{sv}", *body, fds=[null] * 10, flags=INTERACTIVE)
            asked = polkit.wait_for_questions(5)
        assert set(polkit.wait_for_cancelled(5)) == {question.cancellation for question in asked}
        wait_until(lambda: settled_fds(daemon, root) == before)
        assert "Traceback" not in daemon.log()

    def test_creations_are_whole_or_not_at_all(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        for number in range(20):
            with RawConnection(bus.address) as raw:
                raw.call(PATH, MANAGER, "Create", "sa{sv}", marshal("sa{sv}", f"n{number}", {}))
        wait_until(lambda: len(names(root)) == len(daemon.pinned()))
        for name in names(root):
            destroy(root, name)
        assert daemon.pinned() == set()


@pytest.mark.usefixtures("daemon")
class TestErrors:
    """An error says what happened and what to do; never where in the code."""

    def test_no_error_shows_the_inside(self, root: Client) -> None:
        create(root, "kept")
        calls: list[Callable[[], object]] = [
            lambda: root.manager("Nothing"),
            lambda: root.manager("Create", "s", "x"),
            lambda: root.manager("Create", "sa{sv}", "../x", {}),
            lambda: root.manager("Open", "s", "none"),
            lambda: root.call("/nowhere", MANAGER, "List"),
            lambda: root.call(PATH, "a.b", "List"),
            lambda: root.get(PATH, MANAGER, "Nothing"),
            lambda: root.call(PATH, PROPERTIES, "Set", "ssv", MANAGER, "Count", ("u", 1)),
            lambda: root.manager("Enter", "sasa{uh}a{sv}", "kept", ["/none"], {}, {}),
            lambda: root.call(
                path_of("kept"), "org.mountnsd1.Namespace", "Mount", "ssss", "x", "/none", "tmpfs", ""
            ),
        ]
        for call in calls:
            refused(call)

    def test_what_stands_in_our_way_is_told_without_the_inside(self, daemon: Daemon, root: Client) -> None:
        meta = daemon.runtime / "meta"
        shutil.rmtree(meta)
        meta.touch()
        error = refused(create, root, "x")
        assert error.name == "org.mountnsd1.Error.MountFailed"
        assert names(root) == []
        assert daemon.pinned() == set()

    def test_a_call_that_is_open_when_we_stop_is_answered(
        self, daemon: Daemon, polkit: Polkit, user: Client
    ) -> None:
        polkit.hold()
        calls = [
            user.send(PATH, MANAGER, "Create", "sa{sv}", "x", {}, flags=flags) for flags in (0, INTERACTIVE)
        ]
        polkit.wait_for_questions(2)
        assert daemon.stop() == 0
        for call in calls:
            error = refused(user.reply, call)
            assert error.name == FAILED
            assert "stopping" in error.message


@pytest.mark.usefixtures("daemon")
class TestTheBusItself:
    """Without the bus there is nothing to serve: end, say why, let systemd start again."""

    def test_it_goes(self, bus: PrivateBus, daemon: Daemon) -> None:
        bus.stop()
        assert daemon.wait() != 0
        assert "connection to the bus has ended" in daemon.log()
        assert "Traceback" not in daemon.log()

    def test_it_goes_in_the_middle_of_a_question(
        self, bus: PrivateBus, daemon: Daemon, polkit: Polkit, user: Client
    ) -> None:
        polkit.hold()
        user.send(PATH, MANAGER, "Create", "sa{sv}", "x", {}, flags=INTERACTIVE)
        polkit.wait_for_questions()
        bus.stop()
        assert daemon.wait() != 0
        assert "Traceback" not in daemon.log()

    def test_namespaces_outlive_it(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        create(root, "kept")
        pinned = daemon.pinned()
        bus.stop()
        daemon.wait()
        bus.start()
        daemon.start()
        with Client(bus.address) as again:
            assert names(again) == ["kept"]
        assert daemon.pinned() == pinned

    def test_a_second_daemon_is_refused(self, bus: PrivateBus, directory: Path, root: Client) -> None:
        place = directory / "second"
        place.mkdir()
        second = Daemon(bus, place)
        try:
            with pytest.raises(RuntimeError, match="ended with status 1"):
                second.start()
            assert "Another mountnsd owns org.mountnsd1 already; stop it first." in second.log()
            assert "Traceback" not in second.log()
        finally:
            second.close()
        quickly(root)

    def test_its_name_is_free_at_once(self, daemon: Daemon, root: Client) -> None:
        assert daemon.stop() == 0
        assert not root.bus_call("NameHasOwner", "s", NAME)[0]
        daemon.start()


class FakeBus:
    """A socket that is no bus.  A context manager.

    Arguments: path: where; say: what it does with each connection.
    """

    kind = "fake"

    def __init__(self, path: Path, say: Callable[[socket.socket], None]) -> None:
        self.address = f"unix:path={path}"
        self._say = say
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(5)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self._say(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        self._thread.join(5)


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line


def hang_up(connection: socket.socket) -> None:
    """Close at once."""
    connection.close()


def hang_up_later(connection: socket.socket) -> None:
    """Close in the middle of the authentication."""
    _line(connection)
    connection.sendall(b"OK 0123")
    connection.close()


def reject(connection: socket.socket) -> None:
    """Know nobody."""
    _line(connection)
    connection.sendall(b"REJECTED EXTERNAL\r\n")


def no_descriptors(connection: socket.socket) -> None:
    """Pass no descriptors."""
    _line(connection)
    connection.sendall(b"OK 0123\r\n")
    _line(connection)
    connection.sendall(b"ERROR\r\n")


def _authenticate(connection: socket.socket) -> None:
    _line(connection)
    connection.sendall(b"OK 0123\r\n")
    _line(connection)
    connection.sendall(b"AGREE_UNIX_FD\r\n")
    _line(connection)


def silent(connection: socket.socket) -> None:
    """Say nothing."""


def hang_up_after(connection: socket.socket) -> None:
    """Authenticate and close."""
    _authenticate(connection)
    connection.close()


def speak_something_else(connection: socket.socket) -> None:
    """Authenticate and then be a web server."""
    _authenticate(connection)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class TestFakeBuses:
    """What answers at the bus's address need not be a bus."""

    def start(self, directory: Path, say: Callable[[socket.socket], None], seconds: float) -> str:
        """Start a daemon, which is to fail in time; returns its log."""
        with FakeBus(directory / "fake", say) as fake:
            daemon = Daemon(fake, directory)  # type: ignore[arg-type]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.monotonic()
            try:
                with pytest.raises(RuntimeError, match="ended with status 1"):
                    daemon.start(seconds + 5)
                assert time.monotonic() - start < seconds
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5, "it spins"
            finally:
                daemon.close()
            log = daemon.log()
        assert "Traceback" not in log, log
        [line] = [line for line in log.splitlines() if "ERROR" in line]
        assert "bus" in line
        return line

    @pytest.mark.parametrize(
        ("say", "words"),
        [
            (hang_up, "ended the authentication|reset|Broken pipe"),
            (hang_up_later, "ended the authentication"),
            (reject, "refuses to authenticate"),
            (no_descriptors, "does not pass file descriptors"),
            (hang_up_after, "closed the connection|reset|Broken pipe"),
            (speak_something_else, "does not speak D-Bus"),
        ],
    )
    def test_it_fails_at_once(
        self, directory: Path, say: Callable[[socket.socket], None], words: str
    ) -> None:
        line = self.start(directory, say, 10)
        assert any(word in line for word in words.split("|")), line

    @pytest.mark.parametrize("say", [_authenticate, silent], ids=["no Hello", "silent"])
    def test_it_waits_but_not_for_ever(self, directory: Path, say: Callable[[socket.socket], None]) -> None:
        self.start(directory, say, 35)

    def test_nobody_is_there(self, directory: Path) -> None:
        with FakeBus(directory / "fake", hang_up) as fake:
            fake.address = f"unix:path={directory}/none"
            daemon = Daemon(fake, directory)  # type: ignore[arg-type]
            with pytest.raises(RuntimeError, match="ended with status 1"):
                daemon.start()
            assert "No such file or directory" in daemon.log()
            assert "DBUS_SYSTEM_BUS_ADDRESS" in daemon.log()
            daemon.close()


def test_the_end_of_a_daemon_is_orderly(daemon: Daemon, root: Client) -> None:
    create(root, "kept")
    assert daemon.kill(signal.SIGINT) == 0
    assert "Traceback" not in daemon.log()
    with pytest.raises(DBusError):
        root.manager("List")
    assert len(leaks.mounts_below(daemon.pins)) == 3  # the bind, the holder on it, and the pin


class TestForeignDescriptors:
    """What a caller sends is his to be slow about: it is never ours to wait for."""

    def lingering(self) -> socket.socket:
        """A socket whose last close(2) takes five seconds: nobody reads what it has still to send."""
        listener = socket.create_server(("127.0.0.1", 0))
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        listener.close()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(b"x" * 65536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
        self.peer = peer  # open, and never read
        return sock

    @pytest.mark.usefixtures("daemon", "polkit")
    def test_one_that_is_slow_to_close_holds_up_nobody(self, user: Client, root: Client) -> None:
        for _ in range(3):
            sock = self.lingering()
            user.send(
                PATH, MANAGER, "Enter", "sasa{uh}a{sv}", "nope", ["true"], {0: sock}, {}, flags=NO_REPLY
            )
            sock.close()
        start = time.monotonic()
        for _ in range(20):
            root.call(PATH, PEER, "Ping")
        assert time.monotonic() - start < 2.5
        self.peer.close()

    def test_while_a_question_is_open_they_are_not_in_our_table(
        self, daemon: Daemon, polkit: Polkit, user: Client, root: Client
    ) -> None:
        root.call(PATH, MANAGER, "Create", "sa{sv}", "busy", {})
        before = daemon.open_fds()
        polkit.hold()
        reading, writing = os.pipe()
        try:
            call = user.send(
                PATH, MANAGER, "Enter", "sasa{uh}a{sv}", "busy", ["true"], {1: writing}, {}, flags=INTERACTIVE
            )
            polkit.wait_for_questions(1)
            root.call(PATH, MANAGER, "Enter", "sasa{uh}a{sv}", "busy", ["true"], {}, {})
            pipe = os.readlink(f"/proc/self/fd/{writing}")
            assert pipe not in daemon.open_fds().values()
        finally:
            os.close(reading)
            os.close(writing)
        polkit.release()
        assert refused(user.reply, call).name == DENIED
        deadline = time.monotonic() + 5
        while len(daemon.open_fds()) > len(before) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(daemon.open_fds()) == len(before)
