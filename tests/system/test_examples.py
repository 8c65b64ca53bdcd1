# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples for administrators: a rule, a declared namespace with a service in it, and both by Ansible."""

from collections.abc import Iterator

import pytest
from support.deb import REPOSITORY
from support.host import MEMBER, OUTSIDER, Host

_EXAMPLES = REPOSITORY / "examples"
_RULES = "/etc/polkit-1/rules.d/50-mountnsd-build.rules"
_PLACES = {
    "build.toml": "/etc/mountnsd/namespaces/build.toml",
    "builder.service": "/etc/systemd/system/builder.service",
}


def test_the_rule(host: Host) -> None:
    for name in ("build-1", "other"):
        host.run("mountnsctl", "create", name)
    host.machine.write(_RULES, (_EXAMPLES / "50-mountnsd-build.rules").read_text())
    try:

        def enters(user: str, name: str) -> bool:
            command = ("mountnsctl", "--no-ask-password", "enter", name, "true")
            return host.run(*command, user=user, check=False).returncode == 0

        host.wait_for("polkitd has read the rule", lambda: enters(MEMBER, "build-1"))
        assert not enters(MEMBER, "other")
        assert not enters(OUTSIDER, "build-1")
    finally:
        host.run("rm", _RULES)
        host.run("mountnsctl", "destroy", "--kill", "build-1", "other")


@pytest.fixture
def cleared(host: Host) -> Iterator[None]:
    """What the examples set up is taken down again."""
    yield
    host.run("systemctl", "disable", "--now", "builder.service", "mountns@build.service", check=False)
    host.run("rm", "-f", *_PLACES.values())
    host.run("systemctl", "daemon-reload")


def _check(host: Host) -> None:
    host.wait_active("builder.service")
    host.wait_for(
        "it runs inside", lambda: int(host.show("builder.service", "MainPID")) in host.inside("build")
    )
    pid = host.show("builder.service", "MainPID")
    status = host.out("cat", f"/proc/{pid}/status")
    assert f"Uid:\t{host.out('id', '-u', 'nobody')}\t" in status
    assert "CapEff:\t0000000000000000" in status
    assert (
        host.out("mountnsctl", "exec", "build", "findmnt", "--noheadings", "--output=FSTYPE", "/var/tmp")
        == "tmpfs"
    )


def test_the_declaration_and_the_unit(host: Host, cleared: None) -> None:
    for example, place in _PLACES.items():
        host.machine.write(place, (_EXAMPLES / example).read_text())
    host.run("mountnsctl", "verify")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "enable", "--now", "builder.service")
    host.run("systemctl", "enable", "mountns@build.service")
    _check(host)


@pytest.mark.longest(300)
def test_by_ansible(host: Host, cleared: None) -> None:
    host.apt("install", "--no-install-recommends", "ansible-core")
    for example in (*_PLACES, "ansible.yml"):
        host.machine.write(f"/root/examples/{example}", (_EXAMPLES / example).read_text())
    play = ("ansible-playbook", "--connection=local", "--inventory=localhost,", "/root/examples/ansible.yml")
    first = host.run(*play, timeout=100, env={"LC_ALL": "C.UTF-8"})
    assert "changed=4 " in first.stdout
    _check(host)
    second = host.run(*play, timeout=100, env={"LC_ALL": "C.UTF-8"})
    assert "changed=0 " in second.stdout
