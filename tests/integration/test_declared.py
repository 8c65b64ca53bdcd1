# SPDX-License-Identifier: LGPL-2.1-or-later
"""A declared namespace is made as it is declared, by whoever may create it: whole or not at all, and it is root's."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import INTERACTIVE, MANAGER, NAMESPACE, PATH, Client
from support.contract import (
    DENIED,
    EXISTS,
    FAILED,
    INVALID,
    MOUNT_FAILED,
    action,
    create,
    destroy,
    listed,
    names,
    nsenter,
    path_of,
    refused,
)
from support.daemon import Daemon, copy_program
from support.ground import Ground, contained, host_mounts
from support.polkit import Polkit

from mountnsd import declaration
from mountnsd.errors import MountFailed

MOUNT = "[[mount]]\nwhat = {}\nwhere = {}\ntype = {}\noptions = {}\n"


def a_mount(what: Path | str, where: Path | str, fstype: str = "tmpfs", options: str = "") -> str:
    """One table."""
    return MOUNT.format(*(json.dumps(str(value)) for value in (what, where, fstype, options)))


class Declared:
    """The directories of one daemon, in which namespaces are declared."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.own = daemon.configuration / "namespaces"
        self.vendor = daemon.vendor / "namespaces"
        for directory in (self.own, self.vendor):
            directory.mkdir(parents=True)
            directory.chmod(0o755)

    def write(self, name: str, *parts: str, vendor: bool = False) -> Path:
        """Declare one; returns the file."""
        path = (self.vendor if vendor else self.own) / f"{name}.toml"
        path.write_text("\n".join(parts))
        path.chmod(0o644)
        return path


@pytest.fixture
def declared(daemon: Daemon) -> Declared:
    """Where to declare namespaces."""
    return Declared(daemon)


@pytest.fixture
def place(directory: Path) -> Path:
    """A place on the host to bind and to mount on."""
    for name in ("sources", "in", "lower", "upper", "work", "merged"):
        (directory / "place" / name).mkdir(parents=True)
    (directory / "place" / "sources" / "main.c").write_text("int main;")
    (directory / "place" / "lower" / "from-lower").touch()
    return directory / "place"


@pytest.fixture(autouse=True)
def _nothing_is_left(daemon: Daemon, directory: Path) -> Iterator[None]:
    """The host's mounts are what they were, and no namespace is there that has no pin."""
    holder = str(daemon.pins)

    def outside() -> list[str]:
        return [mount.target for mount in host_mounts(directory) if not mount.target.startswith(holder)]

    before = outside()
    yield
    assert outside() == before


def build(place: Path) -> tuple[str, ...]:
    """What is declared in most tests."""
    layers = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    return (
        'description = "Where it is built"\npropagation = "private"\n[labels]\nteam = "build"\n',
        a_mount("scratch", place / "in", options="size=64k,nosuid"),
        a_mount(place / "sources", place / "in" / "deep" / "sources", "", "bind,ro,X-mount.mkdir"),
        a_mount("merged", place / "merged", "overlay", layers),
    )


def is_as_declared(client: Client, daemon: Daemon, place: Path) -> bool:
    """Whether the namespace `build` is all that `build` declares."""
    properties = client.call(path_of("build"), "org.freedesktop.DBus.Properties", "GetAll", "s", NAMESPACE)[0]
    assert properties["OwnerUID"][1] == 0
    assert properties["Propagation"][1] == "private"
    assert properties["Description"][1] == "Where it is built"
    assert properties["Labels"][1] == {"team": "build"}
    rows = client.call(path_of("build"), NAMESPACE, "GetMounts")[0]
    mounts = {row[4]: row for row in rows if row[4].startswith(str(place))}
    assert list(mounts) == [str(place / name) for name in ("in", "in/deep/sources", "merged")]
    assert mounts[f"{place}/in"][5].startswith("rw,nosuid")
    assert mounts[f"{place}/in/deep/sources"][5].startswith("ro")
    shown = nsenter(
        daemon.pins / "build", "ls", str(place / "in" / "deep" / "sources"), str(place / "merged")
    )
    assert {"main.c", "from-lower"} <= set(shown.split())
    return True


