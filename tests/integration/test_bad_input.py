# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever the arguments of a call are: what is wrong with them is said, and nothing has changed."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.buses import PrivateBus
from support.client import MANAGER, NAMESPACE, PATH, PROPERTIES, Client, DBusError
from support.contract import (
    INVALID,
    LIMITS,
    MOUNT_FAILED,
    NO_SUCH,
    NO_SUCH_USER,
    OBJECT_MANAGER,
    READ_ONLY,
    UNKNOWN_INTERFACE,
    UNKNOWN_PROPERTY,
    Method,
    create,
    listed,
    methods,
    mounted_at_mnt,
    path_of,
    refused,
)
from support.daemon import Daemon
from support.raw import RawConnection, marshal

X = path_of("x")
TRUE: list[str] = ["/bin/true"]
NOTHING: dict[str, Any] = {}

WRONG_NAMES = (
    "",
    "n" * 65,
    ".",
    "..",
    "a..b",
    ".hidden",
    "-n",
    "/",
    "a/b",
    "../x",
    "/etc/passwd",
    "größe",
    "a b",
    "a\n",
    "a\tb",
    "\x7f",
    "x\u200b",
    "%s",
    "$(x)",
    "x;y",
    "a\\b",
    "\u202ex",
    "x" * 5000,
    "*",
)
# One value of every kind that an option could come in.
KINDS: dict[str, Any] = {
    "s": "text", "b": True, "y": 1, "i": 1, "u": 1, "x": 1, "t": 1, "d": 1.0, "o": "/", "g": "s", "as": ["a"],
    "a{ss}": {"a": "b"}, "a{sv}": {}, "ay": [1], "(ss)": ("a", "b"), "v": ("s", "text"),
}  # fmt: skip
OPTIONS = {
    "Create": {"propagation": "s", "description": "s", "labels": "a{ss}", "from": "s", "if_not_exists": "b"},
    "Enter": {
        "user": "s", "env": "a{ss}", "cwd": "s", "tty": "b", "kill_on_disconnect": "b", "new_privileges": "b",
    },
    "Destroy": {"kill": "b", "lazy": "b"},
    "Unmount": {"lazy": "b"},
}  # fmt: skip


@dataclass(frozen=True)
class Bad:
    """Arguments that fit their signature and are wrong all the same, and the error they get.

    Attributes: names: a word that the message has to have.
    """

    args: tuple[Any, ...]
    error: str = INVALID
    names: str = ""


def labels(content: dict[str, str]) -> dict[str, Any]:
    """An option."""
    return {"labels": ("a{ss}", content)}


def text(key: str, value: str) -> dict[str, Any]:
    """An option."""
    return {key: ("s", value)}


def no_type(method: str, before: tuple[Any, ...]) -> Iterator[Bad]:
    """Every option in every type that is not its own, and options that there are not."""
    for key, right in OPTIONS[method].items():
        for kind, value in KINDS.items():
            if kind != right:
                # What nests is refused before it is known to which option it belongs.
                yield Bad((*before, {key: (kind, value)}), names=key if kind in "sbyiuxtdogas" else "")
    for unknown in ("", "unknown", key.upper(), key + " ", "\x1b[2J", "k" * 1000, "größe"):
        yield Bad((*before, {unknown: ("s", "x")}), names="option")
    yield Bad((*before, {key: (right, KINDS[right]), "unknown": ("u", 1)}), names="unknown")


def create_options() -> Iterator[Bad]:
    """What Create takes no account of."""
    yield from no_type("Create", ("new",))
    for name in WRONG_NAMES:
        yield Bad((name, NOTHING))
        yield Bad(("new", text("from", name)))
    for value in ("", "Slave", "rslave", "slave ", "x" * 1000):
        yield Bad(("new", text("propagation", value)), names="propagation")
    for value in ("d" * 257, "ß" * 129, "two\nlines", "\x1b[2J", "\x00"[1:] + "\x85", "\u2028"):
        yield Bad(("new", text("description", value)), names="description")
    for content in (
        {"": "v"}, {"k" * 65: "v"}, {"-k": "v"}, {"k/": "v"}, {"a b": "v"}, {"größe": "v"}, {"k": "v" * 257},
        {"k": "a\nb"}, {"k": "\x7f"}, {f"k{number}": "v" for number in range(33)},
    ):  # fmt: skip
        yield Bad(("new", labels(content)), names="label")
    yield Bad(("new", labels({f"k{number}": "v" * 256 for number in range(250)})), LIMITS)
    yield Bad(("new", text("from", "none")), NO_SUCH)
    yield Bad(("x", NOTHING), "org.mountnsd1.Error.NamespaceExists")


