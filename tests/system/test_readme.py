# SPDX-License-Identifier: LGPL-2.1-or-later
"""A reader who has only the README copies its commands: from nothing to a service in a declared namespace."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import document
from support.deb import REPOSITORY
from support.document import Command, File
from support.host import MEMBER, Host

_README = REPOSITORY / "README.md"
_SECTIONS = (
    "A namespace, with a name",
    "The same over D-Bus",
    "Who may",
    "Declared once, there after each boot",
    "A service inside",
)


@pytest.fixture
def fresh(host: Host, package: Path) -> Iterator[None]:
    """A system without the package, where it was built as the README says; it is installed again at the end."""
    host.apt("purge", "mountnsd")
    host.apt("install", "--no-install-recommends", "nginx")
    host.machine.put(package, f"/root/build/deb/{package.name}")
    yield
    host.run("systemctl", "disable", "--now", "builder.service", "nginx.service", check=False)
    host.run("systemctl", "disable", "--now", "mountns@build.service", check=False)
    host.run(
        "rm",
        "-rf",
        "/etc/systemd/system/builder.service",
        "/etc/mountnsd/namespaces/build.toml",
        "/srv/sources",
    )
    host.run("rm", "-rf", "/etc/polkit-1/rules.d/50-mountnsd-build.rules", "/root/build")
    host.run("userdel", "builder", check=False)
    host.run("systemctl", "daemon-reload")
    host.apt("purge", "nginx", "nginx-common")


def _type(host: Host, command: Command, status: int) -> int:
    """Do as the document says, after a command that ended with `status`; returns the exit status."""

    def typed() -> int:
        line = f"(exit {status}); {command.text}"
        result = host.run("sh", "-c", f"{{ {line}; }} 2>&1", user="" if command.root else MEMBER, check=False)
        said.append(result.stdout)
        return result.returncode

    said: list[str] = []
    done = typed()
    if not command.root and "not authorized" in said[-1]:
        raise AssertionError(said[-1])
    if command.output:
        assert document.comparable(said[-1]) == document.comparable(command.output), command.text
    elif command.root and command.text.startswith(("mountnsctl", "systemctl", "useradd", "mkdir")):
        assert done == 0, said[-1]
    return done


@pytest.mark.longest(300)
def test_from_nothing_to_a_service_in_a_declared_namespace(host: Host, fresh: None) -> None:
    build, install = document.steps(document.section(_README, "Install it"))
    assert isinstance(build, Command)
    assert build.text == "sudo make deb"
    assert isinstance(install, Command)
    host.run(
        "sh", "-c", "cd /root && " + install.text.replace("sudo apt ", "apt-get -qq --yes "), timeout=100
    )
    for title in _SECTIONS:
        status = 0
        for step in document.steps(document.section(_README, title)):
            if isinstance(step, File):
                host.machine.write(step.path, step.text)
                if step.path.endswith(".rules"):
                    host.run("systemctl", "restart", "polkit.service")
            else:
                status = _type(host, step, status)
    assert host.active("builder.service")
    pid = int(host.show("builder.service", "MainPID"))
    host.wait_for("it runs inside", lambda: pid in host.inside("build"))
    assert host.out("ps", "-o", "user=", "-p", str(pid)) == "builder"
    assert not host.show("nginx.service", "DropInPaths")
