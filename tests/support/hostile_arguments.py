# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arguments for every method of the XML, by type and name: typical, at the limits, and hostile.

Nothing that they ask for harms the machine, whatever it is that allows it: mounts lie below PLACE inside of the
namespace `kept`, which is never destroyed, programs do nothing, and what is destroyed was created here.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .client import MANAGER, NAMESPACE, PATH
from .contract import Method, methods, path_of
from .raw import marshal
from .storms import FORGERIES, KEPT

PLACE = "/mnt"  # where a tmpfs is mounted inside
MADE = [f"made-{number}" for number in range(5)]
# Stand-ins of their own length for bytes that no marshaller writes into a string.
_BYTES = {"@NUL@": b"a\0b\0c", "@BAD@": b"\xff\xfe\xc0\x80\xed"}
_TEXTS = (
    *_BYTES, *FORGERIES, "", " ", "\t", "%s%n", "../../etc", "a/../b", "x" * 64, "x" * 65, "x" * 256, "x" * 5000,
    "é" * 33, "\ud7ff", "\U0010ffff", "'\"`$(id)", "-rf", "@", "~", "*", "0", "-1", "4294967296", "/",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 1023, 1024, 2**15, 2**31 - 1, 2**31, 2**32 - 1)
_VALUES: tuple[tuple[str, object], ...] = (
    ("s", "text"), ("b", True), ("b", False), ("y", 255), ("n", -(2**15)), ("q", 65535), ("i", -(2**31)),
    ("u", 2**32 - 1), ("x", -(2**63)), ("x", 2**63 - 1), ("t", 2**64 - 1), ("d", float("inf")), ("d", float("nan")),
    ("o", "/"), ("g", "a{sv}"), ("as", ["a", ""]), ("a{ss}", {"": ""}), ("a{ss}", {"a": "b"}), ("v", ("s", "x")),
    ("av", [("u", 1)]), ("(ss)", ("a", "b")), ("ay", []), ("a{sv}", {}),
)  # fmt: skip
_OPTIONS: dict[str, dict[str, tuple[str, list[Any]]]] = {
    "Create": {
        "propagation": ("s", ["slave", "private", "shared", "unchanged", "none"]),
        "description": ("s", ["what for", "d" * 256, "d" * 257]),
        "labels": ("a{ss}", [{}, {"a": "b"}, {f"k{number}": "v" for number in range(33)}, {"a": "v" * 257}]),
        "from": ("s", [KEPT, "none"]),
        "if_not_exists": ("b", [True, False]),
    },
    "Enter": {
        "user": ("s", ["nobody", "65534", "0", "nobody-at-all", "99999999999"]),
        "env": (
            "a{ss}",
            [{"A": "B"}, {"PATH": ""}, {"LD_PRELOAD": "/none"}, {"A=B": ""}, {"A": "b" * 50_000}],
        ),
        "cwd": ("s", ["/", "/none", "relative", "/" + "d/" * 2500]),
        "tty": ("b", [True, False]),
        "kill_on_disconnect": ("b", [True, False]),
        "new_privileges": ("b", [True, False]),
    },
    "Destroy": {"kill": ("b", [True, False]), "lazy": ("b", [True, False])},
    "Unmount": {"lazy": ("b", [True, False])},
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call.

    Attributes: method; path; body; fds: how many descriptors go along; hostile: the place of the argument that is
        hostile, None where all are typical.
    """

    method: Method
    path: str
    body: bytes
    fds: int
    hostile: int | None


@dataclass(slots=True)
class Arguments:
    """The generator.  Arguments: seed; directory: an existing one on the host, for binds."""

    seed: int
    directory: str
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def attempts(self) -> Iterator[Attempt]:
        """Calls without end: in each round every method, with each of its arguments hostile once."""
        while True:
            round_: list[tuple[Method, int | None]] = [(method, None) for method in methods()]
            round_ += [(method, place) for method in methods() for place in range(len(_split(method.takes)))]
            self._random.shuffle(round_)
            for method, hostile in round_:
                yield self._attempt(method, hostile)

    def _attempt(self, method: Method, hostile: int | None) -> Attempt:
        path = PATH
        if method.interface == NAMESPACE:
            path = path_of(self._random.choice(MADE) if method.name == "Destroy" else KEPT)
        kinds = _split(method.takes)
        values = [self._value(method, kinds, place, place == hostile) for place in range(len(kinds))]
        body = marshal(method.takes, *values) if kinds else b""
        for stand_in, data in _BYTES.items():
            body = body.replace(stand_in.encode(), data)
        fds = self._random.choice([0, 0, 1, 3]) if "h" in method.takes else 0
        return Attempt(method, path, body, fds, hostile)

    def _value(self, method: Method, kinds: list[str], place: int, hostile: bool) -> object:
        pick, kind = self._random.choice, kinds[place]
        if kind == "a{sv}":
            return self._hostile_options(method.name) if hostile else self._options(method.name)
        if kind == "as":
            return pick(self._programs(hostile))
        if kind == "a{uh}":
            return (
                pick([{number: number} for number in _NUMBERS] + [{0: 2**32 - 1}])
                if hostile
                else pick([{}, {5: 0}])
            )
        if kind == "u":
            return pick(_NUMBERS)
        if kind == "v":
            return pick(_VALUES)
        if method.name in ("Mount", "Unmount"):
            return self._of_a_mount(method.name, place, hostile)
        if method.interface == MANAGER:
            own = MADE if method.name in ("Create", "Destroy") else [KEPT, *MADE]
            return pick([text for text in _TEXTS if text != KEPT] if hostile else own)
        return pick(_TEXTS) if hostile else pick([NAMESPACE, MANAGER, "Name", "Count"])

    def _of_a_mount(self, member: str, place: int, hostile: bool) -> str:
        """An argument of Mount(what, where, type, options) or Unmount(where, options)."""
        pick = self._random.choice
        what = "where" if member == "Unmount" else ("what", "where", "type", "options")[place]
        if what == "where":  # always below PLACE, whatever becomes of it
            below = [text for text in _TEXTS if text.strip("/.")] if hostile else ["a", "b", "a/b"]
            return pick([*(f"{PLACE}/{text}" for text in below), *(["relative", "/../x"] if hostile else [])])
        typical = {
            "what": [self.directory, "none"],
            "type": ["tmpfs", ""],
            "options": ["bind", "size=1m", "X-mount.mkdir,size=1m", "X-mount.mkdir,bind", "ro,bind"],
        }[what]
        return pick(_TEXTS) if hostile else pick(typical)

    def _programs(self, hostile: bool) -> list[list[str]]:
        if not hostile:
            return [["/bin/true"], ["true"], []]
        odd = [["/bin/true", text] for text in _TEXTS] + [[f"/none/{text}"] for text in _TEXTS]
        return [
            *odd,
            [""],
            ["/bin/true"] + ["a"] * 5000,
            ["/bin/true", "a" * 60_000],
            ["/"],
            ["/etc/hostname"],
        ]

    def _options(self, member: str) -> dict[str, tuple[str, object]]:
        known = _OPTIONS[member]
        chosen = self._random.sample(sorted(known), self._random.randrange(0, min(3, len(known)) + 1))
        return {key: (known[key][0], self._random.choice(known[key][1])) for key in chosen}

    def _hostile_options(self, member: str) -> dict[str, tuple[str, object]]:
        pick, known = self._random.choice, _OPTIONS[member]
        key, value = pick(sorted(known)), pick(_VALUES)
        text = pick(_TEXTS)
        odd: list[dict[str, tuple[str, object]]] = [
            {key: value},
            {text: ("s", text)},
            {f"unknown{number}": value for number in range(200)},
        ]
        odd += [{key: ("s", text)} for key, (kind, _) in known.items() if kind == "s"]
        odd += [{key: ("a{ss}", {text: text})} for key, (kind, _) in known.items() if kind == "a{ss}"]
        return pick(odd)


def _split(signature: str) -> list[str]:
    """The complete types in the signature of a method."""
    found, rest = [], signature
    while rest:
        end = rest.index("}") + 1 if rest.startswith("a{") else 2 if rest.startswith("a") else 1
        found.append(rest[:end])
        rest = rest[end:]
    return found
