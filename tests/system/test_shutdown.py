# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine is switched off, with processes inside that will not end."""

from support.host import OUTSIDER, Host

_STUBBORN = "trap '' TERM HUP INT; while :; do sleep 1; done"


def test_stubborn_processes_do_not_hold_it_up(host: Host) -> None:
    host.create("build")
    with (
        host.entered("build", "sh", "-c", _STUBBORN),
        host.entered("build", f"--user={OUTSIDER}", "sh", "-c", _STUBBORN),
        host.entered(
            "build", "sh", "-c", f'cd /mnt; setsid unshare --mount sh -c "{_STUBBORN}" & {_STUBBORN}'
        ),
    ):
        assert host.machine.power_off() < 20
    assert not host.machine.runs
