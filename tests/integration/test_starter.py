# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program in the unit of an entered process: it takes a plan over from the daemon, and becomes that process.

Here the tests are daemon and systemd in one; tests/system has the real ones.
"""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.entering import NOBODY, PLACE, ROOT, memory, request

from mountnsd import bundle, child, handover, program, starter
from mountnsd.descriptors import Descriptors

pytestmark = pytest.mark.usefixtures("tidy")

SECONDS = 20
CODE = bundle.made()


class Unit:
    """A starter that runs, and the daemon's ends of its two sockets."""

    def __init__(
        self, *, code: bytes = CODE, command: tuple[str, ...] = starter.COMMAND, **changes: Any
    ) -> None:
        self.sending, stdin = socket.socketpair()
        self.channel, self._theirs = socket.socketpair()
        for sock in (self.sending, self.channel):
            sock.settimeout(SECONDS)
        with stdin:
            pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            options: dict[str, Any] = pipes | changes
            self.process: subprocess.Popen[bytes] = subprocess.Popen(command, **options)
        self.sending.sendall(code)

    def hand_over(self, fd: int, *argv: str, kept: tuple[int, ...] = (1, 2), **changes: Any) -> None:
        """Send the plan of what `support.entering.request` takes."""
        with Path("/dev/null").open("rb") as null:
            asked = request(fd, *argv, fds={0: null.fileno()} | changes.pop("fds", {}), **changes)
            plan = program.plan(asked, asked.fds, self._theirs.fileno())
            header, data, fds = handover.pack(plan, kept)
            handover.send_header(self.sending, header, fds)
        self.sending.sendall(data)
        self._theirs.close()
        assert self.channel.recv(1) == starter.HELLO

    def go_on(self) -> bytes:
        """Let it go on; returns what it has to say until it runs or fails."""
        self.channel.sendall(child.START)
        told = b""
        while data := self.channel.recv(64):
            told += data
        return told

    def result(self) -> tuple[int, str]:
        """The exit status, and what was written to 1 and 2."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, (out + err).decode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=SECONDS)
        for sock in (self.sending, self.channel, self._theirs):
            sock.close()


@pytest.fixture
def unit() -> Iterator[Unit]:
    made = Unit()
    yield made
    made.close()


def test_it_becomes_the_process(unit: Unit, inside: int) -> None:
    unit.hand_over(inside, "sh", "-c", f'cat {PLACE}/hi-there; id -u; echo "$HOME $1"; exit 7', "sh", "é x")
    assert unit.go_on() == child.EXECUTING
    assert unit.result() == (7, "hello from inside\n0\n/root é x\n")


def test_as_somebody_else_with_nothing_of_roots(unit: Unit, inside: int) -> None:
    unit.hand_over(inside, "cat", "/proc/self/status", identity=NOBODY)
    assert unit.go_on() == child.EXECUTING
    status, text = unit.result()
    assert status == 0
    fields = dict(line.split(":\t", 1) for line in text.splitlines())
    assert fields["Uid"].split() == fields["Gid"].split() == ["65534"] * 4
    assert fields["Groups"].split() == ["100", "65534"]
    assert fields["NoNewPrivs"] == "1"
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}


def test_the_pid_does_not_change(unit: Unit, inside: int) -> None:
    """Systemd takes the process for the unit's main process, and the daemon holds a pidfd of it."""
    unit.hand_over(inside, "sh", "-c", "echo $$")
    unit.go_on()
    assert unit.result()[1] == f"{unit.process.pid}\n"


def test_it_has_the_descriptors_it_was_sent_and_no_others(unit: Unit, inside: int) -> None:
    with memory("sent") as file:
        unit.hand_over(
            inside, "ls", "-l", "/proc/self/fd", fds={1: file.fileno(), 7: file.fileno()}, kept=(2,)
        )
        unit.go_on()
        assert unit.result()[0] == 0
        file.seek(0)
        lines = file.read().decode().splitlines()[1:]
        shown = {link.split()[-1]: target for link, target in (line.split(" -> ") for line in lines)}
    assert {"0", "1", "2", "7"} <= shown.keys() <= {"0", "1", "2", "3", "7"}  # 3: ls's own
    assert shown["0"] == "/dev/null"
    assert shown["2"].startswith("pipe:")


