# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of org.mountnsd1(5) do what the page says, each on a namespace that is as the page has it."""

import contextlib
import os
import re
import signal
import subprocess

import pytest
from support import document
from support.buses import PrivateBus
from support.client import Client
from support.contract import create, destroy, entered, on
from support.daemon import REPOSITORY
from support.document import Command

PAGE = (REPOSITORY / "docs" / "org.mountnsd1.5.md").read_text()
EXAMPLES = [command for command in document.commands(PAGE) if command.text.startswith("busctl")]
OWN = re.compile(r"^# THE MANAGER OBJECT$(.*)^# STANDARD INTERFACES$", re.MULTILINE | re.DOTALL)
SIGNALS = {"NamespaceNew", "NamespaceRemoved", "Exited"}
# The numbers that the page has for the process inside.
PID = re.compile(r"\b238[0-9]{2}\b")
# The pins of other daemons on this machine are mounts of the host like any.
ELSEWHERE = re.compile(r' "removed" "[^"]*" "nsfs" "nsfs" "mnt:[^"]*" "rw"')


def test_every_method_has_one() -> None:
    own = OWN.search(PAGE)
    assert own
    methods = set(re.findall(r"^\*\*(\w+)\*\*\(", own[1], re.MULTILINE)) - SIGNALS
    assert len(methods) > 10
    for method in methods:
        assert [command for command in EXAMPLES if f" {method}" in command.text], method


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda command: str(command.text[:110]))
@pytest.mark.parametrize("bus", ["dbus-daemon"], indirect=True)
def test_example(bus: PrivateBus, root: Client, example: Command) -> None:
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address}
    if " Create " in example.text:
        _check(example, 0, environment)
        return
    create(root, "demo")
    on(root, "demo", "Mount", "ssss", "tmpfs", "/mnt", "tmpfs", "size=1m,nosuid")
    with entered(root, "demo", ["sleep", "60"]) as process:
        _check(example, process.pid, environment)
        with contextlib.suppress(ProcessLookupError):  # an example may have ended it
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    if "Destroy" not in example.text:
        destroy(root, "demo", kill=("b", True))


def _check(example: Command, inside: int, environment: dict[str, str]) -> None:
    """Run an example, the process of which has the pid `inside`, and compare."""
    line = PID.sub(str(inside), example.text)
    process = subprocess.Popen(
        ["sh", "-c", f"exec {line}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        if " monitor " in line:
            assert process.stderr is not None
            assert process.stderr.readline() == "Monitoring bus message stream.\n"
            process.terminate()
            return
        output, complaint = process.communicate(timeout=20)
    assert (process.returncode, complaint) == (0, "")
    output = ELSEWHERE.sub("", output)
    if example.output:
        assert document.comparable(output) == document.comparable(example.output)
