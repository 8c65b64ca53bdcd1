# SPDX-License-Identifier: LGPL-2.1-or-later
"""The drop-in that puts a service into a namespace, for services of all kinds."""

from typing import Any

import pytest
from support import unitfile
from unit.test_unit_file import OWN_MOUNT_NAMESPACE

from mountnsd.ctl import capabilities, sandbox
from mountnsd.ctl.dropin import LINKER, MARK, SYSTEM_CALLS, DropIn
from mountnsd.ctl.problem import Problem

EVERY = (1 << 41) - 1
ALL_NAMESPACES = 0x7E020000
CALLS = sorted(SYSTEM_CALLS)


def mask(*names: str) -> int:
    """A set of capabilities, written without CAP_."""
    return capabilities.mask_of(" ".join(f"CAP_{name}" for name in names))


def run(path: str, *argv: str, flags: tuple[str, ...] = ()) -> tuple[Any, ...]:
    """A command as systemd gives it."""
    return (path, list(argv) or [path], list(flags), 0, 0, 0, 0, 0, 0, 0)


def made(**properties: Any) -> DropIn:
    """The drop-in for a plain service with these properties."""
    plain = {
        "ExecStartEx": [run("/bin/x", "/bin/x", "-v")],
        "CapabilityBoundingSet": EVERY,
        "AmbientCapabilities": 0,
        "RestrictNamespaces": ALL_NAMESPACES,
        "SystemCallFilter": (False, []),
        "IgnoreSIGPIPE": True,
        "User": "",
    }
    return DropIn("x.service", {**plain, **properties}, "build", "/usr/bin/mountnsctl")


def service(drop_in: DropIn) -> dict[str, list[str]]:
    """The settings of [Service], each with its values."""
    found: dict[str, list[str]] = {}
    for key, value in unitfile.sections(drop_in.text)["Service"]:
        found.setdefault(key, []).append(value)
    return found


def start(drop_in: DropIn) -> list[str]:
    """The words of the one ExecStart=."""
    ((_, argv, _),) = unitfile.commands(drop_in.text)["ExecStart"]
    return argv


def test_a_service_of_root_needs_nothing() -> None:
    drop_in = made()
    assert drop_in.text.splitlines()[0] == MARK
    assert unitfile.sections(drop_in.text)["Unit"] == [
        ("BindsTo", "mountns@build.service"),
        ("After", "mountns@build.service"),
    ]
    assert service(drop_in) == {"ExecStart": ["", "/usr/bin/mountnsctl exec build -- /bin/x -v"]}
    assert drop_in.notes == []


@pytest.mark.parametrize("user", ["root", "0", ""])
def test_root_by_any_name(user: str) -> None:
    assert "AmbientCapabilities" not in service(made(User=user))


def test_a_service_of_a_user() -> None:
    found = service(made(User="nobody"))
    assert set(found["AmbientCapabilities"][0].split()) == {
        "CAP_SYS_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_DAC_READ_SEARCH",
    }
    assert "CapabilityBoundingSet" not in found
    assert set(found["UnsetEnvironment"][0].split()) == LINKER
    assert start(made(User="nobody"))[2] == "build"  # exec's own default is right


def test_what_a_service_had_before_it_keeps() -> None:
    drop_in = made(User="nobody", AmbientCapabilities=mask("SYS_ADMIN", "KILL"))
    assert service(drop_in)["AmbientCapabilities"] == ["CAP_DAC_READ_SEARCH CAP_SYS_CHROOT"]
    assert "--drop-capabilities=CAP_DAC_READ_SEARCH,CAP_SYS_CHROOT" in start(drop_in)
    drop_in = made(User="nobody", AmbientCapabilities=capabilities.USERS_WAY_IN)
    assert "--drop-capabilities=" in start(drop_in)


def test_a_service_of_root_with_few_capabilities() -> None:
    drop_in = made(CapabilityBoundingSet=mask("KILL", "SYS_CHROOT"))
    assert service(drop_in)["CapabilityBoundingSet"] == ["CAP_SETPCAP CAP_SYS_ADMIN"]
    assert "--drop-capabilities=CAP_SETPCAP,CAP_SYS_ADMIN" in start(drop_in)
    drop_in = made(CapabilityBoundingSet=mask("SYS_ADMIN", "SYS_CHROOT"))
    assert start(drop_in)[2] == "build"


