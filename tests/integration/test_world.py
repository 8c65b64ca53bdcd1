# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world of the tests is real: buses enforce, polkit answers, frames arrive, leaks are seen."""

import grp
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.buses import PrivateBus
from support.client import (
    BUS_NAME,
    BUS_PATH,
    INTERACTIVE,
    MANAGER,
    NAMESPACE,
    PATH,
    PROPERTIES,
    Client,
    DBusError,
)
from support.identity import Peer
from support.polkit import AUTHORITY, Polkit, RealPolkit
from support.polkit import NAME as POLKIT_NAME
from support.polkit import PATH as POLKIT_PATH
from support.raw import DESTINATION as TO
from support.raw import INTERFACE, MEMBER, SIGNAL, Field, RawConnection, frame, marshal
from support.raw import PATH as OBJECT
from support.stub import Owner

from demo.embedded import SHIPPED_POLICY

DENIED = "org.freedesktop.DBus.Error.AccessDenied"
TREE = Path(__file__).resolve().parents[2]


def allowed() -> list[tuple[str, str, bool]]:
    """What the shipped policy lets anybody send: interface, member, whether descriptors may come along."""
    rules = ET.parse(SHIPPED_POLICY).findall("policy[@context='default']/allow")
    return [
        (rule.attrib["send_interface"], rule.attrib["send_member"], "max_fds" not in rule.attrib)
        for rule in rules
    ]


@pytest.fixture
def owner(bus: PrivateBus) -> Iterator[Owner]:
    """Somebody who owns the daemon's name and answers whatever reaches him."""
    with Owner(bus.address) as running:
        yield running


class TestPolicy:
    """Both buses enforce the shipped file, and understand all of it."""

    def test_loads_without_a_warning(self, bus: PrivateBus, root: Client) -> None:
        assert root.bus_call("GetId")[0]
        for word in ("nknown", "nvalid", "onflict", "gnored", "org.mountnsd1.conf"):
            assert word not in bus.log()

    def test_only_root_may_own_the_name(self, bus: PrivateBus, uid: int) -> None:
        with pytest.raises(PermissionError, match="AccessDenied"):
            Owner(bus.address, uid)
        with Owner(bus.address):
            pass

    def test_only_root_may_be_polkit(self, bus: PrivateBus, uid: int) -> None:
        with pytest.raises(PermissionError, match="AccessDenied"):
            Owner(bus.address, uid, POLKIT_NAME)

    def test_what_is_allowed_arrives(self, owner: Owner, user: Client) -> None:
        for interface, member, _ in allowed():
            assert user.call(PATH, interface, member) == (member, 0)
        assert owner.members() == [member for _, member, _ in allowed()]

    @pytest.mark.parametrize(
        ("interface", "member"),
        [
            (MANAGER, "Format"),
            (MANAGER, "GetMounts"),
            (NAMESPACE, "Create"),
            ("org.mountnsd1.Other", "List"),
            ("org.freedesktop.DBus.Mock", "List"),
            (PROPERTIES, "Set"),
            (None, "List"),
        ],
    )
    def test_what_is_not_allowed_is_denied(
        self, owner: Owner, user: Client, interface: str | None, member: str
    ) -> None:
        with pytest.raises(DBusError) as refusal:
            user.call(PATH, interface, member)
        assert refusal.value.name == DENIED
        assert owner.received == []

    def test_descriptors_only_with_enter(self, owner: Owner, user: Client) -> None:
        with Path("/dev/null").open() as null:
            for interface, member, takes_fds in allowed():
                if takes_fds:
                    assert member == "Enter"
                    assert user.call(PATH, interface, member, fds=[null.fileno()] * 3) == (member, 3)
                else:
                    with pytest.raises(DBusError) as refusal:
                        user.call(PATH, interface, member, fds=[null.fileno()])
                    assert refusal.value.name == DENIED
        assert owner.members() == ["Enter", "Enter"]

    def test_no_signal_to_the_daemon(self, bus: PrivateBus, owner: Owner, uid: int) -> None:
        fields = [
            Field(OBJECT, "o", "/"),
            Field(INTERFACE, "s", MANAGER),
            Field(MEMBER, "s", "Forged"),
            Field(TO, "s", "org.mountnsd1"),
        ]
        with RawConnection(bus.address, uid) as raw:
            raw.send(frame(fields, kind=SIGNAL, flags=1, serial=raw.next_serial()))
            raw.reply(raw.call(PATH, MANAGER, "List"))
        assert owner.members() == ["List"]

    def test_root_may_send_anything(self, owner: Owner, root: Client) -> None:
        assert root.call(PATH, MANAGER, "Anything") == ("Anything", 0)
        assert owner.members() == ["Anything"]