class TestCreate:
    """By its name alone."""

    def test_it_is_what_is_declared(
        self, daemon: Daemon, root: Client, declared: Declared, place: Path
    ) -> None:
        declared.write("build", *build(place))
        assert create(root, "build") == path_of("build")
        assert is_as_declared(root, daemon, place)
        assert list((place / "in").iterdir()) == []
        destroy(root, "build")
        assert daemon.pinned() == set()

    def test_an_own_one_hides_that_of_a_package(self, root: Client, declared: Declared) -> None:
        declared.write("build", 'description = "of a package"', vendor=True)
        create(root, "build")
        assert root.get(path_of("build"), NAMESPACE, "Description") == "of a package"
        destroy(root, "build")
        declared.write("build", 'description = "own"')
        create(root, "build")
        assert root.get(path_of("build"), NAMESPACE, "Description") == "own"

    def test_it_is_read_anew_each_time(self, root: Client, declared: Declared) -> None:
        for number in range(2):
            declared.write("build", f'description = "{number}"')
            create(root, "build")
            assert root.get(path_of("build"), NAMESPACE, "Description") == str(number)
            destroy(root, "build")

    def test_other_names_are_not_touched(self, root: Client, declared: Declared) -> None:
        declared.write("build", "description = 1")
        create(root, "other", description=("s", "mine"))
        assert root.get(path_of("other"), NAMESPACE, "Description") == "mine"

    def test_it_is_there_after_a_restart_of_the_daemon(
        self, daemon: Daemon, root: Client, declared: Declared, place: Path
    ) -> None:
        declared.write("build", *build(place))
        create(root, "build")
        (row,) = listed(root)
        daemon.kill(signal.SIGKILL)
        daemon.start()
        assert listed(root) == [row]
        assert is_as_declared(root, daemon, place)
        create(root, "build", if_not_exists=("b", True))
        assert listed(root) == [row]

    def test_the_command(self, bus: PrivateBus, declared: Declared, place: Path) -> None:
        declared.write("build", *build(place))
        environment = {
            "PYTHONPATH": str(copy_program(bus.directory)),
            "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
            "PATH": os.environ["PATH"],
        }

        def ctl(*words: str) -> "subprocess.CompletedProcess[str]":
            command = [sys.executable, "-m", "mountnsd.ctl", *words]
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=30
            )

        up = ("create", "--quiet", "--if-not-exists", "--no-ask-password", "--", "build")
        down = ("destroy", "--quiet", "--kill", "--if-exists", "--no-ask-password", "--", "build")
        for words in (up, up, down, down):  # as mountns@.service does
            result = ctl(*words)
            assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), words
        assert ctl("destroy", "build").returncode == 1
        path = declared.write("build", a_mount("x", "here"))
        result = ctl(*up)
        assert result.returncode == 1
        assert f"{path}: mount[1].where: " in result.stderr


class TestWho:
    """Whoever may create it has it made, and it is root's."""

    def test_polkit_is_told(self, polkit: Polkit, user: Client, root: Client, declared: Declared) -> None:
        declared.write("build", 'propagation = "private"')
        assert refused(create, user, "build").name == DENIED
        polkit.allow(action("create"), user.uid)
        create(user, "build")
        assert listed(root)[0][3] == 0
        for question in polkit.questions():
            assert question.action == action("create")
            wanted = {"name": "build", "owner": "0", "declared": "yes", "propagation": "private"}
            assert question.details == wanted

    def test_what_a_bad_one_says_is_not_for_everybody(
        self, polkit: Polkit, user: Client, declared: Declared
    ) -> None:
        declared.write("build", 'password = "hunter2')
        error = refused(create, user, "build")
        assert error.name == DENIED
        assert "password" not in error.message
        assert dict(polkit.questions()[0].details) == {"name": "build", "owner": "0", "declared": "yes"}
        polkit.allow(action("create"), user.uid)
        assert refused(create, user, "build").name == INVALID

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("propagation", ("s", "slave")),
            ("from", ("s", "other")),
            ("description", ("s", "")),
            ("labels", ("a{ss}", {})),
        ],
    )
    def test_what_is_settled_cannot_be_given(
        self, polkit: Polkit, user: Client, root: Client, declared: Declared, option: str, value: Any
    ) -> None:
        path = declared.write("build")
        for client in (root, user):
            error = refused(create, client, "build", **{f"{option}_": value})
            assert error.name == INVALID
            assert option in error.message
            assert str(path) in error.message
        assert polkit.questions() == []
        assert names(root) == []

    def test_nobody_squats_on_the_name(
        self, polkit: Polkit, user: Client, root: Client, declared: Declared
    ) -> None:
        polkit.allow(action("create"), user.uid)
        create(user, "build")
        path = declared.write("build")
        for client in (root, user):
            error = refused(create, client, "build", if_not_exists=("b", True))
            assert error.name == EXISTS
            assert f"belongs to the user {user.uid}" in error.message
            assert str(path) in error.message
            assert refused(create, client, "build").name == EXISTS
        destroy(root, "build")
        for _ in range(2):
            create(user, "build", if_not_exists=("b", True))
        assert listed(root)[0][3] == 0

    def test_not_while_polkit_thinks_either(
        self, polkit: Polkit, user: Client, root: Client, declared: Declared
    ) -> None:
        """What was allowed is what is made, or nothing."""
        polkit.allow(action("create"), user.uid)
        for before, after in ((None, ""), ("", 'description = "x"'), ("", None), ("", "x")):
            path = declared.write("build", before or "")
            if before is None:
                path.unlink()
            polkit.hold()
            number = len(polkit.questions())
            call = user.send(
                "/org/mountnsd1", "org.mountnsd1.Manager", "Create", "sa{sv}", "build", {}, flags=INTERACTIVE
            )
            polkit.wait_for_questions(number + 1)
            if after is None:
                path.unlink()
            else:
                declared.write("build", after)
            polkit.release()
            error = refused(user.reply, call)
            assert error.name == FAILED
            assert "changed while" in error.message
        assert names(root) == []

    def test_root_has_no_limit_on_what_is_declared(
        self, bus: PrivateBus, directory: Path, polkit: Polkit, daemon: Daemon, user: Client, root: Client
    ) -> None:
        daemon.stop()
        (directory / "limited").mkdir()
        with Daemon(bus, directory / "limited", "max_namespaces_per_user = 0") as limited:
            Declared(limited).write("build")
            polkit.allow(action("create"), user.uid)
            assert refused(create, user, "mine").name.endswith("LimitsExceeded")
            create(user, "build")
            assert listed(root)[0][3] == 0


