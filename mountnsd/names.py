# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of namespaces, and the object paths made of them.

Out of scope: whether a namespace of that name exists.
"""

import re

from mountnsd.errors import InvalidArgs

MAX_LENGTH = 64
ROOT_PATH = "/org/mountnsd1"
NAMESPACE_PREFIX = ROOT_PATH + "/namespace/"

_PREFIX = "mountns-"
_MAX_UNIT = 255  # UNIT_NAME_MAX
_MAX_STEM = _MAX_UNIT - len(_PREFIX) - len("-0123456789abcdef.service")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_NO_LABEL = re.compile(r"[^A-Za-z0-9]|\A[0-9]", re.ASCII)
_ESCAPED = re.compile(r"(?:[A-Za-z0-9]|_[0-9a-f]{2})+", re.ASCII)


def is_valid(name: str) -> bool:
    """Whether `name` may name a namespace: 1 to 64 of `A-Z a-z 0-9 _ . -`, first not `.` or `-`, no `..`."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def check(name: str) -> str:
    """Return `name`, or raise InvalidArgs that says what a name is made of."""
    if not is_valid(name):
        raise InvalidArgs(
            f"{shown(name)} is no name for a namespace: take 1 to {MAX_LENGTH} of A-Z a-z 0-9 _ . -, "
            "not beginning with . or -, and without '..'."
        )
    return name


def shown(text: str, most: int = 80) -> str:
    """Text of a caller, quoted, escaped and cut so that it is safe in a message or a log line."""
    return ascii(text) if len(text) <= most else ascii(text[:most]) + "…"


def escaped(text: str, most: int = 80) -> str:
    """As `shown`, without the quotes around it, for text that stands between quotes of ours.

    What was cut ends with "…", which nothing else does: of a caller's it is escaped.
    """
    cut = shown(text, most)
    return cut.removesuffix("…")[1:-1].replace("'", "\\'") + ("…" if cut.endswith("…") else "")


def label(text: str) -> str:
    """Text as the last part of an object path, escaped as sd_bus_path_encode(3) does.

    Every byte outside `[A-Za-z0-9]`, and a leading digit, becomes `_xx`.
    """
    return _NO_LABEL.sub(lambda match: f"_{ord(match[0]):02x}", text.encode().decode("latin-1")) or "_"


def to_path(name: str) -> str:
    """The object path of the namespace `name`."""
    return NAMESPACE_PREFIX + label(name)


def from_path(path: str) -> str | None:
    """The name of the namespace whose object is at `path`, or None where that can be no namespace's path.

    Only the one spelling that `to_path` gives is accepted, so that no object has two paths.
    """
    if not path.startswith(NAMESPACE_PREFIX):
        return None
    rest = path[len(NAMESPACE_PREFIX) :]
    if len(rest) > 3 * MAX_LENGTH or not _ESCAPED.fullmatch(rest):
        return None
    name = re.sub(r"_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), rest)
    return name if is_valid(name) and to_path(name) == path else None


def slice_of(namespace: str) -> str:
    """The slice of what is entered into a namespace; it lies in mountns.slice."""
    return f"{_PREFIX}{_stem(namespace)}.slice"


def service_in(namespace: str, number: str) -> str:
    """The unit of one process that is entered, `number` being 16 hexadecimal digits."""
    return f"{_PREFIX}{_stem(namespace)}-{number}.service"


def keeper_of(namespace: str) -> str:
    """The unit that makes a namespace when it is started, and destroys it when it is stopped."""
    return f"mountns@{namespace}.service"


def _stem(namespace: str) -> str:
    """A name as a part of a unit's, escaped as systemd-escape(1) does: a dash would mean a slice in a slice.

    One that gets too long so is cut, and told apart by a hash, as systemd does with the units of long mount points.
    """
    escaped = namespace.replace("-", "\\x2d")
    if len(escaped) <= _MAX_STEM:
        return escaped
    import hashlib

    mark = "_" + hashlib.sha256(namespace.encode()).hexdigest()[:16]
    return escaped[: _MAX_STEM - len(mark)].removesuffix("\\").removesuffix("\\x").removesuffix("\\x2") + mark
