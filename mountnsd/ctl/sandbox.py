# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which settings of a service cannot hold in a named mount namespace, and what is left of them without.

systemd gives a service with any of these a mount namespace of its own: its command would leave that for the named
one, and sees no pin there.  Sources: systemd.exec(5), exec_needs_mount_namespace() of systemd 252 to 257.
"""

from __future__ import annotations

from typing import Any

# They change who the service is, what its files are, or whom it can reach: to take them away is no small thing.
NEVER = (
    "DynamicUser",
    "IPCNamespacePath",
    "NetworkNamespacePath",
    "PrivateIPC",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateUsers",
    "RootDirectory",
    "RootEphemeral",
    "RootImage",
)

# The others, with the value that switches each off.
RESETS = {
    "BindLogSockets": "no",
    "BindPaths": "",
    "BindReadOnlyPaths": "",
    "ExecPaths": "",
    "ExtensionDirectories": "",
    "ExtensionImages": "",
    "InaccessiblePaths": "",
    "LogNamespace": "",
    "MountAPIVFS": "no",
    "MountFlags": "",
    "MountImages": "",
    "NoExecPaths": "",
    "PrivateDevices": "no",
    "PrivateMounts": "no",
    "PrivateTmp": "no",
    "ProcSubset": "all",
    "ProtectControlGroups": "no",
    "ProtectHome": "no",
    "ProtectKernelLogs": "no",
    "ProtectKernelModules": "no",
    "ProtectKernelTunables": "no",
    "ProtectProc": "default",
    "ProtectSystem": "no",
    "ReadOnlyPaths": "",
    "ReadWritePaths": "",
    "TemporaryFileSystem": "",
}

# What a setting does besides, and needs no mounts for: that stays.
_KEPT = {
    "PrivateDevices": (
        "CapabilityBoundingSet=~CAP_MKNOD CAP_SYS_RAWIO",
        "SystemCallFilter=~@raw-io:EPERM",
    ),
    "ProtectKernelLogs": ("CapabilityBoundingSet=~CAP_SYSLOG", "SystemCallFilter=~syslog:EPERM"),
    "ProtectKernelModules": ("CapabilityBoundingSet=~CAP_SYS_MODULE", "SystemCallFilter=~@module:EPERM"),
}

_OFF = ("no", "default", "all", "")
_READ_ONLY = 1  # of the flags in StateDirectorySymlink and its like, systemd 257


def in_force(properties: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The settings of a service that stand in the way: those that must stay, and those that can be taken."""
    never = [name for name in NEVER if _is_set(properties, name)]
    for kind in ("State", "Cache", "Logs"):
        if any(flags & _READ_ONLY for _, _, flags in properties.get(f"{kind}DirectorySymlink", ())):
            never.append(f"{kind}Directory")
    return never, [name for name in RESETS if _is_set(properties, name)]


def _is_set(properties: dict[str, Any], name: str) -> bool:
    # What has got more values than yes and no has them in a second property.
    for key in (name, f"{name}Ex"):
        value = properties.get(key)
        if value and not (isinstance(value, str) and value in _OFF):
            return True
    return False


def without(settings: list[str], properties: dict[str, Any]) -> list[str]:
    """The lines of a drop-in that switch settings off, and keep what they do besides."""
    lines = [f"{name}={RESETS[name]}" for name in settings]
    for name in settings:
        lines += _KEPT.get(name, ())
    if "PrivateDevices" in settings and properties.get("DevicePolicy") == "closed":
        lines.append("DevicePolicy=closed")
    return lines
