# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storms: what one user can throw at the daemon, as fast as he can, until he is stopped.

Each is the work of a `stormer.Stormer`, and returns how many calls it sent.  One that keeps pace has at most 128
calls on their way, as many as dbus-daemon lets one connection wait for, and 1 MiB and 4096 descriptors: the order
in which a bus hands over what lies in its queue is out of the daemon's hands.
"""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, cycle

from .client import INTERACTIVE, MANAGER, NO_REPLY, PATH
from .contract import OBJECT_MANAGER, PEER
from .raw import RawConnection, call_fields, frame, marshal
from .stormer import Orders

KEPT = "kept"
CONNECTIONS = 256
ENTER = "sasa{uh}a{sv}"
_CALLS, _BYTES, _FDS = 128, 1 << 20, 4096  # on their way at once
_SERIAL = 8  # where it stands in a header
# What a log, a terminal or a journal would take for something else.
FORGERIES = (
    "x\nERROR: forged",
    "x\r\nMESSAGE=forged\nPRIORITY=0\n_UID=0",
    "\x1b]0;forged\x07\x1b[2J",
    "x\u2028ERROR: forged\u2029\x85\x9b2J",
    "\u202eforged",
    "%s%n%(forged)s{forged}",
)
Storm = Callable[[Orders], int]


@cache
def _null() -> int:
    return os.open("/dev/null", os.O_RDONLY)


@dataclass(frozen=True)
class Shot:
    """A call, but for its serial; and how many descriptors go along."""

    data: bytes
    fds: int = 0


def shot(
    interface: str, member: str, signature: str = "", *values: object, flags: int = 0, fds: int = 0
) -> Shot:
    """A call to the manager's object."""
    fields = call_fields(PATH, interface, member, signature, n_fds=fds)
    return Shot(frame(fields, marshal(signature, *values) if signature else b"", flags=flags), fds)


def enter(argv: Sequence[str], *, name: str = KEPT, fds: int = 0, flags: int = 0, **options: object) -> Shot:
    """A call of Enter."""
    return shot(MANAGER, "Enter", ENTER, name, list(argv), {}, options, flags=flags, fds=fds)


def create(name: str, **options: object) -> Shot:
    """A call of Create."""
    return shot(MANAGER, "Create", "sa{sv}", name, options)


class _Line:
    """A connection that shoots, and reads what comes without looking at it; anew when it is hung up on."""

    def __init__(self, orders: Orders, *, reads: bool = True) -> None:
        self._orders = orders
        self._reads = reads
        self._serials = count(10)
        self._raw: RawConnection | None = None

    def fire(self, shots: Sequence[Shot]) -> int:
        """Send them; returns how many were sent before the bus hung up or took no more."""
        sent = 0
        try:
            if self._raw is None:
                self._raw = self._orders.connect()
            self._raw.sock.settimeout(0.5)
            for one in shots:
                self._send(self._raw.sock, one)
                sent += 1
            if self._reads:
                self._read(self._raw.sock)
        except TimeoutError:
            if self._reads and self._raw is not None:
                with contextlib.suppress(OSError):
                    self._read(self._raw.sock)
        except OSError:
            self.close()
        return sent

    def _send(self, sock: socket.socket, one: Shot) -> None:
        data = bytearray(one.data)
        struct.pack_into("<I", data, _SERIAL, next(self._serials))
        sent = socket.send_fds(sock, [data], [_null()] * one.fds) if one.fds else 0
        while sent < len(data):
            sent += sock.send(data[sent:])

    def _read(self, sock: socket.socket) -> None:
        while select.select([sock], [], [], 0)[0]:
            if not sock.recv(1 << 18):
                raise ConnectionError("the bus hung up")

    def close(self) -> None:
        """Hang up."""
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()


