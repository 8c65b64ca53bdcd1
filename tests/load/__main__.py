# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make soak`: a run of some minutes, its tables, and docs/soak.md where that is asked for."""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import leaks

from . import held, report, soak


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory that all users can reach; what is mounted in it at the end is detached."""
    path = Path(tempfile.mkdtemp(prefix="mountnsd-soak-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        for mount in leaks.mounts_below(path)[::-1]:
            leaks.detach(mount)
        shutil.rmtree(path)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Returns 0 where every promise was kept, else 1."""
    parser = argparse.ArgumentParser(
        prog="load", description="Keep the daemon under load, and see that all is well."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, help="of all that is random; printed, by default another one each time"
    )
    parser.add_argument("--bus", choices=("dbus-daemon", "dbus-broker"), default="dbus-daemon")
    parser.add_argument("--report", type=Path, help="write this document, with what 10,000 namespaces cost")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        print("as root, please: it makes mount namespaces", file=sys.stderr)
        return 1
    seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
    plan = soak.Plan(chosen.minutes * 60, seed, chosen.bus, pause=max(3.0, chosen.minutes * 1.2), say=_say)
    _say(f"{chosen.minutes:g} minutes on {plan.bus}, SEED={seed}")
    leaks.become_subreaper()
    with _directory() as directory:
        world = asyncio.run(soak.run(plan, directory))
    _say("\n".join(["", *report.lines(world, plan), ""]))
    for what in world.wrong:
        _say(f"BROKEN: {what}")
    if chosen.report is not None:
        _say(f"and now {held.MANY} namespaces, for {chosen.report}")
        with _directory() as directory, held.holding(directory) as many:
            held.story(many)
            many.drop(many.names[::20])
            many.kill_and_start()
            report.write(chosen.report, world, plan, many.figures)
    return 1 if world.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