def enter_arguments(before: tuple[Any, ...]) -> Iterator[Bad]:
    """What Enter takes no account of, behind the name if there is one."""
    yield from no_type("Enter", (*before, TRUE, {}))
    yield Bad((*before, [""], {}, NOTHING), names="argv")
    yield Bad((*before, ["", "x"], {}, NOTHING), names="argv")
    yield Bad((*before, ["a" * 70_000], {}, NOTHING), LIMITS)
    for env in ({"": "v"}, {"A=B": "c"}, {"=": ""}):
        yield Bad((*before, TRUE, {}, {"env": ("a{ss}", env)}))
    for cwd in ("", "relative", "./x", "/" + "d" * 4096):
        yield Bad((*before, TRUE, {}, text("cwd", cwd)), names="cwd")
    yield Bad((*before, TRUE, {}, {"tty": ("b", True)}), names="tty")
    for user in ("no-such-user", "4294967295", "-1", "99999999999999999999", "0x0", " 0", "root ", ""):
        yield Bad((*before, TRUE, {}, text("user", user)), NO_SUCH_USER)
    for user in ("a\nb", "u" * 257, "\x1b"):
        yield Bad((*before, TRUE, {}, text("user", user)), names="user")


def mount_arguments() -> Iterator[Bad]:
    """What Mount takes no account of."""
    for where in ("", "mnt", "./mnt", "/mnt/../etc", "..", "/..", "/" + "d" * 5000):
        yield Bad(("t", where, "tmpfs", ""), names="where")
    yield Bad(("t" * 5000, "/mnt", "tmpfs", ""), names="what")
    yield Bad(("t", "/mnt", "", ""), names="type")
    yield Bad(("t", "/mnt", "t" * 5000, ""), names="type")
    yield Bad(("relative", "/mnt", "", "bind"), names="what")
    yield Bad(("", "/mnt", "", "rbind"), names="what")
    yield Bad(("/etc", "/mnt", "", "bind,size=1"), names="size")
    yield Bad(("t", "/mnt", "tmpfs", "o" * 5000), names="option")
    yield Bad(("t", "/mnt", "tmpfs", "size=1,unknown_option=1"), MOUNT_FAILED)
    yield Bad(("t", "/mnt", "no\nsuch", ""), MOUNT_FAILED)
    yield Bad(("t" * 60_000, "/mnt", "tmpfs", "o" * 6000), LIMITS)


def unmount_arguments() -> Iterator[Bad]:
    """What Unmount takes no account of."""
    for where in ("", "mnt", "/mnt/../etc", "/" + "d" * 5000):
        yield Bad((where, NOTHING), names="where")
    yield from no_type("Unmount", ("/mnt",))
    yield Bad(("/mnt", NOTHING), MOUNT_FAILED)


def named(*after: Any) -> Iterator[Bad]:
    """What is no name, and a name of nothing."""
    for name in WRONG_NAMES:
        yield Bad((name, *after))
    yield Bad(("none", *after), NO_SUCH, names="none")


def properties(*after: Any) -> Iterator[Bad]:
    """Properties and interfaces that there are not."""
    for owner in ("a.b", NAMESPACE, "größe", "x\ny", "x" * 5000):
        yield Bad((owner, "Count", *after), UNKNOWN_INTERFACE)
    for key in ("", "count", "Nothing", "größe", "x\ny", "x" * 5000):
        yield Bad((MANAGER, key, *after), UNKNOWN_PROPERTY)


