# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountns@.service has a declared namespace created and destroyed, and has no power of its own."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mountnsd.ctl.options import Arguments, parse

TREE = Path(__file__).resolve().parents[2]
UNIT = TREE / "systemd" / "mountns@.service"
PROGRAM = "/usr/bin/mountnsctl"

# What a client of the bus that is root does not need.  AF_UNIX is the bus.
SANDBOX = {
    "CapabilityBoundingSet": "",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateNetwork": "yes",
    "PrivateIPC": "yes",
    "PrivateMounts": "yes",
    "InaccessiblePaths": "-/run/mountnsd",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "RestrictAddressFamilies": "AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
    "IPAddressDeny": "any",
}


def settings(section: str) -> dict[str, list[str]]:
    """The settings of a section, each with all its values."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif line and not line.startswith("#") and current == section:
            key, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(key, []).append(value)
    return found


def command(key: str) -> Arguments:
    """A command of the unit, as mountnsctl reads it, for the instance `a-b`."""
    ((line),) = settings("Service")[key]
    program, *words = line.split()
    assert program == PROGRAM
    assert words[-2:] == ["--", "%i"], "%I would make a '/' of a '-'"
    return parse([*words[:-1], "a-b"])


def test_it_is_up_while_the_namespace_is_there() -> None:
    found = settings("Service")
    assert (found["Type"], found["RemainAfterExit"]) == (["oneshot"], ["yes"])
    assert "User" not in found


def test_it_creates() -> None:
    arguments = command("ExecStart")
    assert (arguments.verb, arguments.names, arguments.if_not_exists) == ("create", ["a-b"], True)
    assert (arguments.quiet, arguments.ask_password) == (True, False)
    assert arguments.propagation is arguments.description is arguments.source is None


def test_it_destroys_what_is_still_there() -> None:
    arguments = command("ExecStop")
    assert (arguments.verb, arguments.names, arguments.if_exists) == ("destroy", ["a-b"], True)
    assert (arguments.kill, arguments.lazy, arguments.ask_password) == (True, False, False)


def test_a_restart_of_the_daemon_does_not_stop_it() -> None:
    found = settings("Unit")
    daemon = "mountnsd.service"
    assert found["Wants"] == [daemon]
    for key in ("Requires", "BindsTo", "PartOf", "Requisite", "Upholds"):
        assert daemon not in " ".join(found.get(key, [])).split()
    assert found["Requires"] == ["dbus.socket"]
    after = set(found["After"][0].split())
    assert after == {daemon, "dbus.service", "dbus.socket", "local-fs.target", "remote-fs.target"}


def test_it_can_be_enabled() -> None:
    assert settings("Install") == {"WantedBy": ["multi-user.target"]}


def test_its_sandbox() -> None:
    found = settings("Service")
    assert {key: found.get(key) for key in SANDBOX} == {key: [value] for key, value in SANDBOX.items()}
    allowed, denied = found["SystemCallFilter"]
    assert (allowed, denied) == ("@system-service", "~@privileged @resources")


def test_errors_reach_the_journal() -> None:
    assert not {"StandardOutput", "StandardError", "LogNamespace"} & settings("Service").keys()


def test_its_pages_are_there() -> None:
    pages = re.findall(r"man:([\w.]+)\((\d)\)", settings("Unit")["Documentation"][0])
    assert len(pages) == 3
    for name, number in pages:
        assert (TREE / "docs" / f"{name}.{number}.md").exists()


def test_systemd_understands_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    copy = tmp_path / "mountns@a-b.service"
    copy.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert not [line for line in said.splitlines() if "mountns@" in line]
