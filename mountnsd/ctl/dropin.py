# SPDX-License-Identifier: LGPL-2.1-or-later
"""The drop-in that has a service run in a namespace, made from the properties that systemd has of it.

Each command is wrapped in `mountnsctl exec`.  What that needs on its way in is added where the unit does not allow
it, and is given up again by exec before the command runs.

Out of scope: files and the bus (attach.py).  Sources: systemd.exec(5), systemd.service(5),
org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import pwd
from typing import Any

from mountnsd.ctl import capabilities, sandbox
from mountnsd.ctl.problem import Problem
from mountnsd.ctl.text import plain
from mountnsd.ctl.unitsyntax import literal, word

MARK = "# Written by mountnsctl attach; 'mountnsctl detach' removes it."

SETTINGS = (
    "ExecCondition",
    "ExecStartPre",
    "ExecStart",
    "ExecStartPost",
    "ExecReload",
    "ExecReloadPost",
    "ExecStop",
    "ExecStopPost",
)
# systemd's name of a prefix of a command, and the prefix.  "!!" means nothing where there are ambient capabilities.
_PREFIXES = {
    "ignore-failure": "-",
    "no-env-expand": ":",
    "privileged": "+",
    "no-setuid": "!",
    "ambient-magic": "",
}
# Of the environment: what makes the dynamic linker and the C library of our interpreter load or write files.
_VARIABLES = (
    "GCONV_PATH GLIBC_TUNABLES LD_AUDIT LD_DEBUG LD_DEBUG_OUTPUT LD_LIBRARY_PATH LD_ORIGIN_PATH "
    "LD_PRELOAD LD_PROFILE LD_PROFILE_OUTPUT LOCPATH MALLOC_TRACE"
)
LINKER = frozenset(_VARIABLES.split())
# What Python and exec call, on any architecture (strace(1)).
_CALLS = (
    "_llseek access arch_prctl brk capget capset chdir clock_gettime close dup execve exit exit_group "
    "faccessat faccessat2 fcntl fcntl64 fstat fstat64 fstatat64 fstatfs fstatfs64 futex getcwd getdents "
    "getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getpid getrandom gettid getuid "
    "getuid32 ioctl lseek lstat lstat64 madvise mkdir mkdirat mmap mmap2 mprotect mremap munmap "
    "newfstatat open openat prctl pread64 prlimit64 read readlink readlinkat rename renameat renameat2 "
    "rseq rt_sigaction rt_sigprocmask rt_sigreturn set_robust_list set_tid_address setns sigaltstack stat "
    "stat64 statx sysinfo ugetrlimit uname write"
)
SYSTEM_CALLS = frozenset(_CALLS.split())
_CLONE_NEWNS = 0x00020000


class DropIn:
    """The text of a drop-in.

    Attributes: text; notes: what the user should know; commands: what systemd must have read from it, for each
    setting the paths and arguments.
    """

    def __init__(self, name: str, properties: dict[str, Any], namespace: str, program: str) -> None:
        self.notes: list[str] = []
        self.commands: dict[str, list[tuple[str, list[str]]]] = {}
        self._name = name
        self._properties = properties
        self._namespace = namespace
        self._program = program
        self._root = _is_root(str(properties.get("User", "")))
        self._plan_capabilities()
        self._taken = self._stands_in_the_way()
        self._moved: dict[str, str] = {}
        service = [*self._sandbox(), *self._environment(), *self._commands()]
        unit = f"mountns@{namespace}.service"
        self.text = "\n".join(
            (
                MARK,
                f"# {name} runs in the mount namespace '{namespace}'. Attach it again when its unit has changed.",
                "",
                "[Unit]",
                f"BindsTo={unit}",
                f"After={unit}",
                "",
                "[Service]",
                *service,
                "",
            )
        )

    def release(self, wanted: bool) -> None:
        """Agree to the loss of the settings that can be taken away, or refuse.  Raises: Problem."""
        if not self._taken:
            return
        listed = ", ".join(f"{name}=" for name in self._taken)
        if not wanted:
            raise Problem(
                f"{self._name} has mounts of its own by {listed}, and cannot have those of '{self._namespace}' "
                "besides. Mount in the namespace what the service shall see, and use --without-mount-sandbox to "
                "take these settings from it."
            )
        for name in self._taken:
            self.notes.append(f"{name}= is taken from {self._name}, and the protection with it.")

    def _stands_in_the_way(self) -> list[str]:
        never, taken = sandbox.in_force(self._properties)
        if never:
            listed = ", ".join(f"{name}=" for name in never)
            raise Problem(
                f"{self._name} has {listed}, which cannot be had in a namespace that others share: take that from "
                "the unit first, if the service can do without ('systemctl edit')."
            )
        return taken

    def _plan_capabilities(self) -> None:
        """What the unit must be given for the way in, and what its commands then give up."""
        bounding = int(self._properties.get("CapabilityBoundingSet", -1))
        ambient = int(self._properties.get("AmbientCapabilities", 0))
        needed = capabilities.WAY_IN if self._root else capabilities.USERS_WAY_IN
        self._ambient = 0 if self._root else needed & ~ambient
        self._bounding = needed & ~bounding
        if self._bounding and (self._root or self._has_root_commands()):
            self._bounding |= capabilities.SETPCAP & ~bounding  # to make the bounding set as it was

    def _has_root_commands(self) -> bool:
        return any(
            self._runs_as_root(setting, flags)
            for setting in SETTINGS
            for _, _, flags in _commands_of(self._properties, setting)
        )

    def _runs_as_root(self, setting: str, flags: list[str]) -> bool:
        start_only = bool(self._properties.get("PermissionsStartOnly")) and setting != "ExecStart"
        return self._root or start_only or "no-setuid" in flags

    def _sandbox(self) -> list[str]:
        properties = self._properties
        lines = sandbox.without(self._taken, properties)
        if lines:
            lines = ["# These would give it mounts of its own.", *lines, ""]
        more = []
        if self._ambient:
            more.append(f"AmbientCapabilities={' '.join(capabilities.names_of(self._ambient))}")
        if self._bounding:
            more.append(f"CapabilityBoundingSet={' '.join(capabilities.names_of(self._bounding))}")
        if not int(properties.get("RestrictNamespaces", _CLONE_NEWNS)) & _CLONE_NEWNS:
            more.append("RestrictNamespaces=mnt")
        calls = _refused_calls(*properties.get("SystemCallFilter", (False, [])))
        if calls:
            more.append(f"SystemCallFilter={' '.join(calls)}")
        allow, kinds = properties.get("RestrictFileSystems", (False, []))
        if ("nsfs" in kinds) != allow and (allow or kinds):
            more.append("RestrictFileSystems=nsfs")
        if more:
            lines += ["# For the way in; the capabilities are given up inside.", *more, ""]
        for key in ("AppArmorProfile", "SELinuxContext", "SmackProcessLabel"):
            if properties.get(key, (False, ""))[1]:
                self.notes.append(f"{key}= now confines mountnsctl first: it must allow that, too.")
        return lines

    def _environment(self) -> list[str]:
        """Keep from our interpreter, while it has capabilities, what would have it load a user's files.

        What Environment= has of that is set again by exec for the command alone.
        """
        if not self._ambient and not self._bounding:
            return []
        properties = self._properties
        for entry in properties.get("Environment", ()):
            key, _, value = entry.partition("=")
            if key in LINKER and key not in properties.get("UnsetEnvironment", ()):
                self._moved[key] = value
        lost = "Variables as LD_LIBRARY_PATH do not reach the service from"
        if properties.get("EnvironmentFiles"):
            self.notes.append(f"{lost} EnvironmentFile=: set them by Environment=.")
        if set(properties.get("PassEnvironment", ())) & LINKER:
            self.notes.append(f"{lost} PassEnvironment=: set them by Environment=.")
        return [
            "# Not for mountnsctl while it has capabilities. Where Environment= has one, exec sets it.",
            f"UnsetEnvironment={' '.join(sorted(LINKER))}",
            "",
        ]

    def _commands(self) -> list[str]:
        lines = []
        for setting in SETTINGS:
            commands = _commands_of(self._properties, setting)
            if all("privileged" in flags for _, _, flags in commands):
                continue  # or none at all
            lines.append(f"{setting}=")
            self.commands[setting] = []
            for path, argv, flags in commands:
                prefix, words = self._command(setting, path, argv, flags)
                lines.append(f"{setting}={prefix}{' '.join(map(word, words))}")
                named = "@" in prefix
                self.commands[setting].append((words[0], words[1:] if named else words))
        if "ExecStart" not in self.commands:
            raise Problem(f"{self._name} has no command in ExecStart= that could be in a namespace.")
        return lines

    def _command(self, setting: str, path: str, argv: list[str], flags: list[str]) -> tuple[str, list[str]]:
        """The prefix and the words of a command, in the namespace."""
        unknown = [flag for flag in flags if flag not in _PREFIXES]
        if unknown or not argv:
            what = f"the flags {', '.join(unknown)}" if unknown else "no words"
            raise Problem(
                f"{setting}= of {self._name} has a command with {what}, which mountnsctl does not know."
            )
        prefix = "".join(_PREFIXES[flag] for flag in flags)
        if "privileged" in flags:
            # It is outside of the sandbox of its unit, and so of the namespace.
            self.notes.append(f"{setting}=+{plain(path)} stays outside of the namespace, as + says.")
            return (prefix, [path, *argv[1:]]) if argv[0] == path else (f"{prefix}@", [path, *argv])
        as_it_is = "no-env-expand" in flags
        options = self._options(setting, flags)
        options += [
            f"--setenv={key}={value if as_it_is else literal(value)}" for key, value in self._moved.items()
        ]
        if argv[0] != path:
            if "$" in argv[0] and not as_it_is:
                raise Problem(
                    f"{setting}= of {self._name} has a variable in the name that @ gives to a command."
                )
            options.append(f"--argv0={argv[0]}")
        command = path if as_it_is else literal(path)
        return prefix, [self._program, "exec", *options, self._namespace, "--", command, *argv[1:]]

    def _options(self, setting: str, flags: list[str]) -> list[str]:
        options = []
        if self._runs_as_root(setting, flags):
            if self._bounding:
                options.append(f"--drop-capabilities={','.join(capabilities.names_of(self._bounding))}")
        elif (given := self._ambient | self._bounding) != capabilities.USERS_WAY_IN:
            options.append(f"--drop-capabilities={','.join(capabilities.names_of(given))}")
        if not self._properties.get("IgnoreSIGPIPE", True):
            options.append("--sigpipe=default")
        return options


def _commands_of(properties: dict[str, Any], setting: str) -> list[tuple[str, list[str], list[str]]]:
    """The commands of a setting: path, argv, flags."""
    return [(path, argv, flags) for path, argv, flags, *_ in properties.get(f"{setting}Ex", ())]


def _refused_calls(allowed: bool, names: list[str]) -> list[str]:
    """What a filter of system calls keeps from exec.  `name:errno` is in both kinds of list what is refused."""
    plainly = {name for name in names if ":" not in name}
    if allowed:
        return sorted(SYSTEM_CALLS - plainly)
    return sorted(SYSTEM_CALLS & {name.partition(":")[0] for name in names})


def _is_root(user: str) -> bool:
    if user in ("", "0"):
        return True
    try:
        return pwd.getpwnam(user).pw_uid == 0
    except (KeyError, ValueError):
        return False