# Of every method; none where there is nothing but the signature to be wrong.
TABLE: dict[tuple[str, str], list[Bad]] = {
    (MANAGER, "Create"): [*create_options()],
    (MANAGER, "Enter"): [*named(TRUE, {}, NOTHING), *enter_arguments(("x",))],
    (MANAGER, "Open"): [*named()],
    (MANAGER, "Destroy"): [
        *named(NOTHING),
        *no_type("Destroy", ("x",)),
        Bad(("x", {"kill": ("b", True), "lazy": ("b", True)}), names="kill"),
    ],
    (MANAGER, "List"): [],
    (MANAGER, "GetNamespace"): [*named()],
    (MANAGER, "GetNamespaceByPID"): [
        Bad((1 << 31,), names="process"),
        Bad(((1 << 32) - 1,), names="process"),
        Bad(((1 << 31) - 1,), "org.mountnsd1.Error.NoNamespaceForPID"),
    ],
    (NAMESPACE, "Enter"): [*enter_arguments(())],
    (NAMESPACE, "Open"): [],
    (NAMESPACE, "Destroy"): [
        *no_type("Destroy", ()),
        Bad(({"kill": ("b", True), "lazy": ("b", True)},), names="lazy"),
    ],
    (NAMESPACE, "GetProcesses"): [],
    (NAMESPACE, "GetMounts"): [],
    (NAMESPACE, "GetChanges"): [],
    (NAMESPACE, "Mount"): [*mount_arguments()],
    (NAMESPACE, "Unmount"): [*unmount_arguments()],
    ("org.freedesktop.DBus.Peer", "Ping"): [],
    ("org.freedesktop.DBus.Peer", "GetMachineId"): [],
    ("org.freedesktop.DBus.Introspectable", "Introspect"): [],
    (PROPERTIES, "Get"): [*properties()],
    (PROPERTIES, "GetAll"): [Bad((owner,), UNKNOWN_INTERFACE) for owner in ("a.b", NAMESPACE, "x\ny", "x" * 5000)],
    (PROPERTIES, "Set"): [
        *properties(("u", 1)),
        Bad((MANAGER, "Count", ("u", 1)), READ_ONLY),
        Bad((MANAGER, "Count", ("s", "text")), READ_ONLY),
    ],
    (OBJECT_MANAGER, "GetManagedObjects"): [],
}  # fmt: skip

# Values of each signature that a method could wrongly be called with.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "": (), "s": ("x",), "u": (1,), "ss": ("x", "y"), "sa{sv}": ("x", {}), "a{sv}": ({},), "as": (["x"],),
    "sa{ss}": ("x", {}), "sas": ("x", ["y"]), "v": (("s", "x"),), "ssss": ("t", "/mnt", "tmpfs", ""),
    "sssss": ("t", "/mnt", "tmpfs", "", ""), "sasa{uu}a{sv}": ("x", TRUE, {}, {}), "o": ("/",), "i": (1,),
    "ssv": ("a", "b", ("u", 1)), "(s)": (("x",),), "ay": ([120, 0],),
}  # fmt: skip
IDS = [f"{method.interface.rpartition('.')[2]}.{method.name}" for method in methods()]


@pytest.fixture(autouse=True)
def _x(daemon: Daemon, root: Client) -> None:
    """There is a namespace that something could happen to."""
    create(root, "x", description=("s", "of the test"), labels=("a{ss}", {"a": "b"}))


def state(daemon: Daemon, root: Client) -> tuple[Any, ...]:
    """All that a call could have changed."""
    objects = root.call(PATH, OBJECT_MANAGER, "GetManagedObjects")[0]
    files = sorted(str(path) for path in daemon.runtime.rglob("*"))
    return listed(root), objects, files, mounted_at_mnt(root, "x"), daemon.pinned()


def place(method: Method) -> str:
    """An object that has the method."""
    return X if method.interface == NAMESPACE else PATH


def test_every_method_is_in_the_table() -> None:
    assert set(TABLE) == {(method.interface, method.name) for method in methods()}
    for method in methods():
        assert TABLE[method.interface, method.name] or method.takes in ("", "s")


class TestEveryMethod:
    """Each method, with all that can be wrong with it."""

    @pytest.mark.parametrize("method", methods(), ids=IDS)
    def test_another_signature(self, daemon: Daemon, root: Client, method: Method) -> None:
        before = state(daemon, root)
        for signature, args in SIGNATURES.items():
            if signature != method.takes:
                error = refused(root.call, place(method), method.interface, method.name, signature, *args)
                assert error.name == INVALID, (method, signature)
                assert f"'{method.takes}'" in error.message
        assert state(daemon, root) == before

    @pytest.mark.parametrize("method", methods(), ids=IDS)
    def test_arguments(self, daemon: Daemon, root: Client, method: Method) -> None:
        before = state(daemon, root)
        for bad in TABLE[method.interface, method.name]:
            error = refused(root.call, place(method), method.interface, method.name, method.takes, *bad.args)
            assert error.name == bad.error, (bad, error)
            assert bad.names in error.message, (bad, error)
            assert len(error.message) < 1000, bad
            assert error.message.isprintable(), bad
        assert state(daemon, root) == before
        assert "Traceback" not in daemon.log()
        assert "\x1b" not in daemon.log()


