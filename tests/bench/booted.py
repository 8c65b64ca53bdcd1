# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured in booted systems: Enter beside systemd-run, what a namespace costs PID 1, and the way down.

The machines are those of the system tests: Debian in systemd-nspawn(1), with the package of this tree.  A machine
goes down by a reboot, which is as much work as a poweroff.

Out of scope: whatever needs no systemd (the other modules here).

Sources: the kernel's Documentation/scheduler/sched-stats.rst (/proc/PID/schedstat), systemd-run(1), machinectl(1).
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from support import deb, roots
from support.host import Host
from support.machine import Failed, Machine

Row = dict[str, object]

_INSIDE = Path(__file__).with_name("booted_inside.py")
_PROGRAM = f"/root/{_INSIDE.name}"
_NEEDED = ("mmdebstrap", "systemd-nspawn", "unshare", "nsenter")
_HOLDER = "/run/mountnsd/ns"
_CONFIG = "/etc/mountnsd/mountnsd.toml"

_ROUNDS, _LEVELS, _FEW_ROUNDS, _FEW = 36, (100, 1000, 5000), 5, (20,)
_DOWN_WITH = 1000  # namespaces there are when a machine goes down
_CHANGES = 12  # made one by one, to see what each costs
_APART = 0.25  # seconds between two of them: systemd takes together what comes at once
_QUIET = 0.5  # seconds in which PID 1 does next to nothing: it has seen everything
_PATIENCE = 30.0  # seconds to wait for that
_FILLING = 120.0  # seconds that it may take to make the namespaces that are to be there
_PER_RELEASE = 200.0  # seconds after which the largest numbers are left out

_ENTER_GOAL, _PID1_GOAL, _DOWN_GOAL = 0.8, 0.05, 1000.0
_PEERS = {
    "systemd-run": "systemd-run --pipe --wait nsenter",
    "scope": "systemd-run --scope nsenter",
    "nsenter": "nsenter",
}
_NOTES = {
    "systemd-run": "",
    "scope": "no exit status is kept; machinectl shell has no part in this: it takes a registered machine",
    "nsenter": "in no unit at all",
}


def measure(say: Callable[[str], None], quick: bool) -> list[Row]:
    """Measure in each release, or where it is to be quick in the newest; three minutes each.

    Arguments: say: told what goes on.
    Returns: what the page shows, a row each; none where machines cannot be booted here.
    """
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing:
        say(f"nothing is measured in booted systems without {', '.join(missing)}: 'make test-packages'")
        return []
    package = deb.build(say)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="mountnsd-bench-") as place:
        for release in roots.RELEASES[-1:] if quick else roots.RELEASES:
            try:
                tree = roots.tree(release, say)
                with Machine(release, tree, Path(place)) as machine:
                    _Measured(machine, say, quick, rows).all(package)
            except (Failed, roots.RootError) as error:
                say(f"Debian {release.name} was not measured to the end: {str(error)[-2000:]}")
    return rows