class TestClients:
    """Clients are who they say, and what they are sent arrives."""

    def test_identity_as_the_bus_sees_it(self, bus: PrivateBus, root: Client, uid: int) -> None:
        with Client(bus.address, uid, gid=7, groups=[7, 8]) as client:
            credentials = root.bus_call("GetConnectionCredentials", "s", client.unique_name)[0]
            assert credentials["UnixUserID"] == ("u", uid)
            assert credentials["ProcessID"] == ("u", client.pid)
            assert set(credentials["UnixGroupIDs"][1]) == {7, 8}
            assert Path(f"/proc/{client.pid}/status").read_text().count(f"Uid:\t{uid}\t{uid}\t{uid}") == 1
        assert not leaks.alive(client.pid)

    def test_nobody_can_pretend_to_be_root(self, bus: PrivateBus, uid: int) -> None:
        script = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(b'\\0AUTH EXTERNAL 30\\r\\n'); print(s.recv(99))"
        )
        command = [sys.executable, "-I", "-c", script, str(bus.socket)]
        answer = subprocess.run(
            command, user=uid, group=uid, extra_groups=[], capture_output=True, check=True, timeout=10
        )
        assert b"REJECTED" in answer.stdout

    def test_descriptors_both_ways(self, bus: PrivateBus, owner: Owner, root: Client) -> None:
        del owner
        reading, writing = os.pipe()
        try:
            answer = root.call(PATH, MANAGER, "Enter", "a{uh}", {1: writing})
            assert answer == ("Enter", 1)
        finally:
            os.close(reading)
            os.close(writing)
        with RawConnection(bus.address) as first, Path("/dev/null").open() as null:
            fields = [Field(OBJECT, "o", "/"), Field(INTERFACE, "s", MANAGER), Field(MEMBER, "s", "Here")]
            fields += [Field(TO, "s", root.unique_name), Field(8, "g", "h"), Field(9, "u", 1)]
            with root.signals(MANAGER, "Here") as here:
                message = frame(fields, marshal("h", 0), kind=SIGNAL, serial=first.next_serial())
                first.send(message, [null.fileno()])
                descriptor = here.wait().body[0]
                assert os.fstat(descriptor.fileno()).st_rdev == os.stat("/dev/null").st_rdev
                descriptor.close()

    def test_signals_wait_and_do_not_wait_for_ever(self, bus: PrivateBus, root: Client) -> None:
        with root.signals(BUS_NAME, "NameOwnerChanged", sender=BUS_NAME) as changes:
            with Client(bus.address) as other:
                pass
            seen = changes.wait(accept=lambda signal: signal.body[0] == other.unique_name)
            assert seen.sender == BUS_NAME
            assert seen.path == BUS_PATH
            changes.drain()
            with pytest.raises(TimeoutError, match="NameOwnerChanged"):
                changes.wait(0.05)

    def test_answers_can_be_late_and_waiting_ends(self, user: Client) -> None:
        first = user.send(BUS_PATH, BUS_NAME, "GetId", destination=BUS_NAME)
        assert user.reply(first)[0]
        with pytest.raises(TimeoutError):
            user.reply(first, 0.05)

    def test_leaving_is_seen_by_the_bus(self, root: Client, bus: PrivateBus, uid: int) -> None:
        client = Client(bus.address, uid)
        client.close()
        root.wait_for_name(client.unique_name, present=False)

    def test_a_restarted_bus_has_forgotten_everybody(self, bus: PrivateBus) -> None:
        before = bus.pid
        with RawConnection(bus.address) as raw:
            bus.restart()
            assert raw.hung_up()
        assert bus.pid != before
        assert not leaks.alive(before)
        with Client(bus.address) as client:
            assert client.bus_call("GetId")[0]

    def test_a_refused_connection_says_why(self, tmp_path: Path) -> None:
        with pytest.raises(ConnectionError, match="No such file"):
            Peer(f"unix:path={tmp_path}/none")


