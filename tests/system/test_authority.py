# SPDX-License-Identifier: LGPL-2.1-or-later
"""Users who are not root: what the real polkitd lets them do, by the rule that the README gives."""

import re
from collections.abc import Iterator

import pytest
from support.deb import REPOSITORY
from support.host import MEMBER, OUTSIDER, Host

_RULE_FILE = "/etc/polkit-1/rules.d/50-mountnsd-build.rules"


def _rule() -> str:
    """The README's rule, as it stands."""
    text = (REPOSITORY / "README.md").read_text()
    match = re.search(r"`(/etc/polkit-1/rules\.d/\S+)`:\n\n```javascript\n(.*?)```", text, re.DOTALL)
    assert match, "the README gives no rule"
    assert match[1] == _RULE_FILE
    return match[2]


def _enters(host: Host, user: str, name: str = "build") -> bool:
    result = host.run(
        "mountnsctl", "--no-ask-password", "enter", name, "id", "--user", "--name", user=user, check=False
    )
    if result.returncode == 0:
        assert result.stdout == f"{user}\n"
        return True
    assert result.stdout == ""
    assert result.stderr.startswith("mountnsctl: "), result.stderr
    return False


@pytest.fixture
def build(host: Host) -> Iterator[None]:
    """A namespace that the rule is about, and one that it is not about."""
    host.create("build")
    host.create("other")
    yield
    host.run("mountnsctl", "destroy", "build", "other")


@pytest.fixture
def rule(host: Host, build: None) -> Iterator[None]:
    """The README's rule in force."""
    host.machine.write(_RULE_FILE, _rule())
    host.wait_for("polkit knows the rule", lambda: _enters(host, MEMBER))
    yield
    host.run("rm", "--force", _RULE_FILE)
    host.wait_for("polkit has forgotten the rule", lambda: not _enters(host, MEMBER))


def test_without_a_rule_nobody_enters(host: Host, build: None) -> None:
    assert not _enters(host, MEMBER)
    assert not _enters(host, OUTSIDER)


def test_the_group_enters_its_namespace_each_as_himself(host: Host, rule: None) -> None:
    inside = host.out("mountnsctl", "enter", "build", "sh", "-c", "id; ls /mnt", user=MEMBER)
    assert inside == f"{host.out('id', user=MEMBER)}\nhi-there"
    assert "(build)" in inside
    assert not _enters(host, OUTSIDER)
    assert not _enters(host, MEMBER, "other")


def test_the_readme_is_right_about_the_exit_status(host: Host, rule: None) -> None:
    story = (REPOSITORY / "README.md").read_text()
    command = "grep NoNewPrivs /proc/self/status; exit 3"
    assert f"$ mountnsctl enter build sh -c '{command}'\n    NoNewPrivs:\t1\n    $ echo $?\n    3\n" in story
    result = host.run("mountnsctl", "enter", "build", "sh", "-c", command, user=MEMBER, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "NoNewPrivs:\t1\n", "")


def test_who_may_enter_may_nothing_else(host: Host, rule: None) -> None:
    for arguments in (
        ("enter", "--user=root", "build", "id"),
        ("destroy", "build"),
        ("create", "mine"),
        ("exec", "build", "id"),
    ):
        result = host.run("mountnsctl", "--no-ask-password", *arguments, user=MEMBER, check=False)
        assert result.returncode != 0, arguments
        assert result.stdout == ""
    assert host.pins() == {"build", "other"}


def test_everybody_may_list(host: Host, build: None) -> None:
    assert host.out("mountnsctl", "list", user=OUTSIDER) == host.out("mountnsctl", "list")
    assert "/mnt" in host.out("mountnsctl", "mounts", "build", user=OUTSIDER)


def test_without_polkit_only_root_may(host: Host, rule: None) -> None:
    host.run("systemctl", "mask", "--runtime", "--now", "polkit.service")
    try:
        assert not _enters(host, MEMBER)
        assert host.out("mountnsctl", "enter", "build", "id", "--user") == "0"
    finally:
        host.run("systemctl", "unmask", "--runtime", "polkit.service")
    host.wait_for("polkit is there again", lambda: _enters(host, MEMBER))