def test_commands_of_root_in_a_service_of_a_user() -> None:
    drop_in = made(
        User="nobody",
        CapabilityBoundingSet=mask("KILL"),
        ExecStartPreEx=[run("/bin/y", flags=("no-setuid",))],
    )
    ((_, argv, flags),) = unitfile.commands(drop_in.text)["ExecStartPre"]
    assert flags == ["no-setuid"]
    given = "CAP_DAC_READ_SEARCH,CAP_SETPCAP,CAP_SYS_CHROOT,CAP_SYS_ADMIN"
    assert f"--drop-capabilities={given}" in argv
    assert f"--drop-capabilities={given}" in start(drop_in)


@pytest.mark.parametrize(
    ("properties", "lines"),
    [
        ({"RestrictNamespaces": 0}, {"RestrictNamespaces": ["mnt"]}),
        ({"RestrictNamespaces": ALL_NAMESPACES & ~0x20000}, {"RestrictNamespaces": ["mnt"]}),
        ({"SystemCallFilter": (True, CALLS)}, {}),
        ({"SystemCallFilter": (True, [*CALLS[1:], f"{CALLS[0]}:EPERM"])}, {"SystemCallFilter": [CALLS[0]]}),
        ({"SystemCallFilter": (True, [c for c in CALLS if c != "setns"])}, {"SystemCallFilter": ["setns"]}),
        ({"SystemCallFilter": (False, ["setns:EPERM", "reboot"])}, {"SystemCallFilter": ["setns"]}),
        ({"SystemCallFilter": (False, ["reboot"])}, {}),
        ({"RestrictFileSystems": (True, ["ext4"])}, {"RestrictFileSystems": ["nsfs"]}),
        ({"RestrictFileSystems": (True, ["ext4", "nsfs"])}, {}),
        ({"RestrictFileSystems": (False, ["nsfs"])}, {"RestrictFileSystems": ["nsfs"]}),
        ({"RestrictFileSystems": (False, ["ext4"])}, {}),
        ({"RestrictFileSystems": (False, [])}, {}),
    ],
)
def test_the_sandbox_is_opened_only_where_it_must(
    properties: dict[str, Any], lines: dict[str, list[str]]
) -> None:
    found = service(made(**properties))
    assert {key: value for key, value in found.items() if key != "ExecStart"} == lines


def test_commands_are_what_they_were() -> None:
    drop_in = made(
        ExecStartEx=[
            run(
                "/bin/a",
                "odd name",
                "$ONE",
                "${TWO}",
                "50%",
                'say "x"\\',
                ";",
                "",
                "ü\n",
                flags=("ignore-failure",),
            )
        ],
        ExecReloadEx=[run("kill", "kill", "$MAINPID")],
        ExecStopEx=[run("/bin/$x", "/bin/$x", flags=("no-env-expand",)), run("/bin/$x")],
    )
    read = unitfile.commands(drop_in.text)
    wrapper = ["/usr/bin/mountnsctl", "exec"]
    ((path, argv, flags),) = read["ExecStart"]
    assert (path, flags) == ("/usr/bin/mountnsctl", ["ignore-failure"])
    assert argv == [
        *wrapper,
        "--argv0=odd name",
        "build",
        "--",
        *("/bin/a", "$ONE", "${TWO}", "50%", 'say "x"\\', ";", "", "ü\n"),
    ]
    assert read["ExecReload"][0][1] == [*wrapper, "build", "--", "kill", "$MAINPID"]
    assert [argv[-1] for _, argv, _ in read["ExecStop"]] == ["/bin/$x", "/bin/$$x"]
    assert drop_in.commands == {
        setting: [(path, argv) for path, argv, _ in found] for setting, found in read.items()
    }


def test_commands_with_full_privileges_stay_outside() -> None:
    outside = run("/bin/y", "name", "a", flags=("privileged", "ignore-failure"))
    drop_in = made(ExecStartPreEx=[outside], ExecStopEx=[outside, run("/bin/z")])
    read = unitfile.commands(drop_in.text)
    assert "ExecStartPre" not in read
    assert read["ExecStop"][0][:2] == ("/bin/y", ["name", "a"])
    assert sorted(read["ExecStop"][0][2]) == ["ignore-failure", "privileged"]
    assert read["ExecStop"][1][1][-1] == "/bin/z"
    assert "ExecStop=+/bin/y" in drop_in.notes[0]


