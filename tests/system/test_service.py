# SPDX-License-Identifier: LGPL-2.1-or-later
"""A systemd service in a namespace: one written for it as the README has it, and one that was there before."""

import re
from collections.abc import Iterator

import pytest
from support.deb import REPOSITORY
from support.declared import DECLARATION, FILE, UNIT
from support.host import OUTSIDER, Host

_OTHER = "other.service"
_TEXT = """\
[Service]
User=bob
ExecStart=/usr/bin/sleep infinity
"""


def _unit() -> tuple[str, str]:
    """The README's unit, as it stands: its file and its text."""
    text = (REPOSITORY / "README.md").read_text()
    match = re.search(r"```systemd\n# (/etc/systemd/system/\S+\.service)\n(.*?)```", text, re.DOTALL)
    assert match, "the README gives no unit"
    return match[1], match[2]


def _namespace(host: Host, path: str) -> str:
    return host.out("stat", "--dereference", "--format=%i", path)


def _is_inside(host: Host, unit: str) -> bool:
    pid = host.show(unit, "MainPID")
    assert pid != "0", f"{unit} does not run"
    return _namespace(host, f"/proc/{pid}/ns/mnt") == _namespace(host, "/run/mountnsd/ns/build")


@pytest.fixture(autouse=True)
def declared(host: Host) -> Iterator[None]:
    """The declaration; and at the end nothing of what was started."""
    host.machine.write(FILE, DECLARATION)
    yield
    host.run("systemctl", "stop", "builder.service", _OTHER, UNIT, check=False)
    units = [f"/etc/systemd/system/{unit}" for unit in ("builder.service", _OTHER)]
    host.run("rm", "--force", "--recursive", FILE, *units, f"/etc/systemd/system/{_OTHER}.d")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "reset-failed")


def _status(host: Host, unit: str) -> dict[str, str]:
    lines = host.out("cat", f"/proc/{host.show(unit, 'MainPID')}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _command(host: Host, unit: str) -> str:
    return host.out("cat", f"/proc/{host.show(unit, 'MainPID')}/comm")


def test_the_unit_of_the_readme(host: Host) -> None:
    file, text = _unit()
    unit = file.rpartition("/")[2]
    assert unit == "builder.service"
    host.run("useradd", "--system", "builder")
    try:
        host.machine.write(file, text)
        host.run("systemctl", "daemon-reload")
        checked = host.run("systemd-analyze", "verify", "--man=no", file, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
        host.run("systemctl", "start", unit)
        assert host.active(UNIT)
        # The unit has started when mountnsctl has; the way in takes a moment more.
        host.wait_for("the service is inside", lambda: _is_inside(host, unit))
        host.wait_for("the command runs", lambda: _command(host, unit) == "sleep")
        status = _status(host, unit)
        assert status["Uid"].split() == [host.out("id", "--user", "builder")] * 4
        assert status["NoNewPrivs"] == "1"
        for field in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(status[field], 16) == 0, field
        host.run("systemctl", "restart", "mountnsd.service")
        assert host.active(unit)
        host.run("systemctl", "stop", UNIT)
        host.wait_inactive(unit)
        assert host.show(unit, "Result") == "success"
    finally:
        host.run("systemctl", "stop", unit, check=False)
        host.run("userdel", "builder")


def test_attach_and_detach(host: Host) -> None:
    host.machine.write(f"/etc/systemd/system/{_OTHER}", _TEXT)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", UNIT, _OTHER)
    assert not _is_inside(host, _OTHER)

    host.run("mountnsctl", "attach", "--now", _OTHER, "build")
    host.wait_active(_OTHER)
    host.wait_for("the service is inside", lambda: _is_inside(host, _OTHER))
    status = _status(host, _OTHER)
    assert status["Uid"].split() == [host.out("id", "--user", OUTSIDER)] * 4
    assert int(status["CapEff"], 16) == 0
    host.kill_daemon()
    host.run("systemctl", "restart", _OTHER)
    host.wait_for("the service is inside again", lambda: _is_inside(host, _OTHER))

    host.run("mountnsctl", "detach", "--now", _OTHER)
    host.wait_active(_OTHER)
    assert not _is_inside(host, _OTHER)
    assert host.show(_OTHER, "DropInPaths") == ""


def test_mounts_of_its_own_cannot_hold_beside_a_namespace(host: Host) -> None:
    host.machine.write(f"/etc/systemd/system/{_OTHER}", _TEXT + "PrivateTmp=yes\n")
    host.run("systemctl", "daemon-reload")
    refused = host.run("mountnsctl", "attach", _OTHER, "build", check=False)
    assert refused.returncode != 0
    assert "PrivateTmp=" in refused.stderr
    assert host.show(_OTHER, "DropInPaths") == ""
