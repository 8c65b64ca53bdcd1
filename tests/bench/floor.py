# SPDX-License-Identifier: LGPL-2.1-or-later
"""The small process that runs and times what is not the daemon's: programs, and bare system calls.

floor.c says why, and what it can do.  Out of scope: what the times mean.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.closing import Closing

_SOURCE = Path(__file__).with_name("floor.c")
_ENDING = 60.0  # seconds, for a program that it waits for


class FloorError(Exception):
    """What was to be timed did not work."""


def build(directory: Path) -> Path:
    """Compile the program into a directory.  Raises: subprocess.CalledProcessError with what gcc(1) said."""
    program = directory / "floor"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-pthread", "-o", str(program), str(_SOURCE)]
    subprocess.run(command, check=True)
    return program


class Floor(Closing):
    """The program, running; a context manager that ends it.

    Arguments: program: of `build`; environment: of all that it runs.
    """

    def __init__(self, program: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            cwd="/",
            text=True,
            start_new_session=True,  # Ctrl-C is for the harness, which ends this when all is taken down
        )

    def ask(self, *fields: str) -> float:
        """Have something done; returns how long it took, in ms.

        Raises: FloorError where it failed.
        """
        elapsed, status = self.attempt(*fields)
        if status < 0:
            raise FloorError(f"{' '.join(fields)}: {os.strerror(-status)}")
        if status > 0:
            raise FloorError(f"{' '.join(fields)}: status {status}")
        return elapsed

    def attempt(self, *fields: str) -> tuple[float, int]:
        """As `ask`, but returns also the status: of a program, or minus an errno."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(fields) + "\n")
        self._process.stdin.flush()
        nanoseconds, status = self._process.stdout.readline().split()
        return int(nanoseconds) / 1e6, int(status)

    def run(self, *command: str) -> float:
        """Run a program to its end, without input and output; returns the ms.  Raises: FloorError."""
        return self.ask("run", *command)

    def close(self) -> None:
        """End it, once what it does is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(_ENDING)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