def test_what_the_linker_reads_is_for_the_command_alone() -> None:
    environment = ["A=b", "LD_LIBRARY_PATH=/opt/$x"]
    drop_in = made(User="nobody", Environment=environment, EnvironmentFiles=[("/etc/default/x", True)])
    assert "--setenv=LD_LIBRARY_PATH=/opt/$$x" in start(drop_in)
    assert not [argument for argument in start(drop_in) if "A=b" in argument]
    assert "EnvironmentFile=" in drop_in.notes[0]
    assert "UnsetEnvironment" not in service(made(Environment=environment))


def test_sigpipe() -> None:
    assert "--sigpipe=default" in start(made(IgnoreSIGPIPE=False))


@pytest.mark.parametrize(
    "properties",
    [
        {"ExecStartEx": []},
        {"ExecStartEx": [run("/bin/x", flags=("privileged",))]},
        {"ExecStartEx": [run("/bin/x", flags=("via-shell",))]},
        {"ExecStartEx": [run("/bin/x", "$NAME")]},
    ],
)
def test_what_cannot_be_wrapped(properties: dict[str, Any]) -> None:
    with pytest.raises(Problem, match=r"x\.service"):
        made(**properties)


# What a setting is on D-Bus when it is set.
SET: dict[str, Any] = {
    "ProtectHome": "read-only",
    "ProtectSystem": "strict",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "MountFlags": 1 << 19,
    "LogNamespace": "x",
    "RootDirectory": "/srv",
    "RootImage": "/x.raw",
    "NetworkNamespacePath": "/run/netns/x",
    "IPCNamespacePath": "/run/ipc",
    "PrivatePIDs": "yes",
    "TemporaryFileSystem": [("/var", "")],
}
LISTS = ("Paths", "Images", "ExtensionDirectories")
OFF = {
    "ProtectHome": "no",
    "ProtectSystem": "no",
    "ProtectProc": "default",
    "ProcSubset": "all",
    "PrivatePIDs": "no",
}
ALIASES = {"InaccessibleDirectories", "ReadOnlyDirectories", "ReadWriteDirectories"}  # not on D-Bus


def test_every_setting_that_makes_a_mount_namespace_is_known() -> None:
    assert {*sandbox.NEVER, *sandbox.RESETS} >= OWN_MOUNT_NAMESPACE - ALIASES


@pytest.mark.parametrize("setting", [*sandbox.NEVER, *sandbox.RESETS])
def test_mounts_of_its_own(setting: str) -> None:
    value = SET.get(setting, ["/x"] if setting.endswith(LISTS) else True)
    off = OFF.get(setting, type(value)())
    made(**{setting: off}).release(False)
    if setting in sandbox.NEVER:
        with pytest.raises(Problem, match=f"{setting}="):
            made(**{setting: value})
        return
    drop_in = made(**{setting: value})
    with pytest.raises(Problem, match=f"{setting}=.*--without-mount-sandbox"):
        drop_in.release(False)
    drop_in.release(True)
    assert [note for note in drop_in.notes if note.startswith(f"{setting}= ")]
    assert service(drop_in)[setting] == [sandbox.RESETS[setting]]


def test_what_has_more_values_than_yes_and_no() -> None:
    with pytest.raises(Problem, match="PrivateTmp="):
        made(PrivateTmp=False, PrivateTmpEx="disconnected").release(False)
    with pytest.raises(Problem, match="StateDirectory="):
        made(StateDirectorySymlink=[("a", "", 1)])


def test_what_needs_no_mounts_stays() -> None:
    found = service(made(PrivateDevices=True, DevicePolicy="closed", ProtectKernelModules=True))
    assert found["DevicePolicy"] == ["closed"]
    assert found["CapabilityBoundingSet"] == ["~CAP_MKNOD CAP_SYS_RAWIO", "~CAP_SYS_MODULE"]
    assert found["SystemCallFilter"] == ["~@raw-io:EPERM", "~@module:EPERM"]
