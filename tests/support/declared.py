# SPDX-License-Identifier: LGPL-2.1-or-later
"""A declared namespace for the tests of booted systems, and what must be true of it."""

import json

from .host import Host

FILE = "/etc/mountnsd/namespaces/build.toml"
UNIT = "mountns@build.service"
DECLARATION = """\
description = "For builds"

[labels]
team = "tools"

[[mount]]
what = "tmpfs"
where = "/mnt"
type = "tmpfs"
options = "size=1M"
"""


def check(host: Host) -> None:
    """Raises: AssertionError if the namespace is not there as it is declared."""
    assert "build" in host.pins()
    (shown,) = json.loads(host.out("mountnsctl", "--json=short", "show", "build"))
    assert shown["description"] == "For builds"
    assert shown["labels"] == {"team": "tools"}
    inside = (
        "nsenter",
        "--mount=/run/mountnsd/ns/build",
        "findmnt",
        "--noheadings",
        "--output=FSTYPE,OPTIONS",
    )
    fstype, options = host.out(*inside, "/mnt").split()
    assert fstype == "tmpfs"
    assert "size=1024k" in options.split(",")
    assert host.run("findmnt", "/mnt", check=False).returncode == 1