class _Measured:
    """One machine, where everything is measured once."""

    def __init__(self, machine: Machine, say: Callable[[str], None], quick: bool, rows: list[Row]) -> None:
        """Arguments: rows: to which what was measured is added."""
        self._machine = machine
        self._host = Host(machine)
        self._say = say
        self._quick = quick
        self._levels = _FEW if quick else _LEVELS
        self._down_with = self._levels[-1] if quick else _DOWN_WITH
        self._end = time.monotonic() + _PER_RELEASE
        self._rows = rows
        self._costs: dict[int, float] = {}  # of the host's holder, by how many there are
        self._alone = 0.0  # seconds that the machine takes to go down without a namespace

    def all(self, package: Path) -> None:
        """Measure everything.  Raises: machine.Failed."""
        self._tell("installing")
        self._host.install(package)
        self._machine.put(_INSIDE, _PROGRAM)
        self._enter()
        self._tell("going down without a namespace")
        self._alone = self._machine.reboot()
        for holder in ("host", "hidden"):
            if self._use(holder):
                self._grow(holder)
            else:
                self._tell("this mountnsd has no hidden holder")

    def _tell(self, what: str) -> None:
        self._say(f"Debian {self._machine.release.name}: {what}")

    def _enter(self) -> None:
        rounds = _FEW_ROUNDS if self._quick else _ROUNDS
        self._tell(f"Enter, and systemd-run, {rounds} times each")
        said = self._machine.out("python3", "-I", _PROGRAM, "enter", str(rounds), timeout=120)
        took: dict[str, float] = json.loads(said)
        for peer, command in _PEERS.items():
            goal = _ENTER_GOAL if peer == "systemd-run" else None
            self._row(
                "Enter /bin/true in a unit until it has ended",
                "host",
                took["enter"],
                (command, took[peer]),
                "" if goal is None else f"≤ {goal} ×",
                None if goal is None else took["enter"] <= goal * took[peer],
                _NOTES[peer],
            )

    def _use(self, holder: str) -> bool:
        """Have the daemon hold its pins so; there is no namespace.  False: it knows of no such holder."""
        run, there = self._machine.run, self._machine.path(_CONFIG)
        if holder == "host":
            return True
        before = there.read_text() if there.exists() else None
        self._machine.write(_CONFIG, f'holder = "{holder}"\n')
        run("systemctl", "restart", "mountnsd.service", check=False)
        if self._host.active("mountnsd.service"):
            return True
        if before is None:
            there.unlink()
        else:
            there.write_text(before)
        run("systemctl", "reset-failed", "mountnsd.service", check=False)
        run("systemctl", "restart", "mountnsd.service")
        return False

    def _grow(self, holder: str) -> None:
        """What a namespace costs PID 1, the more of them there are, and how the machine goes down with them."""
        made = 0
        for level in self._levels:
            if level > self._down_with and made <= self._down_with:
                self._down(holder, made)
                made = 0
            if made and time.monotonic() > self._end:
                self._tell(f"no time is left for {level} namespaces")
                break
            self._tell(f"holder {holder}: {level} namespaces")
            cost = self._cost(made, level)
            made = level
            if holder == "host":
                self._costs[level] = cost
            compared = self._costs.get(level) if holder != "host" else None
            self._row(
                f"PID 1's CPU for one more namespace, of {level}",
                holder,
                cost,
                ("host holder", compared),
                "" if holder == "host" else f"≤ {_PID1_GOAL} ms",
                None if holder == "host" else cost <= _PID1_GOAL,
                "",
            )
        if made <= self._down_with:
            self._down(holder, made)
        else:  # one by one, that would take systemd minutes
            self._machine.run("umount", "--lazy", _HOLDER)
            self._settled()
            self._machine.reboot()

    def _down(self, holder: str, number: int) -> None:
        """Go down with so many namespaces, and come up again with none."""
        self._tell(f"holder {holder}: going down with {number} namespaces")
        took = self._machine.reboot()
        more = (took - self._alone) * 1000
        self._row(
            f"going down with {number} namespaces",
            holder,
            took * 1000,
            ("the same without any", self._alone * 1000),
            "" if holder == "host" else "≤ 1 s more",
            None if holder == "host" else more <= _DOWN_GOAL,
            f"{more / 1000:+.1f} s",
        )

    def _cost(self, made: int, level: int) -> float:
        """Milliseconds of PID 1's for each of the last namespaces, of `level` in all."""
        last = level - _CHANGES
        self._make(made + 1, last, 0)
        self._settled()
        begun = time.monotonic()
        before = self._busy()
        self._make(last + 1, level, _APART)
        self._settled()
        took, busy = time.monotonic() - begun, self._busy() - before
        begun, before = time.monotonic(), self._busy()
        time.sleep(1.0)
        idle = (self._busy() - before) / (time.monotonic() - begun)
        return max(busy - idle * took, 0.0) * 1000 / _CHANGES

    def _make(self, first: int, last: int, pause: float) -> None:
        numbers = (str(first), str(last), str(pause))
        self._machine.run("python3", "-I", _PROGRAM, "make", *numbers, timeout=_FILLING)

    def _settled(self) -> None:
        """Wait until PID 1 has seen what there is to be seen."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            before = self._busy()
            time.sleep(_QUIET)
            if self._busy() - before < 0.01 * _QUIET:
                return

    def _busy(self) -> float:
        """The seconds that the machine's PID 1, which has one thread, has run."""
        return int(Path(f"/proc/{self._machine.pid}/schedstat").read_text().split()[0]) / 1e9

    def _row(
        self,
        operation: str,
        holder: str,
        ours: float,
        peer: tuple[str, float | None],
        goal: str,
        met: bool | None,
        note: str,
    ) -> None:
        name, theirs = peer
        row: Mapping[str, object] = {
            "operation": operation,
            "release": self._machine.release.name,
            "holder": holder,
            "peer": "" if theirs is None else name,
            "ours_ms": ours,
            "peer_ms": theirs,
            "ratio": ours / theirs if theirs else None,
            "goal": goal,
            "met": met,
            "note": note,
        }
        self._rows.append(dict(row))
