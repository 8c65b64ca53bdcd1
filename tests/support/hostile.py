# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile frames: every method of the XML, with every part of its message changed in every way.

The frames come in rounds.  In each round every method is combined with every change once, in an order and with
details that the seed decides.  A change that leaves the stream unreadable is `fatal`: a bus never passes it on.
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jeepney.low_level import Endianness, parse_signature

from .client import NAME, NAMESPACE, PATH
from .contract import Method, methods, path_of
from .raw import DESTINATION, ERROR_NAME, INTERFACE, MEMBER, REPLY_SERIAL, SENDER, SIGNATURE, UNIX_FDS
from .raw import PATH as PATH_FIELD
from .storms import FORGERIES, KEPT

FIELDS = {
    PATH_FIELD: "o", INTERFACE: "s", MEMBER: "s", ERROR_NAME: "s", REPLY_SERIAL: "u",
    DESTINATION: "s", SENDER: "s", SIGNATURE: "g", UNIX_FDS: "u",
}  # fmt: skip
CHANGES_OF_FIELDS = ("absent", "doubled", "type", "value", "garbled")
_ALIGNMENT = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}
_TYPES = ("y", "b", "n", "q", "i", "u", "x", "t", "d", "s", "o", "g", "v", "as", "(us)", "a{sv}", "ay")
_TEXTS = ("", "/", ".", "a", "x" * 300, "/a//b", "/org/mountnsd1/namespace/_", "a.b", ":1.1", "é", *FORGERIES)
_SIGNATURES = ("", "s", "sa{sv}", "a" * 32 + "s", "(" * 33, "v" * 255, "a{vs}", "()", "Z", "h", "a{uh}")


@dataclass(slots=True)
class Message:
    """A message, as it is to be marshalled.

    Attributes: fields: code, signature and value or bytes, in order; fds: how many descriptors go along; claimed:
        what the header says of fields and body in place of the truth.
    """

    fields: list[tuple[int, str, object]]
    body: bytes = b""
    kind: int = 1
    flags: int = 0
    serial: int = 0
    version: int = 1
    mark: bytes = b"l"
    order: str = "<"
    fds: int = 0
    claimed_fields: int | None = None
    claimed_body: int | None = None

    def set(self, code: int, signature: str, value: object) -> None:
        """Set a field in its place, or add it."""
        self.drop(code)
        self.fields.append((code, signature, value))

    def drop(self, code: int) -> None:
        """Leave a field out."""
        self.fields = [item for item in self.fields if item[0] != code]

    def wire(self) -> bytes:
        """The bytes."""
        array = bytearray()
        for code, signature, value in self.fields:
            array += bytes(-len(array) % 8)
            name = signature.encode("latin-1", "replace")[:255]
            array += bytes((code, len(name))) + name + b"\0"
            array += bytes(-len(array) % _ALIGNMENT.get(signature[:1], 4))
            array += value if isinstance(value, bytes) else self._value(signature, value)
        fields = len(array) if self.claimed_fields is None else self.claimed_fields
        body = len(self.body) if self.claimed_body is None else self.claimed_body
        start = self.mark + struct.pack("<BBB", self.kind, self.flags, self.version)
        start += struct.pack(self.order + "III", body, self.serial, fields)
        whole = start + array
        return bytes(whole + bytes(-len(whole) % 8) + self.body)

    def _value(self, signature: str, value: object) -> bytes:
        if signature in "so":
            text = str(value).encode("utf-8", "surrogateescape")
            return struct.pack(self.order + "I", len(text)) + text + b"\0"
        if signature == "g":
            text = str(value).encode("latin-1", "replace")[:255]
            return bytes((len(text),)) + text + b"\0"
        assert isinstance(value, int)
        return struct.pack(self.order + "I", value)


@dataclass(frozen=True, slots=True)
class Hostile:
    """A frame.

    Attributes: data; fds: how many descriptors go along; method: of which it is made; change: what is changed in it;
        fatal: a stream cannot be read on behind it.
    """

    data: bytes
    fds: int
    method: tuple[str, str]
    change: str
    fatal: bool


def _nothing(_message: Message) -> None:
    """Change nothing."""


