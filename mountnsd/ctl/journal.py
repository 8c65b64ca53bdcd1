# SPDX-License-Identifier: LGPL-2.1-or-later
"""The last lines that the journal has on a namespace: journalctl(1), where there is one and as far as the user may.

Source: systemd.journal-fields(7).
"""

from __future__ import annotations

import os
import subprocess

from mountnsd import names

_PROGRAM = "journalctl"
_SECONDS = 10.0
_MANAGER = "_PID=1"  # systemd, and not somebody who says that he speaks for a unit


def lines(name: str, number: int) -> list[str]:
    """The newest lines on the namespace `name`, the oldest first; none where they cannot be had.

    What mountnsd says of it, what systemd says of its unit, and what is written by the programs that were entered.
    """
    if not number:
        return []
    matches = (
        (f"MOUNTNS_NAME={name}",),
        (f"UNIT={names.keeper_of(name)}", _MANAGER),
        (f"_SYSTEMD_UNIT={names.keeper_of(name)}",),
        (f"_SYSTEMD_SLICE={names.slice_of(name)}",),
    )
    command = [_PROGRAM, "--quiet", "--no-pager", "--no-hostname", "--output=short", f"--lines={number}"]
    for position, match in enumerate(matches):
        command += (["+"] if position else []) + list(match)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_URLIFY": "0"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else []
