# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon is made to fail in: each operation, what must be before, and what may be afterwards."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support import hidden, leaks

from .world import BEFORE, World, eventually

NEW, OLD = "new", "old"
_OPTIONS = {"description": ("s", "a new one"), "labels": ("a{ss}", {"a": "b"})}
_REFUSED = {"create": "undone", "destroy": "kept", "enter": "ended", "exit": "told", "notice": "noticed"}
_DECLARATION = """\
description = "a new one"
labels = { a = "b" }
[[mount]]
what = "tmpfs"
where = "/run/declared/deep"
type = "tmpfs"
options = "size=1M,X-mount.mkdir"
[[mount]]
what = "/usr"
where = "/mnt"
options = "bind,ro"
"""


@dataclass(frozen=True)
class Operation:
    """An operation of the daemon.

    Attributes: name, title; launcher: fork or systemd; prepare: what must be before; act: what is to fail; state: the
        word for what there is afterwards, given whether it was acknowledged; raises AssertionError for what must not
        be; again: do it without a fault, from that state, and clear away what it made; starts: it is the daemon's
        start; beyond: an operation whose steps need not be tried again.
    """

    name: str
    title: str
    prepare: Callable[[World], None]
    act: Callable[[World], Any]
    state: Callable[[World, bool], str]
    again: Callable[[World, str], None]
    launcher: str = "fork"
    starts: bool = False
    beyond: str = ""

    @property
    def refused(self) -> str:
        """What there is when it was refused."""
        return _REFUSED.get(self.name.partition("-")[0], "")


def _nothing(_: World) -> None:
    pass


def _made(world: World, acknowledged: bool) -> str:
    if NEW not in world.kernel():
        assert not acknowledged, "an acknowledged namespace is lost"
        return "undone"
    path = f"/org/mountnsd1/namespace/{NEW}"
    found = {key: world.client.get(path, "org.mountnsd1.Namespace", key) for key in ("Description", "Labels")}
    assert found == {"Description": "a new one", "Labels": {"a": "b"}}, found
    assert leaks.mounts_below(world.pins / NEW)
    return "kept"


def _made_with_mounts(world: World, acknowledged: bool) -> str:
    state = _made(world, acknowledged)
    if state == "kept":
        path = f"/org/mountnsd1/namespace/{NEW}"
        (mounts,) = world.client.call(path, "org.mountnsd1.Namespace", "GetMounts")
        assert {mount[4] for mount in mounts} >= {"/run/declared/deep", "/mnt"}, "mounts are missing inside"
    return state


def _make_again(act: Callable[[World], Any]) -> Callable[[World, str], None]:
    def again(world: World, state: str) -> None:
        if state != "kept":
            act(world)
            assert _made(world, True) == "kept"
        world.destroy(NEW)

    return again


def _create(world: World) -> None:
    world.create(NEW, **_OPTIONS)


def _create_from(world: World) -> None:
    world.create(NEW, **_OPTIONS, **{"from": ("s", BEFORE)})


def _declare(world: World) -> None:
    (world.declared / f"{NEW}.toml").write_text(_DECLARATION)


def _create_declared(world: World) -> None:
    world.create(NEW)


def _old(world: World) -> None:
    if OLD not in world.kernel():
        world.create(OLD, **_OPTIONS)


def _old_with_resident(world: World) -> None:
    _old(world)
    if not world.inside(OLD):
        world.end_residents()
        world.resident(OLD)
        eventually(lambda: world.inside(OLD), lambda: "inside")


def _dropped(world: World, acknowledged: bool) -> str:
    if OLD in world.kernel():
        assert not acknowledged, "what was destroyed is there"
        return "kept"
    return "gone"


def _destroy(**options: tuple[str, Any]) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.destroy(OLD, **options)

    return act


def _destroy_again(**options: tuple[str, Any]) -> Callable[[World, str], None]:
    def again(world: World, state: str) -> None:
        if state == "kept":
            world.destroy(OLD, **options)
        assert OLD not in world.kernel()
        world.end_residents()

    return again


def _enter(world: World) -> None:
    _, pidfd = world.call("Enter", "sasa{uh}a{sv}", OLD, ["sleep", "infinity"], {}, {})
    pidfd.close()


