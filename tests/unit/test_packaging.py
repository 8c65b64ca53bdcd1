# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packages say the same as pyproject.toml: version, dependencies, summary."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import mountnsd

TREE = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
MAKEFILE = (TREE / "Makefile").read_text()
CONTROL = (TREE / "packaging/debian/control").read_text()
CHANGELOG = (TREE / "packaging/debian/changelog").read_text()
SPEC = (TREE / "packaging/rpm/mountnsd.spec").read_text()

# What a project on PyPI is called as a package; the same on Debian and on Fedora.
PACKAGES = {
    "dbus-next": "python3-dbus-next",
    "jeepney": "python3-jeepney",
    "systemd-python": "python3-systemd",
}
# What is no Python project: as Debian and as Fedora have it.
DEBIAN_SYSTEM = {"default-dbus-system-bus | dbus-system-bus": "", "systemd": ""}
FEDORA_SYSTEM = {"dbus": "", "systemd": ""}
FEDORA_NAMES = {"polkitd": "polkit"}

SCRIPTS = [
    TREE / "packaging/debian/mountnsd.postinst",
    TREE / "packaging/debian/mountnsd.postrm",
    TREE / "packaging/debian/tests/smoke",
    TREE / ".ci/run",
]


def field(name: str) -> list[str]:
    """A list of packages in the control file, without what debhelper fills in."""
    match = re.search(rf"^{name}:\n((?: .*\n|#.*\n)+)", CONTROL, re.MULTILINE)
    assert match, f"there is no {name}"
    lines = [line.strip().rstrip(",") for line in match[1].splitlines() if line.startswith(" ")]
    return [line for line in lines if not line.startswith("${")]


def debian(name: str) -> dict[str, str]:
    """Packages and the lowest version of each, empty for any."""
    found = [re.fullmatch(r"(.+?)(?: \(>= (.+)\))?", entry) for entry in field(name)]
    return {match[1]: match[2] or "" for match in found if match}


def fedora(tag: str) -> dict[str, str]:
    """The same of the spec file."""
    return dict(re.findall(rf"^{tag}: +(\S+)(?: >= (\S+))?$", SPEC, re.MULTILINE))


def wanted() -> dict[str, str]:
    """The dependencies of pyproject.toml by the names of packages."""
    found = {}
    for entry in PROJECT["dependencies"]:
        name, lowest = entry.split(">=")
        found[PACKAGES[name]] = lowest
    return found


def test_dependencies_of_the_debian_package() -> None:
    assert debian("Depends") == wanted() | DEBIAN_SYSTEM


def test_dependencies_of_the_rpm_package() -> None:
    python = {"python3": PROJECT["requires-python"].removeprefix(">=")}
    assert fedora("Requires") == wanted() | FEDORA_SYSTEM | python


def test_recommendations() -> None:
    assert fedora("Recommends") == {
        FEDORA_NAMES[name]: lowest for name, lowest in debian("Recommends").items()
    }


def test_what_make_installs() -> None:
    listed = re.search(r"^RUN_PACKAGES := (.*)$", MAKEFILE, re.MULTILINE)
    assert listed
    assert set(listed[1].split()) >= {*wanted(), "python3", "dbus", "systemd"}


def test_python() -> None:
    lowest = PROJECT["requires-python"]
    assert re.search(r"^X-Python3-Version: (.*)$", CONTROL, re.MULTILINE)[1].replace(" ", "") == lowest  # type: ignore[index]
    assert f"python3:any ({lowest.replace('>=', '>= ')})" in field("Build-Depends")
    assert f"python3-devel {lowest.replace('>=', '>= ')}" in SPEC


def test_version() -> None:
    newest = re.match(r"mountnsd \(([^)]+)\) (\S+);", CHANGELOG)
    assert newest
    assert newest[1] == mountnsd.__version__  # a native package: without a Debian revision
    assert re.findall(r"^Version: +(\S+)$", SPEC, re.MULTILINE) == [mountnsd.__version__]
    entry = SPEC.split("%changelog\n")[1].split("\n")[0]
    assert entry.endswith(f" - {mountnsd.__version__}-1")


def test_newest_entries_are_of_one_day() -> None:
    written = re.search(r"^ -- (.*>)  (\w+), (\d+) (\w+) (\d+) ", CHANGELOG, re.MULTILINE)
    assert written
    who, weekday, day, month, year = written.groups()
    assert SPEC.split("%changelog\n")[1].startswith(f"* {weekday} {month} {day} {year} {who} - ")


def test_what_it_is_said_to_be() -> None:
    summary = re.search(r"^Summary: +(.*)$", SPEC, re.MULTILINE)
    synopsis = re.search(r"^Description: (.*)$", CONTROL, re.MULTILINE)
    assert summary
    assert synopsis
    assert summary[1][0].lower() + summary[1][1:] == synopsis[1]
    assert PROJECT["description"].startswith(summary[1])
    long = CONTROL.split(synopsis[0])[1].replace("\n .\n", "\n\n").replace("\n ", "\n")
    assert long.split() == SPEC.split("%description\n")[1].split("%prep")[0].split()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(TREE)))
def test_shell_scripts(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; 'make tools' installs it")
    command = ["shellcheck", "--shell=dash", "--severity=style", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout


def test_every_shell_script_is_checked() -> None:
    """Those that have an interpreter line, wherever they are."""
    found = {path for path in (TREE / "packaging").rglob("*") if path.is_file() and is_shell(path)}
    assert found <= set(SCRIPTS)


def is_shell(path: Path) -> bool:
    """Whether a file begins as a shell script."""
    return path.read_bytes().startswith(b"#!/bin/sh")


def test_upgrades_touch_the_service_alone() -> None:
    """Left to themselves, both tools would restart the slice as well, and end what was entered."""
    rules = (TREE / "packaging/debian/rules").read_text()
    assert re.findall(r"^\tdh_installsystemd(.*)$", rules, re.MULTILINE) == [" mountnsd.service"]
    macros = re.findall(r"%systemd_(?:post|preun|postun\w*) ([^}]*)", SPEC)
    assert macros == ["mountnsd.service"] * 3