class TestRaw:
    """Frames arrive as they were built, and the bus's answer to what it does not like is seen."""

    def test_a_call_by_hand(self, bus: PrivateBus, owner: Owner, uid: int) -> None:
        with RawConnection(bus.address, uid) as raw:
            body = marshal("sa{sv}", "name", {"description": ("s", "text")})
            serial = raw.call(PATH, MANAGER, "Create", "sa{sv}", body, flags=INTERACTIVE)
            assert raw.reply(serial).decode() == ("Create", 0)
            [message] = owner.received
            assert message.decode() == ("name", {"description": ("s", "text")})
            assert message.flags & INTERACTIVE
            assert message.fields[7] == raw.unique_name

    @pytest.mark.parametrize(
        ("signature", "body", "overrides"),
        [
            ("s", b"\xff\xff\xff\x7f", {}),
            ("s", b"\1\0\0\0aa", {}),
            ("", b"body", {}),
            ("zz", b"", {}),
            ("", b"", {"version": 9}),
            ("", b"", {"fields_length": 1 << 30}),
            ("", b"", {"serial": 0}),
        ],
    )
    def test_what_no_bus_takes(
        self, bus: PrivateBus, owner: Owner, signature: str, body: bytes, overrides: dict[str, int]
    ) -> None:
        with RawConnection(bus.address) as raw:
            raw.call(PATH, MANAGER, "Create", signature, body, overrides=overrides)
            assert raw.hung_up()
        assert owner.received == []

    def test_what_every_bus_takes(self, bus: PrivateBus, owner: Owner, uid: int) -> None:
        with RawConnection(bus.address, uid) as raw:
            for extra in (Field(42, "s", "unknown"), Field(200, "a{sv}", {"deep": ("v", ("u", 1))})):
                serial = raw.call(PATH, MANAGER, "List", extra=[extra])
                assert raw.reply(serial).decode() == ("List", 0)
        assert owner.members() == ["List", "List"]

    def test_no_hello_no_calls(self, bus: PrivateBus, owner: Owner) -> None:
        with RawConnection(bus.address, hello=False) as raw:
            raw.call(PATH, MANAGER, "List")
            assert raw.hung_up()
        assert owner.received == []


class TestRecordingPolkit:
    """The recording polkit keeps what it is asked and answers as it is told."""

    ACTION = "org.mountnsd1.enter"

    def ask(self, client: Client, flags: int = 0, cancellation: str = "") -> int:
        """Ask about the client itself; returns the serial."""
        subject = ("system-bus-name", {"name": ("s", client.unique_name)})
        question = (subject, self.ACTION, {"name": "build"}, flags, cancellation)
        signature = "(sa{sv})sa{ss}us"
        return client.send(
            POLKIT_PATH, AUTHORITY, "CheckAuthorization", signature, *question, destination=POLKIT_NAME
        )

    def answer(self, client: Client, flags: int = 0) -> tuple[bool, bool]:
        """Ask and wait: authorized, challenge."""
        authorized, challenge, _ = client.reply(self.ask(client, flags))[0]
        return bool(authorized), bool(challenge)

    def test_records(self, polkit: Polkit, user: Client) -> None:
        assert self.answer(user) == (False, False)
        [question] = polkit.wait_for_questions()
        assert question.action == self.ACTION
        assert (question.kind, question.subject) == ("system-bus-name", {"name": user.unique_name})
        assert (question.uid, question.flags) == (user.uid, 0)
        assert question.details == {"name": "build"}

    def test_verdicts(self, polkit: Polkit, user: Client, root: Client) -> None:
        polkit.allow(self.ACTION, user.uid)
        assert self.answer(user) == (True, False)
        assert self.answer(root) == (False, False)
        polkit.deny(self.ACTION, user.uid)
        polkit.allow(self.ACTION)
        assert self.answer(user) == (False, False)
        assert self.answer(root) == (True, False)

    def test_challenge(self, polkit: Polkit, user: Client) -> None:
        polkit.challenge(self.ACTION)
        assert self.answer(user) == (False, True)
        assert self.answer(user, flags=1) == (True, False)
        polkit.challenge(self.ACTION, passes=False)
        assert self.answer(user, flags=1) == (False, False)

    def test_late_answers_and_cancellation(self, polkit: Polkit, user: Client) -> None:
        polkit.hold()
        first, second = self.ask(user, cancellation="one"), self.ask(user, cancellation="two")
        polkit.wait_for_questions(2)
        assert polkit.held() == 2
        with pytest.raises(TimeoutError):
            user.reply(first, 0.05)
        cancel = "CancelCheckAuthorization"
        user.send(POLKIT_PATH, AUTHORITY, cancel, "s", "two", destination=POLKIT_NAME)
        assert polkit.wait_for_cancelled() == ["two"]
        polkit.allow(self.ACTION)
        with pytest.raises(DBusError, match="cancelled"):
            user.reply(second)
        last = self.ask(user)
        assert polkit.release() == 2
        assert user.reply(last)[0][0]

    def test_only_root_has_the_controls(self, polkit: Polkit, user: Client) -> None:
        with pytest.raises(DBusError) as refusal:
            user.call(POLKIT_PATH, "org.freedesktop.DBus.Mock", "Hold", destination=polkit.client.destination)
        assert refusal.value.name == DENIED