def _entered(world: World, acknowledged: bool) -> str:
    if world.refused:
        eventually(lambda: not world.strangers(), world.strangers)
    eventually(lambda: world.programs() or not world.strangers(), world.strangers)
    if acknowledged:
        return "runs" if len(world.inside(OLD)) == 1 else "died"
    return "runs on" if world.programs() else "ended"


def _enter_again(world: World, state: str) -> None:
    world.end(world.inside(OLD))
    eventually(lambda: not world.inside(OLD), lambda: "processes inside")
    if state in ("ended", "died"):
        _enter(world)
        assert len(world.inside(OLD)) == 1
    world.destroy(OLD, kill=("b", True))


def _running(world: World) -> None:
    _old(world)
    _enter(world)
    world.listen()


def _end(world: World) -> None:
    world.end(world.programs())
    world.wait_for_exit()


def _ended(world: World, acknowledged: bool) -> str:
    assert not world.inside(OLD)
    return "told" if acknowledged else "untold"


def _end_again(world: World, state: str) -> None:
    del state
    world.destroy(OLD)
    world.unlisten()


def _torn_down(world: World) -> None:
    """As before the first start."""
    world.daemon.stop()
    hidden.close(world.daemon.runtime / "ns")
    for mount in reversed(leaks.mounts_below(world.daemon.runtime)):
        leaks.detach(mount)
    shutil.rmtree(world.daemon.runtime, ignore_errors=True)
    world.keeps = False


def _cut_short(world: World) -> None:
    """What creations and destructions leave that were cut short."""
    if not world.daemon.pid:
        world.daemon.start()
    world.create("cut")
    (world.metadata / "cut.json").rename(world.metadata / ".cut.json.new")
    world.create("lost")
    world.unpin("lost")
    (world.pins / "lost").unlink()
    (world.pins / "left").touch()
    (world.metadata / ".prepared.json.new").touch(0o600)
    world.daemon.kill()


def _started(world: World, acknowledged: bool) -> str:
    del acknowledged
    assert set(world.kernel()) == ({BEFORE} if world.keeps else set())
    return "recovers"


def _unpinned(world: World) -> None:
    _old(world)
    world.unpin(OLD)


def _noticed(world: World, acknowledged: bool) -> str:
    del acknowledged
    assert OLD not in world.kernel()
    return "noticed"


def _list(world: World) -> None:
    world.call("List")


def _noticed_again(world: World, state: str) -> None:
    del world, state


def _started_again(world: World, state: str) -> None:
    del world, state


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("create", "Create", _nothing, _create, _made, _make_again(_create)),
        Operation(
            "create-from",
            "Create with from",
            _nothing,
            _create_from,
            _made,
            _make_again(_create_from),
            beyond="create",
        ),
        Operation(
            "create-declared",
            "Create of a declared namespace, with its mounts",
            _declare,
            _create_declared,
            _made_with_mounts,
            _make_again(_create_declared),
            beyond="create",
        ),
        Operation("destroy", "Destroy", _old, _destroy(), _dropped, _destroy_again()),
        Operation(
            "destroy-kill",
            "Destroy with kill",
            _old_with_resident,
            _destroy(kill=("b", True)),
            _dropped,
            _destroy_again(kill=("b", True)),
            beyond="destroy",
        ),
        Operation(
            "destroy-lazy",
            "Destroy with lazy",
            _old_with_resident,
            _destroy(lazy=("b", True)),
            _dropped,
            _destroy_again(lazy=("b", True)),
            beyond="destroy",
        ),
        Operation("enter", "Enter", _old, _enter, _entered, _enter_again),
        Operation(
            "enter-unit", "Enter in a unit", _old, _enter, _entered, _enter_again, "systemd", beyond="enter"
        ),
        Operation("exit", "The end of what was entered", _running, _end, _ended, _end_again),
        Operation(
            "exit-unit",
            "The end of what was entered in a unit",
            _running,
            _end,
            _ended,
            _end_again,
            "systemd",
            beyond="exit",
        ),
        Operation("notice", "A look at what others changed", _unpinned, _list, _noticed, _noticed_again),
        Operation(
            "first-start", "The first start", _torn_down, _nothing, _started, _started_again, starts=True
        ),
        Operation(
            "recovery",
            "A start after a crash",
            _cut_short,
            _nothing,
            _started,
            _started_again,
            starts=True,
            beyond="first-start",
        ),
    )
}