class TestRefused:
    """What is wrong is said, and nothing is made."""

    @pytest.fixture(autouse=True)
    def _nothing_is_made(self, daemon: Daemon, root: Client) -> Iterator[None]:
        signals = root.signals(path=PATH, interface=MANAGER)
        yield
        assert names(root) == []
        assert daemon.pinned() == set()
        assert os.listdir(daemon.pins) == os.listdir(daemon.runtime / "meta") == []
        assert signals.drain() == []
        signals.close()

    def test_a_bad_one(self, root: Client, declared: Declared) -> None:
        for text, key in (("x", "line 1"), ("x = 1", "x"), (a_mount("t", "/a/../b"), "mount[1].where")):
            path = declared.write("build", text)
            error = refused(create, root, "build")
            assert error.name == INVALID
            assert error.message.startswith(f"{path}: {key}: ")
            assert refused(create, root, "build", description=("s", "x")).message == error.message

    def test_one_that_is_not_roots_alone(self, root: Client, declared: Declared, uid: int) -> None:
        path = declared.write("build")
        path.chmod(0o666)
        error = refused(create, root, "build")
        assert (error.name, error.message.startswith(f"{path}: This must belong to root")) == (FAILED, True)
        path.chmod(0o644)
        os.chown(path, uid, 0)
        assert refused(create, root, "build").name == FAILED
        path.unlink()
        path.symlink_to("/dev/null")
        assert "symbolic link" in refused(create, root, "build").message

    def test_a_link_on_the_way(self, root: Client, declared: Declared, place: Path) -> None:
        (place / "link").symlink_to("in")
        path = declared.write("build", a_mount("t", place / "link" / "x", options="X-mount.mkdir"))
        error = refused(create, root, "build")
        assert error.message.startswith(f"{path}: mount[1]: ")
        assert f"'{place}/link' is a symbolic link" in error.message
        assert "(ELOOP)" in error.message

    def test_what_a_bind_shows_is_the_hosts(self, root: Client, declared: Declared, place: Path) -> None:
        declared.write(
            "build",
            a_mount("t", place / "sources"),
            a_mount(place / "sources/main.c", place / "in", "", "bind"),
        )
        assert "a file over a file" in refused(create, root, "build").message


@pytest.mark.parametrize("propagation", ["slave", "shared", "private", "unchanged"])
def test_a_mount_that_fails_undoes_those_before_it(
    daemon: Daemon, root: Client, declared: Declared, place: Path, propagation: str
) -> None:
    path = declared.write(
        "build",
        f'propagation = "{propagation}"',
        a_mount("t", place / "in"),
        a_mount("t", place / "upper"),
        a_mount(place / "none", place / "work", "", "bind"),
    )
    fds = daemon.open_fds()
    error = refused(create, root, "build")
    assert error.name == MOUNT_FAILED
    for part in (f"{path}: mount[3]: ", f"'{place}/work'", "openat2", "(ENOENT)"):
        assert part in error.message
    assert leaks.mounts_below(place) == []
    assert (names(root), daemon.pinned(), daemon.open_fds()) == ([], set(), fds)
    (place / "none").mkdir()
    create(root, "build")
    destroy(root, "build")
    for mount in leaks.mounts_below(place)[::-1]:  # where it is shared they were made on the host, too
        leaks.detach(mount)


@pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)
def test_what_is_shared_with_the_host_is_undone_there(directory: Path, place: Path) -> None:
    """With `shared`, what is mounted inside is on the host, too: what fails must not leave it there."""
    text = 'propagation = "shared"\n' + a_mount("t", place / "in") + a_mount("t", place / "upper")
    fails = a_mount(place / "none", place / "work", "", "bind")

    def made(words: str) -> tuple[str, int]:
        found, wrong = declaration.examine("build", "FILE", words.encode())
        assert wrong == []
        with Ground(directory) as ground:
            error = ""
            try:
                asyncio.run(ground.registry.create("build", 0, found.options))
            except MountFailed as failure:
                error = failure.message
            return error, len(leaks.mounts_below(place))

    assert contained(lambda: made(text)) == ("", 2)
    error, left = contained(lambda: made(text + fails))
    assert ("mount[3]" in error, left) == (True, 0)