class TestRealPolkit:
    """The real polkitd knows our actions and runs rules about groups and details."""

    RULE = """
    polkit.addRule(function(action, subject) {
        if (action.id == "org.mountnsd1.enter" && action.lookup("name") == "build" && subject.isInGroup("%s"))
            return polkit.Result.YES;
    });
    """

    def test_defaults_and_a_rule(self, bus: PrivateBus, directory: Path, user: Client) -> None:
        group = grp.getgrgid(os.stat(f"/proc/{user.pid}").st_gid).gr_name
        with RealPolkit(bus, directory, self.RULE % group) as polkit:
            assert polkit.check("org.mountnsd1.list", user.unique_name, {}) == (True, False)
            assert polkit.check("org.mountnsd1.enter", user.unique_name, {"name": "build"}) == (True, False)
            assert polkit.check("org.mountnsd1.enter", user.unique_name, {"name": "other"}) == (False, True)
            for action in ("create", "enter-as", "open", "mount", "destroy"):
                question = (f"org.mountnsd1.{action}", user.unique_name, {"name": "build"})
                assert polkit.check(*question) == (False, True), action
            with pytest.raises(DBusError, match="not registered"):
                polkit.check("org.mountnsd1.no-such-action", user.unique_name, {})

    def test_without_rules_nobody_enters(self, bus: PrivateBus, directory: Path, user: Client) -> None:
        with RealPolkit(bus, directory) as polkit:
            assert polkit.check("org.mountnsd1.enter", user.unique_name, {"name": "build"}) == (False, True)

    def test_the_host_is_not_touched(self, bus: PrivateBus, directory: Path) -> None:
        actions = Path("/usr/share/polkit-1/actions")
        before = sorted(actions.iterdir())
        with RealPolkit(bus, directory):
            assert sorted(actions.iterdir()) == before
            assert leaks.mounts_below(actions) == []
            assert leaks.mounts_below("/etc/polkit-1") == []


class TestLeaks:
    """What is left behind is seen."""

    def test_mounts(self, directory: Path) -> None:
        place = directory / "a place"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "leak", place], check=True)
        [mount] = leaks.mounts_below(directory)
        assert (mount.point, mount.fstype, mount.source) == (str(place), "tmpfs", "leak")
        leaks.detach(mount)
        assert leaks.mounts_below(directory) == []

    def test_processes(self) -> None:
        with subprocess.Popen(["sleep", "60"]) as process:
            assert process.pid in leaks.descendants()
            assert "sleep" in leaks.describe(process.pid)
            leaks.end(process.pid)
            assert not leaks.alive(process.pid)

    def test_descriptors(self) -> None:
        with Path("/dev/null").open() as null:
            assert leaks.fds_of(os.getpid())[null.fileno()] == "/dev/null"

    @staticmethod
    def run(directory: Path, body: str, ci: bool) -> "subprocess.CompletedProcess[bytes]":
        """Run one test in a run of its own, under the same conftest."""
        test = directory / "test_leak.py"
        test.write_text(f"from subprocess import run\ndef test_it(base):\n    {body}\n")
        (directory / "conftest.py").write_text((TREE / "tests" / "conftest.py").read_text())
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(directory),
        ]
        path = f"{TREE}:{TREE}/tests"
        environment = {"CI": "true" if ci else "", "PYTHONPATH": path, "TMPDIR": str(directory)}
        return subprocess.run(
            [*command, str(test)],
            env={**os.environ, **environment},
            cwd=directory,
            capture_output=True,
            timeout=60,
            check=False,
        )

    @pytest.mark.parametrize("leak", ["mount", "process", "directory", "skip"])
    def test_a_run_that_leaves_something_fails(self, leak: str, tmp_path: Path) -> None:
        bodies = {
            "mount": "p = base / 'm'; p.mkdir(); run(['mount', '-t', 'tmpfs', 'x', p], check=True)",
            "process": "import subprocess; subprocess.Popen(['sleep', '60'])",
            "directory": "(base / 'd').mkdir()",
            "skip": "import pytest; pytest.skip('no reason')",
        }
        result = self.run(tmp_path, bodies[leak], ci=True)
        assert result.returncode == 1, result.stdout.decode()
        if leak != "skip":
            assert b"the tests left behind: " + leak.encode() in result.stdout
        assert list(tmp_path.glob("mountnsd-test-*")) == []

    def test_a_skipped_test_is_no_failure_outside_ci(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "import pytest; pytest.skip('no reason')", ci=False).returncode == 0
