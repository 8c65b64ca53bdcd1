# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way to a system bus elsewhere, as systemd's tools go it.

systemd-stdio-bridge(1) is run by ssh(1) on another host, or here for a container, which it enters.

Out of scope: what is said on the bus.  Sources: systemd's bus_set_address_system_remote(), ssh(1).
"""

from __future__ import annotations

import os
import re
import socket
import subprocess

from mountnsd.ctl.options import Arguments
from mountnsd.ctl.problem import Problem
from mountnsd.ctl.text import plain

BRIDGE = "systemd-stdio-bridge"
_SSH_FAILED = 255  # ssh's own, else it is that of the bridge
_NOT_FOUND = 127
_END_SECONDS = 5.0
_MACHINE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_HOST = re.compile(
    r"(?P<user>[^@:/\[\]\s-][^@:/\[\]\s]*@)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.]+)?)\]|(?P<host>[^@:/\[\]\s-][^@:/\[\]\s]*))"
    rf"(?::(?P<port>[0-9]{{1,5}}))?(?:/(?P<machine>{_MACHINE}))?"
)


class Bridge:
    """A program whose standard input and output are a connection to a bus elsewhere.

    Arguments: command; place: of which host or container, for messages; hint: what to do where it fails.
    """

    def __init__(self, command: list[str], place: str, hint: str = "") -> None:
        self.place = place
        self._hint = hint
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> socket.socket:
        """Start it; returns our end.  What it has to say itself goes to our standard error.  Raises: Problem."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    env={
                        "SYSTEMD_LOG_TARGET": "console",
                        **os.environ,
                    },  # where the bridge says what is wrong
                )
        except OSError as error:
            ours.close()
            program = self._command[0]
            raise Problem(
                f"Cannot reach {self.place}: '{program}' cannot be run ({error.strerror}); it must be installed here."
            ) from error
        return ours

    def reason(self) -> str:
        """Why the connection has ended, by how the program did."""
        if self._process is None:
            return "it was never there"
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return f"{self._name()} hung up"
        if status == _NOT_FOUND and len(self._command) > 2:
            return f"there is no {BRIDGE} there, which is part of systemd"
        if status == _SSH_FAILED and len(self._command) > 2:
            return f"{self._name()} ended with status {status}, and has said why"
        if status < 0:
            return f"{self._name()} was ended by signal {-status}"
        return f"{self._name()} ended with status {status}{self._hint}"

    def _name(self) -> str:
        return os.path.basename(self._command[0])

    def close(self) -> None:
        """End the program."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def bridge_for(arguments: Arguments) -> Bridge | None:
    """The way to the bus that a command line means, None for that of this host.  Raises: Problem."""
    if arguments.host is not None:
        return to_host(arguments.host)
    return to_container(arguments.machine) if arguments.machine is not None else None


def to_host(text: str) -> Bridge:
    """The way to [USER@]HOST[:PORT][/CONTAINER]; IPv6 addresses stand in brackets.

    No part can be an option of ssh, or of the shell that ssh has run its words.  Raises: Problem.
    """
    match = _HOST.fullmatch(text)
    if match is None or not text.isprintable():
        raise Problem(
            f"'{text}' is no host for --host=: it is [USER@]HOST[:PORT][/CONTAINER], with an IPv6 address in "
            "brackets, and does not begin with '-'."
        )
    port = ["-p", match["port"]] if match["port"] else []
    machine = [f"--machine={match['machine']}"] if match["machine"] else []
    name = (match["user"] or "") + (match["ipv6"] or match["host"])
    ssh = os.environ.get("SYSTEMD_SSH") or "ssh"
    place = f"host '{plain(name)}'"
    if match["machine"]:
        place = f"container '{match['machine']}' of {place}"
    return Bridge([ssh, "-xT", *port, "--", name, BRIDGE, *machine], place)


def to_container(name: str) -> Bridge:
    """The way into a container that systemd-machined knows.  Raises: Problem."""
    if not re.fullmatch(_MACHINE, name):
        raise Problem(f"'{name}' is no name of a container for --machine=: 'machinectl list' shows them.")
    if os.geteuid() != 0:
        raise Problem("--machine= enters the container, and that needs root: try it with sudo.")
    hint = "; 'machinectl list' shows the containers that run"
    return Bridge([BRIDGE, f"--machine={name}"], f"container '{name}'", hint)
