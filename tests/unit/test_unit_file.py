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

REQUIRED = {
    "Type": "notify",
    "NotifyAccess": "main",
    "BusName": "org.mountnsd1",
    # What is in the sandbox would reach entered processes that the daemon forks.
    "ExecStart": "/usr/sbin/mountnsd --launcher=systemd",
    "Restart": "on-failure",
    "WatchdogSec": "3min",
    "RuntimeDirectory": "mountnsd",
    "RuntimeDirectoryMode": "0755",
    "RuntimeDirectoryPreserve": "yes",
}

# What any of these grants is more than the daemon needs, or would be given to whoever breaks into it.
SANDBOX = {
    "NoNewPrivileges": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RestrictAddressFamilies": "AF_UNIX",
    "RestrictNamespaces": "mnt uts",
    "SystemCallArchitectures": "native",
    "DevicePolicy": "closed",
    "DeviceAllow": "block-* rw",  # without it, no filesystem on a disk could be mounted
    "LockPersonality": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "RestrictRealtime": "yes",
    "KeyringMode": "private",
}
LISTS = ("CapabilityBoundingSet", "SystemCallFilter")  # each further line adds to them


def lines(section: str) -> list[tuple[str, str]]:
    """The settings of a section, in order."""
    found = []
    current = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif line and not line.startswith("#") and current == section:
            key, equals, value = line.partition("=")
            assert equals, line
            found.append((key, value))
    return found


def settings(section: str) -> dict[str, str]:
    """The settings of a section but lists.  Fails for one that is there twice."""
    found: dict[str, str] = {}
    for key, value in lines(section):
        assert key in LISTS or key not in found, key
        found[key] = value
    return found


def test_required() -> None:
    found = settings("Service")
    assert {key: found.get(key) for key in REQUIRED} == REQUIRED


@pytest.mark.parametrize("option", sorted(OWN_MOUNT_NAMESPACE))
def test_no_mount_namespace_of_its_own(option: str) -> None:
    assert option not in settings("Service")


def test_the_sandbox() -> None:
    found = settings("Service")
    assert {key: found.get(key) for key in SANDBOX} == SANDBOX


def test_nothing_takes_away_a_system_call_that_is_needed() -> None:
    """RestrictSUIDSGID= answers ENOSYS to openat2(2), whose flags a filter cannot see.

    IPAddressDeny= holds also for the sockets of network filesystems that are mounted for somebody.
    """
    assert not {"RestrictSUIDSGID", "IPAddressDeny"} & settings("Service").keys()


def test_every_capability_is_there_for_a_reason() -> None:
    granted = {
        capability
        for key, value in lines("Service")
        if key == "CapabilityBoundingSet"
        for capability in value.split()
    }
    comment = UNIT.read_text().partition("# SYS_ADMIN")[2].partition("CapabilityBoundingSet=")[0]
    reasons = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", "# SYS_ADMIN" + comment))
    reasons &= {capability.removeprefix("CAP_") for capability in granted} | {"SETUID", "SYS_MODULE"}
    assert granted == {f"CAP_{reason}" for reason in reasons}
    # Neither somebody else nor a module of the kernel: those are not even to be had by way of a fault.
    assert not granted & {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"}


def test_limits() -> None:
    assert {key for key in settings("Service") if key.startswith("Limit")} == {"LimitNOFILE"}
    assert {"MemoryMax", "TasksMax"} <= settings("Service").keys()


def test_stopping_it_stops_nothing_else() -> None:
    """What was entered is in other units, and the namespaces are no processes."""
    assert not {"KillMode", "ExecStop", "ExecStopPost"} & settings("Service").keys()
    assert not {"PartOf", "BindsTo"} & settings("Unit").keys()


def test_it_comes_after_the_bus() -> None:
    assert settings("Unit")["Requires"] == "dbus.socket"
    # At shutdown, too: a daemon whose bus is gone has failed.
    assert settings("Unit")["After"].split() == ["dbus.socket", "dbus.service"]


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
    copy.write_text(UNIT.read_text().replace("/usr/sbin/mountnsd", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert not [
        line for line in said.splitlines() if UNIT.name in line
    ]  # of other units it may say what it likes
