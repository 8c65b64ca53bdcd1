# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal tells the story of a namespace: who made, entered, changed and destroyed it."""

import json
from typing import Any

from support.host import MEMBER, Host

_RULES = "/etc/polkit-1/rules.d/50-journal.rules"
_RULE = f"""\
polkit.addRule(function(action, subject) {{
    if (action.id == "org.mountnsd1.enter" && action.lookup("name") == "story" && subject.user == "{MEMBER}")
        return polkit.Result.YES;
}});
"""
_STORY = [
    "Mount namespace story was created",
    "Something was mounted in mount namespace story",
    "A process entered mount namespace story",
    "A process in mount namespace story has ended",
    "Something was unmounted in mount namespace story",
    "Mount namespace story was destroyed",
]
_LOST = "Mount namespace story was taken away"


def _events(host: Host) -> list[dict[str, Any]]:
    lines = host.since_mark("--output=json", "MOUNTNS_NAME=story").splitlines()
    return [event for event in map(json.loads, lines) if "MESSAGE_ID" in event]


def _subjects(host: Host) -> list[str]:
    explained = host.since_mark("--catalog", "MOUNTNS_NAME=story").splitlines()
    return [line.partition("Subject: ")[2] for line in explained if "Subject: " in line]


def test_the_story_of_a_namespace(host: Host) -> None:
    host.machine.write(_RULES, _RULE)
    namespace = ("org.mountnsd1", "/org/mountnsd1/namespace/story", "org.mountnsd1.Namespace")
    try:
        host.run("systemd-run", "--wait", "--quiet", "--unit=storyteller", "mountnsctl", "create", "story")
        host.run(
            "busctl", "--system", "call", *namespace, "Mount", "ssss", "tmpfs", "/mnt", "tmpfs", "size=1m"
        )

        def entered() -> bool:
            command = ("mountnsctl", "enter", "story", "sh", "-c", "exit 7")
            return host.run(*command, user=MEMBER, check=False).returncode == 7

        host.wait_for("polkitd has read the rule", entered)
        host.run("busctl", "--system", "call", *namespace, "Unmount", "sa{sv}", "/mnt", "0")
        host.run("mountnsctl", "destroy", "story")
    finally:
        host.run("rm", _RULES)
    host.wait_for("all is told", lambda: len(_events(host)) >= len(_STORY))

    assert _subjects(host) == _STORY
    created, mounted, came, ended, _, _ = _events(host)
    member = host.out("id", "-u", MEMBER)
    assert (created["CALLER_UID"], created["CALLER_UNIT"]) == ("0", "storyteller.service")
    assert (mounted["MOUNTNS_WHERE"], mounted["MOUNTNS_OPTIONS"]) == ("/mnt", "size=1m")
    assert (came["CALLER_UID"], came["MOUNTNS_UID"]) == (member, member)
    assert came["MOUNTNS_PROGRAM"] == "sh"
    assert (ended["MOUNTNS_PID"], ended["MOUNTNS_STATUS"]) == (came["MOUNTNS_PID"], "7")


def test_what_is_done_to_it_without_asking(host: Host) -> None:
    host.run("mountnsctl", "create", "story")
    host.run("umount", "/run/mountnsd/ns/story")
    host.wait_for("it is told", lambda: len(_events(host)) >= 2)
    assert _subjects(host) == [_STORY[0], _LOST]
    assert _events(host)[-1]["PRIORITY"] == "4"
