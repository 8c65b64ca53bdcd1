# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd-analyze(1) says of the units."""

import re
from collections.abc import Callable

from support.host import UNIT, Host


def _units(host: Host) -> list[str]:
    files = host.out("dpkg", "--listfiles", "mountnsd").splitlines()
    return [file.rpartition("/")[2] for file in files if re.search(r"/systemd/system/[^/]+\.\w+$", file)]


def test_the_units_are_as_systemd_wants_them(host: Host) -> None:
    units = _units(host)
    assert UNIT in units
    for unit in units:
        result = host.run("systemd-analyze", "verify", "--man=no", unit.replace("@.", "@verify."))
        assert (result.stdout, result.stderr) == ("", ""), unit


def _exposure(host: Host, unit: str) -> float:
    said = host.out("systemd-analyze", "security", "--no-pager", unit)
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert match, said
    return float(match[1])


def test_it_is_less_exposed_than_machined(
    host: Host, say: Callable[[str], None], record_property: Callable[[str, object], None]
) -> None:
    ours, theirs = _exposure(host, UNIT), _exposure(host, "systemd-machined.service")
    say(f"exposure on {host.machine.release.name}: {UNIT} {ours}, systemd-machined.service {theirs}")
    record_property("exposure", ours)
    record_property("exposure of systemd-machined.service", theirs)
    assert ours < theirs
