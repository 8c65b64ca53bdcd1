# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine that the figures are of, in words."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import mountnsd


def _first_line(*command: str) -> str:
    try:
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=False
        )
    except OSError:
        return "not there"
    return next(iter(result.stdout.splitlines()), "")


def model(cpuinfo: str) -> str:
    """The model of the processor, of /proc/cpuinfo; of another architecture than x86, nothing."""
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def load() -> float:
    """How many processes wanted to run in the last minute."""
    return os.getloadavg()[0]


def described(begun: float) -> dict[str, str]:
    """What the machine is.  Arguments: begun: the load before anything was measured."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    processor = model(Path("/proc/cpuinfo").read_text()) or platform.machine()
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "memory": f"{memory} MiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "util-linux": _first_line("unshare", "--version").rpartition(" ")[2],
        "iproute2": _first_line("ip", "-V").partition("iproute2-")[2].partition(",")[0],
        "bus": f"dbus-daemon {_first_line('dbus-daemon', '--version').rpartition(' ')[2]}",
        "Python": platform.python_version(),
        "mountnsd": mountnsd.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load before": f"{begun:.2f}",
    }
