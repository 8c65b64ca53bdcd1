# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make bench`: measure everything in one run, print the tables, and write the page, its picture and the figures."""

import argparse
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.roots import RootError

from . import ground as grounds
from . import host, marshal, page, scale, table
from .floor import FloorError
from .installed import HOLDERS
from .page import Report
from .scale import Plan

_REPORT = Path("docs/performance.md")
_JSON = Path("build/bench.json")
_COMMAND = "sudo make bench"
_ENDING = (signal.SIGINT, signal.SIGTERM)


class Say:
    """Tells what goes on, and how long it has taken so far."""

    def __init__(self, begun: float) -> None:
        self._begun = begun

    def __call__(self, what: str) -> None:
        """Say something."""
        print(f"{time.monotonic() - self._begun:6.1f} s  {what}", flush=True)


def _interrupted(_number: int, _frame: object) -> None:
    """Take everything down and end; who presses Ctrl-C again waits for that."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure mountnsd beside what one would use instead."
    )
    parser.add_argument("--rounds", type=int, help="of each operation (default: 51)")
    parser.add_argument("--report", type=Path, default=_REPORT, help="the page (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=_JSON, help="the figures (default: %(default)s)")
    parser.add_argument("--holder", choices=HOLDERS, help="this one alone")
    parser.add_argument("--quick", action="store_true", help="few of everything: to see that it works")
    return parser.parse_args()


def plan(quick: bool, rounds: int | None, say: Say) -> Plan:
    """How much is to be measured."""
    if quick:
        return Plan(3, 10, 20, rounds or 2, 1, 32, 1, 0.5, say)
    chosen = rounds or 51
    return Plan(10, 1000, 10_000, chosen, max(chosen // 2, 1), 1000, 3, 5.0, say)


def _measured(chosen: argparse.Namespace, plan: Plan) -> Report:
    begun = host.load()
    lsns = scale.systems(plan.say, chosen.quick)
    with grounds.ground() as ground:
        kinds = [chosen.holder] if chosen.holder else [kind for kind in HOLDERS if scale.offers(ground, kind)]
        outcomes = [scale.measure(ground, kind, lsns, plan) for kind in kinds]
        libraries = {}
        if not chosen.quick:
            plan.say("marshalling, by dbus-next and dbus-fast")
            libraries = marshal.measure(ground.room("fast"), plan.many, plan.say)
    booted: Sequence[Mapping[str, object]] = ()
    trouble = ""
    try:
        booted = _booted(plan, chosen.quick)
    except (
        OSError,
        subprocess.SubprocessError,
        AssertionError,
        RuntimeError,
        RootError,
        FloorError,
    ) as error:
        trouble = (
            f"Booted systems could not be measured: {error}"  # the rest is worth its minutes all the same
        )
        plan.say(trouble)
    return Report(_command(chosen), plan, host.described(begun), outcomes, libraries, booted, trouble)


def _booted(plan: Plan, quick: bool) -> Sequence[Mapping[str, object]]:
    """What is measured in booted systems, where that part is there."""
    name = f"{__package__}.booted"
    if quick or importlib.util.find_spec(name) is None:
        return []
    plan.say("booted systems")
    found: list[dict[str, object]] = importlib.import_module(name).measure(plan.say, quick)
    return found


def _command(chosen: argparse.Namespace) -> str:
    words = [_COMMAND]
    words += [f"ROUNDS={chosen.rounds}"] if chosen.rounds else []
    words += ["QUICK=1"] if chosen.quick else []
    words += [f"REPORT={chosen.report}"] if chosen.report != _REPORT else []
    return " ".join(words)


def _write(report: Report, path: Path, json: Path) -> None:
    svg = path.with_suffix(".svg")
    for file, text in (
        (path, page.page(report, svg.name)),
        (svg, page.picture(report)),
        (json, page.figures(report)),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    print(f"\nwritten: {path}, {svg}, {json}")


def main() -> int:
    """Returns 0 where everything could be measured, whatever the figures are, else 1."""
    chosen = _parsed()
    if os.geteuid() != 0:
        print("as root, please: it makes mount namespaces", file=sys.stderr)
        return 1
    for number in _ENDING:
        signal.signal(number, _interrupted)
    try:
        report = _measured(chosen, plan(chosen.quick, chosen.rounds, Say(time.monotonic())))
    except KeyboardInterrupt:
        print("\ninterrupted: all is taken down, nothing is written", file=sys.stderr)
        return 130
    print(
        "\n".join(
            [
                "",
                *page.summary(report),
                "",
                *table.of_growth(report.growth(), report.plan.few, report.plan.many),
            ]
        )
    )
    print("\n".join(["", *table.of_rows(report.rows())]))
    if report.booted:
        print("\n".join(["", *table.of_booted(report.booted)]))
    _write(report, chosen.report, chosen.json)
    if report.trouble:
        print(report.trouble, file=sys.stderr)
    return 1 if report.trouble else 0


if __name__ == "__main__":
    sys.exit(main())