def test_what_systemd_set_stays() -> None:
    """Limits and priorities are the unit's: an administrator sets them by a drop-in."""
    unit = Unit(preexec_fn=lambda: os.nice(3), umask=0o077)
    try:
        inside = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        unit.hand_over(inside, "sh", "-c", "nice; umask")
        os.close(inside)
        unit.go_on()
        assert unit.result()[1].split() == ["3", "0077"]
    finally:
        unit.close()


def test_a_step_that_fails_is_told(unit: Unit, inside: int) -> None:
    unit.hand_over(inside, "/nonexistent")
    told = unit.go_on()
    assert told[:1] == child.EXECUTING
    number, low, high = told[1:]
    assert (child.STEPS[number][0], low | high << 8) == ("execve", errno.ENOENT)
    assert unit.result() == (127, "")


def test_until_our_word_nothing_happens(unit: Unit, inside: int) -> None:
    unit.hand_over(inside, "sh", "-c", "echo ran")
    assert os.readlink(f"/proc/{unit.process.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    unit.channel.close()  # the daemon was killed
    assert unit.result() == (127, "")


def test_no_plan_no_process(unit: Unit) -> None:
    unit.sending.close()
    assert unit.result() == (127, "")


@pytest.mark.parametrize("most", [0, 7, 8, len(CODE) - 1])
def test_without_its_code_it_is_none(most: int) -> None:
    unit = Unit(code=CODE[:most])
    unit.sending.close()
    assert unit.result() == (127, "")
    unit.close()


def test_another_version_of_python_takes_the_files(inside: int) -> None:
    """As of an interpreter that was upgraded while the daemon ran: it cannot even read that code."""
    size = len(CODE) - 8
    begin = starter.COMMAND[-1].replace(f"=={sys.hexversion}:", "==1:")
    assert begin != starter.COMMAND[-1]
    unit = Unit(code=CODE[:8] + bytes(size), command=(*starter.COMMAND[:-1], begin))
    try:
        unit.hand_over(inside, "sh", "-c", f"cat {PLACE}/hi-there; exit 7")
        assert unit.go_on() == child.EXECUTING
        assert unit.result() == (7, "hello from inside\n")
    finally:
        unit.close()


def test_half_a_plan_is_none(unit: Unit, inside: int) -> None:
    header, data, _ = _packed(inside)
    handover.send_header(unit.sending, header, [inside, inside, inside])
    unit.sending.sendall(data[:-1])
    unit.sending.close()
    assert unit.result() == (127, "")


def test_another_versions_plan_is_refused(unit: Unit, inside: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was upgraded and has not been restarted yet."""
    monkeypatch.setattr(handover, "_FORMAT", 0)
    header, data, _ = _packed(inside)
    handover.send_header(unit.sending, header, [inside, inside, inside])
    unit.sending.sendall(data)
    status, text = unit.result()
    assert status == 127
    assert text == "The process cannot be started: Protocol error.\n"


def _packed(inside: int) -> tuple[bytes, bytes, list[int]]:
    asked = request(inside, "true", fds={0: inside})
    return handover.pack(program.plan(asked, asked.fds, inside))


def test_a_signal_on_the_way_ends_it_when_it_runs(unit: Unit, inside: int) -> None:
    unit.hand_over(inside, "sh", "-c", "echo ran")
    unit.process.send_signal(signal.SIGTERM)
    unit.go_on()
    assert unit.result() == (-signal.SIGTERM, "")


def test_nothing_of_the_environment_has_a_say_in_what_it_imports(inside: int, tmp_path: Path) -> None:
    for name in ("socket.py", "sitecustomize.py", "errno.py", "usercustomize.py"):
        (tmp_path / name).write_text("import os\nos._exit(66)\n")
    traps = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "socket.py"), "HOME": str(tmp_path)}
    unit = Unit(cwd=tmp_path, env=os.environ | traps)
    try:
        unit.hand_over(inside, "true", identity=ROOT)
        assert unit.go_on() == child.EXECUTING
        assert unit.result() == (0, "")
    finally:
        unit.close()


def test_what_a_caller_sent_goes_on_in_its_parcel(unit: Unit, inside: int) -> None:
    with memory("theirs") as file:
        parcel = Descriptors([os.dup(file.fileno())])
        passed = program.Passed(parcel, {1: 0})
        unit.hand_over(inside, "sh", "-c", "echo to them", passed=passed, kept=(2,))
        unit.go_on()
        assert unit.result()[0] == 0
        file.seek(0)
        assert file.read() == b"to them\n"
        parcel.close()