@dataclass(slots=True)
class Frames:
    """The generator.

    Arguments: seed; sender: what the bus would say who sent it, empty where a bus is to say it.
    """

    seed: int
    sender: str = ""
    serial: int = 100
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def methods(self) -> list[Method]:
        """Every method, and one that there is not."""
        return [*methods(), Method(NAMESPACE, "Nothing", "s", "")]

    def changes(self) -> dict[str, Callable[[Message], None]]:
        """All changes that leave a stream readable, by name."""
        found: dict[str, Callable[[Message], None]] = {"nothing": _nothing}
        for code in FIELDS:
            for change in CHANGES_OF_FIELDS:
                found[f"field {code} {change}"] = self._field_change(code, change)
        found |= {f"flag {bit}": self._flag(bit) for bit in range(8)}
        found |= {f"kind {kind}": self._kind(kind) for kind in (0, 2, 3, 4, 5, 255)}
        for change in (
            "empty",
            "truncated",
            "longer",
            "mutated",
            "random",
            "length",
            "large",
            "nested",
            "NUL",
        ):
            found[f"body {change}"] = self._body_change(change)
        found |= {
            "unknown field": self._unknown,
            "unknown field nested": self._unknown_nested,
            "field 0": self._field_0,
            "fields shuffled": lambda message: self._random.shuffle(message.fields),
            "fields many": self._many_fields,
            "serial": self._serial,
            "big endian": self._big_endian,
        }
        return found

    def fatal_changes(self) -> dict[str, Callable[[Message], None]]:
        """All changes after which a stream cannot be read on, by name."""

        def claim(**values: int) -> Callable[[Message], None]:
            def change(message: Message) -> None:
                for name, value in values.items():
                    setattr(message, name, value)

            return change

        def mark(message: Message) -> None:
            message.mark = bytes((self._random.choice([0, 1, 0x42, 0x4C, 0x62, 255]),))

        def version(message: Message) -> None:
            message.version = self._random.choice([0, 2, 255])

        def lie(message: Message) -> None:
            message.claimed_body = max(len(message.body) + self._random.choice([-9, -1, 1, 7, 4096]), 0)

        def lie_of_fields(message: Message) -> None:
            message.claimed_fields = self._random.choice([0, 1, 8, 65535, 70_000])

        def fewer(message: Message) -> None:
            message.set(UNIX_FDS, "u", self._random.choice([1, 253, 1 << 31, (1 << 32) - 1]))

        def more(message: Message) -> None:
            message.fds = self._random.randrange(2, 20)
            message.set(UNIX_FDS, "u", 1)

        def unannounced(message: Message) -> None:
            message.fds = self._random.randrange(1, 5)

        return {
            "endianness": mark,
            "version": version,
            "body length": lie,
            "body length huge": claim(claimed_body=(1 << 32) - 1),
            "fields length": lie_of_fields,
            "fields length huge": claim(claimed_fields=(1 << 32) - 1),
            "descriptors fewer": fewer,
            "descriptors more": more,
            "descriptors unannounced": unannounced,
        }

    def rounds(self, *, fatal: bool = False) -> Iterator[Hostile]:
        """Frames without end."""
        changes = self.fatal_changes() if fatal else self.changes()
        while True:
            pairs = [(method, change) for method in self.methods() for change in changes]
            self._random.shuffle(pairs)
            for method, name in pairs:
                message = self._message(method)
                changes[name](message)
                key = (method.interface, method.name)
                yield Hostile(message.wire(), message.fds, key, name, fatal)

    def _message(self, method: Method) -> Message:
        """A call to the method that is well-formed."""
        path = path_of(KEPT) if method.interface == NAMESPACE else PATH
        message = Message(
            [
                (PATH_FIELD, "o", path),
                (INTERFACE, "s", method.interface),
                (MEMBER, "s", method.name),
                (DESTINATION, "s", NAME),
            ]
        )
        self.serial = self.serial % 0xFFFFFF00 + 1
        message.serial = self.serial
        message.flags = self._random.choice([0, 0, 0, 1, 4])
        if self.sender:
            message.fields.append((SENDER, "s", self.sender))
        if method.takes:
            message.fields.append((SIGNATURE, "g", method.takes))
            message.body = self._body(method, ">" if message.order == ">" else "<")
        return message

    def _body(self, method: Method, order: str) -> bytes:
        pick = self._random.choice
        name = pick([KEPT, KEPT, "none", "x" * 65, "../x", *FORGERIES])
        options = pick([{}, {"lazy": ("b", True)}, {"kill": ("s", "no")}, {"labels": ("a{ss}", {"a": "b"})}])
        values: dict[str, tuple[object, ...]] = {
            "sa{sv}": (name, options),
            "a{sv}": (options,),
            "s": (name,),
            "u": (pick([0, 1, 2**31, 2**32 - 1]),),
            "ss": (pick([NAMESPACE, "", "a.b", *FORGERIES]), pick(["Name", "Count", "", *FORGERIES])),
            "ssv": (NAMESPACE, "Name", ("s", name)),
            "ssss": ("tmpfs", pick(["relative", "/../x", ""]), "tmpfs", pick(["size=1m", *FORGERIES])),
            "sasa{uh}a{sv}": (name, ["/bin/true", pick(FORGERIES)], {}, options),
            "asa{uh}a{sv}": (["/bin/true"], {pick([0, 1, 2**32 - 1]): 7}, options),
        }
        plain = method.takes.replace("h", "u")
        endian = Endianness.big if order == ">" else Endianness.little
        return bytes(parse_signature(list(f"({plain})")).serialise(values[method.takes], 0, endian))

    # The changes

    def _field_change(self, code: int, change: str) -> Callable[[Message], None]:
        signature = FIELDS[code]

        def apply(message: Message) -> None:
            pick = self._random.choice
            if change == "absent":
                message.drop(code)
            elif change == "doubled":
                present = [item for item in message.fields if item[0] == code]
                message.fields += present or [(code, signature, self._sensible(code))] * 2
            elif change == "type":
                other = pick([kind for kind in _TYPES if kind != signature])
                message.set(code, other, self._random.randbytes(pick([0, 1, 4, 8, 24])))
            elif change == "garbled":
                # too short to announce a descriptor, which would be fatal
                lengths = [0, 1, 3] if code == UNIX_FDS else [0, 1, 4, 5, 8, 60]
                message.set(code, signature, self._random.randbytes(pick(lengths)))
            elif signature == "u":
                # of descriptors none: another number would be a lie, and that is fatal
                message.set(code, "u", 0 if code == UNIX_FDS else pick([0, 1, 2**31, 2**32 - 1]))
            else:
                message.set(code, signature, pick(_SIGNATURES if signature == "g" else _TEXTS))

        return apply

    def _sensible(self, code: int) -> object:
        return {
            ERROR_NAME: "a.b",
            REPLY_SERIAL: 1,
            SENDER: self.sender or ":1.1",
            SIGNATURE: "",
            UNIX_FDS: 0,
        }[code]

    def _flag(self, bit: int) -> Callable[[Message], None]:
        def apply(message: Message) -> None:
            message.flags ^= 1 << bit

        return apply

    def _kind(self, kind: int) -> Callable[[Message], None]:
        def apply(message: Message) -> None:
            message.kind = kind
            message.set(REPLY_SERIAL, "u", self._random.choice([0, 1, 5, 2**32 - 1]))
            message.set(ERROR_NAME, "s", "a.b")

        return apply

    def _body_change(self, change: str) -> Callable[[Message], None]:
        def apply(message: Message) -> None:
            body, pick = bytearray(message.body or b"\4\0\0\0kept\0"), self._random.randrange
            if change == "empty":
                body = bytearray()
            elif change == "truncated":
                del body[pick(len(body)) :]
            elif change == "longer":
                body += self._random.randbytes(pick(1, 40))
            elif change == "mutated":
                for _ in range(pick(1, 4)):
                    body[pick(len(body))] = pick(256)
            elif change == "random":
                body = bytearray(self._random.randbytes(pick(200)))
            elif change == "length":
                struct.pack_into("<I", body, 0, self._random.choice([0, 255, 2**26 + 1, 2**31, 2**32 - 1]))
            elif change == "large":
                body += bytes(pick(1000, 4000))
            elif change == "nested":
                message.set(SIGNATURE, "g", "v")
                body = bytearray(b"\1v\0" * pick(1, 300) + b"\1y\0\0")
            elif change == "NUL":
                body[pick(len(body))] = 0
            message.body = bytes(body)

        return apply

    def _unknown(self, message: Message) -> None:
        kind = self._random.choice(["y", "u", "s", "t", "g"])
        value = {"y": b"\1", "u": b"\1\0\0\0", "s": b"\1\0\0\0a\0", "t": bytes(8), "g": b"\1s\0"}[kind]
        message.fields.insert(0, (self._random.randrange(10, 256), kind, value))

    def _unknown_nested(self, message: Message) -> None:
        depth = self._random.choice([1, 20, 63, 64, 130, 1000])
        message.fields.append((self._random.randrange(10, 256), "v", b"\1v\0" * depth + b"\1y\0\0"))

    def _field_0(self, message: Message) -> None:
        message.fields.append((0, "s", "zero"))

    def _many_fields(self, message: Message) -> None:
        message.fields += [(self._random.randrange(10, 256), "y", b"\0")] * self._random.randrange(1, 500)

    def _serial(self, message: Message) -> None:
        message.serial = self._random.choice([0, 1, 2**31, 2**32 - 1])

    def _big_endian(self, message: Message) -> None:
        """As a caller of that endianness makes it."""
        message.mark, message.order = b"B", ">"
        interface = str(next(value for code, _, value in message.fields if code == INTERFACE))
        member = str(next(value for code, _, value in message.fields if code == MEMBER))
        for method in self.methods():
            if (method.interface, method.name) == (interface, member) and method.takes:
                message.body = self._body(method, ">")
