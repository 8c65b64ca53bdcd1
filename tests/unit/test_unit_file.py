# SPDX-License-Identifier: LGPL-2.1-or-later
"""The unit gives the daemon what it needs, and nothing that would keep it from its work."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "mountnsd.service"

# systemd runs a service with any of these in a mount namespace of its own, systemd.exec(5): the pins that are
# there would not be seen, and new ones would be seen by nobody.  PrivateMounts=no cancels none of them.
OWN_MOUNT_NAMESPACE = {
    "BindLogSockets",
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImages",
    "IPCNamespacePath",
    "InaccessibleDirectories",
    "InaccessiblePaths",
    "LogNamespace",
    "MountAPIVFS",
    "MountFlags",
    "MountImages",
    "NetworkNamespacePath",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateTmp",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyDirectories",
    "ReadOnlyPaths",
    "ReadWriteDirectories",
    "ReadWritePaths",
    "RootDirectory",
    "RootEphemeral",
    "RootImage",
    "TemporaryFileSystem",
}

# A child process inherits these, or has them by its control group.  Programs that are entered are children.
REACHES_ENTERED_PROCESSES = {
    "AmbientCapabilities",
    "AppArmorProfile",
    "CapabilityBoundingSet",
    "DeviceAllow",
    "DevicePolicy",
    "Group",
    "IPAddressAllow",
    "IPAddressDeny",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "PAMName",
    "Personality",
    "PrivateUsers",
    "ProtectClock",
    "ProtectHostname",
    "RestrictAddressFamilies",
    "RestrictFileSystems",
    "RestrictNamespaces",
    "RestrictNetworkInterfaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SELinuxContext",
    "SecureBits",
    "SmackProcessLabel",
    "SupplementaryGroups",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "SystemCallLog",
    "User",
}

REQUIRED = {
    "Type": "notify",
    "NotifyAccess": "main",
    "BusName": "org.mountnsd1",
    "ExecStart": "/usr/sbin/mountnsd",
    "Restart": "on-failure",
    "RuntimeDirectory": "mountnsd",
    "RuntimeDirectoryMode": "0755",
    "RuntimeDirectoryPreserve": "yes",
    "KillMode": "process",
    "OOMPolicy": "continue",
}


def settings(section: str) -> dict[str, str]:
    """The settings of a section.  Fails for one that is there twice."""
    found: dict[str, str] = {}
    current = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif line and not line.startswith("#") and current == section:
            key, equals, value = line.partition("=")
            assert equals, line
            assert key not in found, line
            found[key] = value
    return found


def test_required() -> None:
    found = settings("Service")
    assert {key: found.get(key) for key in REQUIRED} == REQUIRED


@pytest.mark.parametrize("option", sorted(OWN_MOUNT_NAMESPACE))
def test_no_mount_namespace_of_its_own(option: str) -> None:
    assert option not in settings("Service")


@pytest.mark.parametrize("option", sorted(REACHES_ENTERED_PROCESSES))
def test_nothing_reaches_entered_processes(option: str) -> None:
    assert option not in settings("Service")


def test_limits_are_only_those_that_the_child_takes_back() -> None:
    assert {key for key in settings("Service") if key.startswith("Limit")} <= {"LimitNOFILE"}


def test_it_comes_after_the_bus() -> None:
    assert settings("Unit")["After"] == settings("Unit")["Requires"] == "dbus.socket"


def test_what_the_daemon_does_not_do_is_not_asked_of_it() -> None:
    source = (UNIT.parents[1] / "mountnsd" / "daemon.py").read_text()
    found = settings("Service")
    assert ("WatchdogSec" in found) <= ("WATCHDOG" in source)
    assert ("ExecReload" in found or found["Type"] == "notify-reload") <= ("SIGHUP" in source)


def test_its_pages_are_there() -> None:
    pages = re.findall(r"man:([\w.]+)\((\d)\)", settings("Unit")["Documentation"])
    assert len(pages) == 4
    for name, number in pages:
        assert (UNIT.parents[1] / "docs" / f"{name}.{number}.md").exists()


def test_systemd_understands_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(REQUIRED["ExecStart"], "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert not [
        line for line in said.splitlines() if UNIT.name in line
    ]  # of other units it may say what it likes