class TestDescriptors:
    """The numbers and the handles of Enter."""

    @pytest.mark.parametrize(
        ("mapping", "sent"),
        [
            ({0: 0}, 0),
            ({0: 1}, 1),
            ({0: 0, 1: 2}, 2),
            ({0: 0xFFFFFFFF}, 1),
            ({0: 0x80000000}, 1),
            ({1024: 0}, 1),
            ({0xFFFFFFFF: 0}, 1),
            ({0x80000000: 0}, 1),
            (dict.fromkeys(range(300), 0), 1),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("own_object", [False, True])
    def test_out_of_range(
        self,
        bus: PrivateBus,
        daemon: Daemon,
        root: Client,
        mapping: dict[int, int],
        sent: int,
        own_object: bool,
    ) -> None:
        before = state(daemon, root), daemon.open_fds()
        with RawConnection(bus.address) as raw, Path("/dev/null").open("rb") as null:
            rest: tuple[Any, ...] = (TRUE, mapping, {})
            if own_object:
                call = raw.call(
                    X,
                    NAMESPACE,
                    "Enter",
                    "asa{uh}a{sv}",
                    marshal("asa{uh}a{sv}", *rest),
                    fds=[null.fileno()] * sent,
                )
            else:
                body = marshal("sasa{uh}a{sv}", "x", *rest)
                call = raw.call(PATH, MANAGER, "Enter", "sasa{uh}a{sv}", body, fds=[null.fileno()] * sent)
            assert raw.reply(call).error_name == INVALID
        assert (state(daemon, root), daemon.open_fds()) == before


class TestNul:
    """A NUL in a string: no bus lets it through, and if one does, we do not."""

    STRINGS: tuple[tuple[str, str, Callable[[str], bytes]], ...] = (
        ("Create", "sa{sv}", lambda bad: marshal("sa{sv}", bad, {})),
        ("Create", "sa{sv}", lambda bad: marshal("sa{sv}", "new", {"description": ("s", bad)})),
        ("Create", "sa{sv}", lambda bad: marshal("sa{sv}", "new", {bad: ("b", True)})),
        ("Create", "sa{sv}", lambda bad: marshal("sa{sv}", "new", {"labels": ("a{ss}", {bad: "v"})})),
        ("Enter", "sasa{uh}a{sv}", lambda bad: marshal("sasa{uh}a{sv}", "x", [bad], {}, {})),
        ("Enter", "sasa{uh}a{sv}", lambda bad: marshal("sasa{uh}a{sv}", "x", TRUE, {}, {"cwd": ("s", bad)})),
        ("Enter", "sasa{uh}a{sv}", lambda bad: marshal("sasa{uh}a{sv}", "x", TRUE, {}, {"user": ("s", bad)})),
        ("Open", "s", lambda bad: marshal("s", bad)),
        ("Destroy", "sa{sv}", lambda bad: marshal("sa{sv}", bad, {})),
    )

    @pytest.mark.parametrize("text", ["x\0", "\0", "x\0y", "/etc\0/x"], ids=repr)
    def test_nul(self, bus: PrivateBus, daemon: Daemon, root: Client, text: str) -> None:
        before = state(daemon, root)
        for member, signature, body in self.STRINGS:
            with RawConnection(bus.address) as raw, contextlib.suppress(ConnectionError):
                answer = raw.reply(raw.call(PATH, MANAGER, member, signature, body(text)))
                assert answer.error_name == INVALID
        assert state(daemon, root) == before

    def test_no_utf8(self, bus: PrivateBus, daemon: Daemon, root: Client) -> None:
        before = state(daemon, root)
        for member, signature, body in self.STRINGS:
            data = body("!!!!").replace(b"!!!!", b"a\xff\xfea")
            with RawConnection(bus.address) as raw, contextlib.suppress(ConnectionError):
                assert raw.reply(raw.call(PATH, MANAGER, member, signature, data)).error_name == INVALID
        assert state(daemon, root) == before


def test_a_user_gets_the_same_errors(root: Client, user: Client) -> None:
    """And is told nothing that he may not know: without polkit, a well-formed call says no more than no."""
    with pytest.raises(DBusError, match="AccessDenied"):
        user.manager("List")
    assert refused(user.manager, "Create", "sa{sv}", "..", {}).name == INVALID
    assert len(listed(root)) == 1