class _Pace:
    """Waits until the daemon has seen what was sent before."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._raw = orders.connect()

    def keep(self) -> None:
        """A round trip to the daemon; a refusal is an answer, too."""
        with contextlib.suppress(TimeoutError):
            self._raw.reply(self._raw.call(PATH, PEER, "Ping"), 2)


def _volleys(shots: Sequence[Shot]) -> list[list[Shot]]:
    """All of them, cut into what may be on its way at once."""
    repeated = [*shots] * max(_CALLS // len(shots), 1)
    volleys: list[list[Shot]] = [[]]
    size = fds = 0
    for one in repeated:
        size, fds = size + len(one.data), fds + one.fds
        if volleys[-1] and (len(volleys[-1]) == _CALLS or size > _BYTES or fds > _FDS):
            volleys.append([])
            size, fds = len(one.data), one.fds
        volleys[-1].append(one)
    return volleys


def flood(shots: Sequence[Shot], *, reads: bool = True, paced: bool = True) -> Storm:
    """Send these over and over on one connection.

    Arguments: reads: whether to take the answers; paced: whether to keep pace.
    """

    def storm(orders: Orders) -> int:
        line, pace, sent = _Line(orders, reads=reads), _Pace(orders), 0
        rounds = cycle(_volleys(shots))
        while orders.go_on():
            sent += line.fire(next(rounds))
            if paced:
                pace.keep()
        return sent

    return storm


def many_connections(shots: Sequence[Shot]) -> Storm:
    """Send these over and over on as many connections as a bus gives to one user."""

    def storm(orders: Orders) -> int:
        lines, pace, sent = [_Line(orders) for _ in range(CONNECTIONS - 4)], _Pace(orders), 0
        while orders.go_on():
            for place in range(0, len(lines), _CALLS):
                for line in lines[place : place + _CALLS]:
                    sent += line.fire(shots)
                pace.keep()
        return sent

    return storm


def coming_and_going(shots: Sequence[Shot]) -> Storm:
    """Connect, send these, and leave without having read anything; over and over."""

    def storm(orders: Orders) -> int:
        pace, sent = _Pace(orders), 0
        while orders.go_on():
            for _ in range(_CALLS // len(shots)):
                line = _Line(orders, reads=False)
                sent += line.fire(shots)
                line.close()
            pace.keep()
        return sent

    return storm


def descriptors() -> list[Shot]:
    """As many with each call as fit: of a namespace that is not there, of one that is, and mapped to nothing."""
    return [
        enter(["/bin/true"], name="none", fds=253),
        enter(["/bin/true"], fds=253),
        shot(MANAGER, "Enter", ENTER, KEPT, ["/bin/true"], {5000: 0}, {}, fds=253),
        enter(["/bin/true"], fds=253, flags=NO_REPLY),
    ]


def bodies() -> list[Shot]:
    """What costs the most to read: large, of many small parts, deeply nested."""
    nested: object = ("u", 1)
    for _ in range(30):
        nested = ("v", nested)
    deep = "a" * 16 + "u"
    return [
        create("x", description=("s", "d" * 60_000)),
        create("x", **{f"k{number}": ("u", number) for number in range(2500)}),
        create("x", labels=("a{ss}", {f"k{number}": "" for number in range(3000)})),
        create("x", labels=("v", nested)),
        create("x", labels=(deep, [])),
        enter([""] * 7500),
        shot(MANAGER, "Enter", ENTER, KEPT, ["a"], dict.fromkeys(range(8000), 0), {}),
    ]


def huge() -> list[Shot]:
    """What is larger than a call may be."""
    return [create("x", description=("s", "d" * (size << 10))) for size in (64, 65, 256, 1024, 4096)]


def questions() -> list[Shot]:
    """Calls that polkit has to be asked for, and that wait for a person."""
    return [
        create("asked", description=("s", "may I")),
        enter(["/bin/true"], flags=INTERACTIVE),
        shot(MANAGER, "Destroy", "sa{sv}", KEPT, {}, flags=INTERACTIVE),
        shot(MANAGER, "Open", "s", KEPT, flags=INTERACTIVE),
    ]


def readings() -> list[Shot]:
    """What anybody may ask for."""
    return [shot(MANAGER, "List"), shot(OBJECT_MANAGER, "GetManagedObjects"), shot(MANAGER, "List")]


def silent() -> list[Shot]:
    """What wants no answer, so that no bus counts it."""
    return [shot(MANAGER, "List", flags=NO_REPLY), shot(PEER, "Ping", flags=NO_REPLY)]


def bombs() -> list[Shot]:
    """Names and labels that are too many, too long, or made to be taken for something else."""
    labels = {f"{number:02}".ljust(64, "k"): "v" * 256 for number in range(32)}
    shots = [create(name) for name in ("../x", "a" * 65, "", ".", "-x", "a..b", *FORGERIES)]
    shots += [create("x", description=("s", text)) for text in FORGERIES]
    shots += [create("x", labels=("a{ss}", {text: text})) for text in FORGERIES]
    shots += [create("x", **{text: ("s", text)}) for text in FORGERIES]
    shots += [create("x", labels=("a{ss}", {f"k{number}": "v" for number in range(1000)}))]
    shots += [
        create(f"bomb{number}", description=("s", "d" * 256), labels=("a{ss}", labels))
        for number in range(300)
    ]
    return shots


def programs() -> Iterator[Shot]:
    """Arguments and environment as large as they may be, and made to be taken for something else."""
    yield enter(["/bin/true", "a" * 60_000])
    yield enter(["/bin/true", *["a"] * 6000])
    yield enter(["/bin/true"], env=("a{ss}", {"KEY": "v" * 60_000}))
    yield enter(["/bin/true"], env=("a{ss}", {f"K{number}": "v" for number in range(2400)}))
    for text in FORGERIES:
        yield enter(["/bin/" + text])
        yield enter(["/bin/echo", text])
        yield enter(["/bin/echo", "-e", text.encode("unicode_escape").decode()])
        yield enter(["/bin/true"], env=("a{ss}", {text: text}))
        yield enter(["/bin/true"], cwd=("s", "/" + text))
        yield enter(["/bin/true"], user=("s", text))
