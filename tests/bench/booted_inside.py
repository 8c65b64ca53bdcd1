# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes on in a booted machine: programs entered in units of their own, beside what systemd and util-linux have.

It runs in the machine, as root and on its own, with what the package depends on, by `python3 -I`.

    booted_inside.py enter ROUNDS           every round takes each of them once, in turn, with a pause for the manager
                                            to tidy up; prints one JSON object, the median of each in milliseconds
    booted_inside.py make FIRST LAST PAUSE  makes the namespaces of these numbers, so many seconds apart; 0: at once
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from jeepney import DBusAddress, HeaderFields, MatchRule, Message, MessageType, new_method_call
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection

_NAME = "bench"
_MANAGER = DBusAddress("/org/mountnsd1", "org.mountnsd1", "org.mountnsd1.Manager")
_TIMEOUT = 20.0
_IN_FLIGHT = 16
_PAUSE = 0.03  # seconds; the units of what has ended are taken away meanwhile
_WARM = 3  # rounds that do not count
_PIN = f"--mount=/run/mountnsd/ns/{_NAME}"

PEERS = {
    "systemd-run": ["systemd-run", "--quiet", "--pipe", "--wait", "nsenter", _PIN, "/bin/true"],
    "scope": ["systemd-run", "--quiet", "--scope", "nsenter", _PIN, "/bin/true"],
    "nsenter": ["nsenter", _PIN, "/bin/true"],
}


class Enterer:
    """A connection that enters a program, and waits until it is told how that ended."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        rule = MatchRule(type="signal", interface=_MANAGER.interface, member="Exited")
        self._exits = connection.filter(rule, bufsize=16).__enter__()
        connection.send_and_get_reply(message_bus.AddMatch(rule), timeout=_TIMEOUT)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def call(self, member: str, signature: str, *body: object) -> tuple[object, ...]:
        """Call a method of the manager.  Raises RuntimeError with what it answers."""
        call = new_method_call(_MANAGER, member, signature, body)
        answer = self._connection.send_and_get_reply(call, timeout=_TIMEOUT)
        if HeaderFields.error_name in answer.header.fields:
            raise RuntimeError(f"{member}: {answer.body}")
        return tuple(answer.body)

    def enter(self) -> None:
        """Enter /bin/true, with three descriptors as `systemd-run --pipe` passes them; until its Exited."""
        fds = dict.fromkeys(range(3), self._null)
        pid, pidfd = self.call("Enter", "sasa{uh}a{sv}", _NAME, ["/bin/true"], fds, {})
        while (told := self._connection.recv_until_filtered(self._exits, timeout=_TIMEOUT)).body[0] != pid:
            pass
        pidfd.close()  # type: ignore[attr-defined]
        if tuple(told.body[2:]) != (os.CLD_EXITED, 0):
            raise RuntimeError(f"/bin/true ended with {told.body}")


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def _ran(command: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


def make(first: int, last: int, pause: float) -> None:
    """Make namespaces.  Raises RuntimeError with what the daemon answers."""
    with (
        open_dbus_connection("SYSTEM", enable_fds=True) as connection,
        connection.filter(_ANSWERS) as answers,
    ):
        flying = 0
        for number in range(first, last + 1):
            connection.send(new_method_call(_MANAGER, "Create", "sa{sv}", (f"bench-{number}", {})))
            flying += 1
            while flying and (pause or number == last or flying >= _IN_FLIGHT):
                answer = connection.recv_until_filtered(answers, timeout=_TIMEOUT)
                if HeaderFields.error_name in answer.header.fields:
                    raise RuntimeError(str(answer.body))
                flying -= 1
            time.sleep(pause)


class _Answers:
    """What jeepney takes for a rule: all answers."""

    def matches(self, message: Message) -> bool:
        """Whether it is one."""
        return message.header.message_type in (MessageType.method_return, MessageType.error)


_ANSWERS = _Answers()


def enter(rounds: int) -> None:
    """Measure, and print what came out."""
    with open_dbus_connection("SYSTEM", enable_fds=True) as connection:
        enterer = Enterer(connection)
        enterer.call("Create", "sa{sv}", _NAME, {})
        try:
            works = {"enter": enterer.enter, **{name: _ran(command) for name, command in PEERS.items()}}
            took: dict[str, list[float]] = {name: [] for name in works}
            for number in range(_WARM + rounds):
                for name, work in works.items():
                    time.sleep(_PAUSE)
                    milliseconds = _timed(work)
                    if number >= _WARM:
                        took[name].append(milliseconds)
        finally:
            enterer.call("Destroy", "sa{sv}", _NAME, {"kill": ("b", True)})
    print(json.dumps({name: statistics.median(values) for name, values in took.items()}))


if __name__ == "__main__":
    if sys.argv[1] == "enter":
        enter(int(sys.argv[2]))
    else:
        make(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
