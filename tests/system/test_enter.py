# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is entered is a unit of systemd's: where it is seen, what it may, how it ends, what it may use."""

import json
import re
from collections.abc import Iterator

import pytest
from support.host import OUTSIDER, Host

_SLICE = "mountns-build.slice"
_UNIT = re.compile(r"mountns-build-[0-9a-f]{16}\.service")
_STUBBORN = "trap '' TERM HUP INT; while :; do sleep 1; done"


@pytest.fixture(autouse=True)
def build(host: Host) -> Iterator[None]:
    """A namespace."""
    host.create("build")
    yield
    host.run("mountnsctl", "destroy", "--kill", "build", check=False)


@pytest.fixture
def sleeper(host: Host) -> Iterator[int]:
    """The pid of a process that root has entered."""
    with host.entered("build", "sleep", "600") as pid:
        yield pid


def _fields(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _status(host: Host, pid: str) -> dict[str, str]:
    return _fields(host.out("cat", f"/proc/{pid}/status"))


def test_each_process_has_a_unit_in_the_slice_of_its_namespace(host: Host, sleeper: int) -> None:
    path = host.out("cat", f"/proc/{sleeper}/cgroup").splitlines()[-1].removeprefix("0::/")
    top, middle, unit = path.split("/")
    assert (top, middle) == ("mountns.slice", _SLICE)
    assert _UNIT.fullmatch(unit)
    assert host.show(unit, "MainPID") == str(sleeper)
    assert host.show(unit, "Transient") == "yes"
    with host.entered("build", "sleep", "601") as second:
        assert host.unit_of(second) != unit
        assert set(host.units("mountns-build-*.service")) == {unit, host.unit_of(second)}
    host.wait_for(
        "the unit is gone with its process", lambda: host.units("mountns-build-*.service") == [unit]
    )


def test_a_dash_in_the_name_is_no_slice_in_a_slice(host: Host) -> None:
    host.create("my-build")
    with host.entered("my-build", "sleep", "600") as pid:
        escaped = host.out("systemd-escape", "my-build")
        assert escaped == "my\\x2dbuild"
        path = host.out("cat", f"/proc/{pid}/cgroup").splitlines()[-1]
        assert path.startswith(f"0::/mountns.slice/mountns-{escaped}.slice/mountns-{escaped}-")
    host.run("mountnsctl", "destroy", "my-build")


def test_systemd_shows_it(host: Host, sleeper: int) -> None:
    unit = host.unit_of(sleeper)
    status = host.out("systemctl", "status", "--no-pager", "--full", unit)
    assert re.search(rf"Main PID: {sleeper} \(sleep\)", status)
    assert "Active: active (running)" in status
    tree = host.out("systemd-cgls", "--no-pager", "--full", "--unit", "mountns.slice")
    lines = tree.splitlines()
    slice_at, unit_at = (next(n for n, line in enumerate(lines) if text in line) for text in (_SLICE, unit))
    assert slice_at < unit_at
    assert any(re.search(rf"─ *{sleeper} sleep 600$", line) for line in lines[unit_at + 1 :])
    shown = host.out("mountnsctl", "pids", "--no-legend", "build").split()
    assert (shown[:2], shown[3:]) == ([str(sleeper), "root"], ["sleep"])
    assert json.loads(host.out("mountnsctl", "-j", "pids", "build"))[0]["unit"] == unit


def test_mountnsctl_shows_units_and_log(host: Host, sleeper: int) -> None:
    status = host.out("mountnsctl", "status", "build")
    assert re.search(rf"^ +Slice: {_SLICE}: active", status, re.MULTILINE)
    assert re.search(r"^ +Unit: mountns@build\.service: inactive \(dead\)", status, re.MULTILINE)
    assert re.search(rf"^ +{sleeper} root {host.unit_of(sleeper)} sleep$", status, re.MULTILINE)
    assert re.search(r"^ +\+ /mnt +tmpfs +tmpfs$", status, re.MULTILINE)
    host.run("systemctl", "start", "mountns@kept.service")
    host.run("journalctl", "--sync")
    for user, reads in (("root", True), (OUTSIDER, False)):
        status = host.run("mountnsctl", "status", "kept", user=user).stdout
        assert re.search(r"^ +Unit: mountns@kept\.service: active \(exited\)", status, re.MULTILINE)
        assert ("Mount Namespace kept" in status) == reads
    host.run("systemctl", "stop", "mountns@kept.service")


def test_mountnsctl_shows_who_keeps_it(host: Host, sleeper: int) -> None:
    kept = json.loads(host.out("mountnsctl", "-j", "busy", "build"))
    assert kept["complete"]
    assert [(row["kind"], row["pid"], row["comm"]) for row in kept["holders"]] == [
        ("process", sleeper, "sleep")
    ]
    assert host.out("mountnsctl", "which", str(sleeper)) == "build"


def test_root_is_the_root_of_the_system(host: Host, sleeper: int) -> None:
    first, inside, daemon = (_status(host, str(pid)) for pid in (1, sleeper, host.daemon()))
    for field in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters"):
        assert inside[field] == first[field], field
    assert inside["NoNewPrivs"] == "0"
    plain = _fields(host.out("systemd-run", "--quiet", "--pipe", "cat", "/proc/self/status"))
    for field in ("CapInh", "CapAmb", "Uid", "Gid", "SigBlk"):
        assert inside[field] == plain[field], field
    assert daemon["CapBnd"] != first["CapBnd"]  # of the daemon's sandbox nothing comes along
    assert daemon["Seccomp_filters"] != first["Seccomp_filters"]
    score = host.out("cat", f"/proc/{sleeper}/oom_score_adj", "/proc/1/oom_score_adj").splitlines()
    assert score[0] == score[1]


def test_a_user_gains_nothing(host: Host) -> None:
    with host.entered("build", "--user=bob", "sleep", "600") as pid:
        inside = _status(host, str(pid))
    assert inside["NoNewPrivs"] == "1"
    assert inside["Uid"].split() == [host.out("id", "--user", OUTSIDER)] * 4
    for field in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(inside[field], 16) == 0, field


def test_without_descriptors_the_output_is_in_the_journal(host: Host) -> None:
    host.call("Enter", "sasa{uh}a{sv}", "build", "3", "sh", "-c", "echo a story; echo a fault >&2", "0", "0")

    def entries() -> dict[str, dict[str, str]]:
        lines = host.since_mark("--identifier=mountns-build", "--output=json").splitlines()
        return {entry["MESSAGE"]: entry for entry in map(json.loads, lines)}

    host.wait_for("both lines are in the journal", lambda: {"a story", "a fault"} <= set(entries()))
    for entry in (entries()["a story"], entries()["a fault"]):
        assert entry["SYSLOG_IDENTIFIER"] == "mountns-build"
        assert _UNIT.fullmatch(entry["_SYSTEMD_UNIT"]), entry["_SYSTEMD_UNIT"]
        assert entry["_SYSTEMD_SLICE"] == _SLICE


def test_the_exit_status_is_the_command_s(host: Host) -> None:
    assert host.run("mountnsctl", "enter", "build", "sh", "-c", "exit 7", check=False).returncode == 7
    assert host.run("mountnsctl", "enter", "build", "sh", "-c", "kill -9 $$", check=False).returncode == 137
    assert host.run("mountnsctl", "enter", "build", "/nowhere", check=False).returncode == 127
    host.wait_for("the units are gone", lambda: host.units("mountns-build-*.service") == [])


def test_nothing_stays_of_what_has_ended(host: Host) -> None:
    places = ("find", "/run", "-xdev", "-name", "*mountns-build*")
    before = host.out(*places)
    for _ in range(3):
        host.run("mountnsctl", "enter", "build", "true")
    host.wait_for("the units are gone", lambda: host.units("mountns-build-*.service") == [])
    host.wait_for("their records are gone", lambda: host.out("ls", "/run/mountnsd/entered") == "")
    assert host.out(*places) == before


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_the_exit_status_comes_though_the_daemon_ends_meanwhile(host: Host, how: str) -> None:
    command = "echo began; sleep 2; exit 7"
    with host.machine.start("mountnsctl", "enter", "build", "sh", "-c", command) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "began\n"
        if how == "killed":
            host.kill_daemon()
        else:
            host.run("systemctl", "restart", "mountnsd.service")
        said, _ = client.communicate(timeout=15)
    assert (client.returncode, said) == (7, "")


def test_destroy_asks_first_and_then_kills_all(host: Host) -> None:
    polite = "trap '' HUP; trap 'echo asked > /root/asked; exit' TERM; while :; do sleep 0.1; done"
    elsewhere = f'setsid unshare --mount sh -c "{_STUBBORN}"'
    with (
        host.entered("build", "sh", "-c", polite),
        host.entered("build", "sh", "-c", _STUBBORN) as stubborn,
        host.entered("build", "sh", "-c", f"{elsewhere} & {_STUBBORN}") as parent,
    ):
        host.wait_for("it has a child elsewhere", lambda: _elsewhere(host, parent))
        (child,) = _elsewhere(host, parent)
        refused = host.run("mountnsctl", "destroy", "build", check=False)
        assert refused.returncode != 0
        assert f"{stubborn}" in refused.stderr
        host.run("mountnsctl", "destroy", "--kill", "build")
        assert host.pins() == set()
        assert host.out("cat", "/root/asked") == "asked"
        for pid in (stubborn, parent, child):
            assert not host.machine.path(f"/proc/{pid}").exists()
    assert host.units("mountns-build*") == []
    host.run("rm", "/root/asked")


def _elsewhere(host: Host, parent: int) -> list[int]:
    """The shells in the unit of PARENT that are in another mount namespace."""
    unit = host.show(host.unit_of(parent), "ControlGroup")
    all_of_it = host.out("cat", f"/sys/fs/cgroup{unit}/cgroup.procs").split()
    shells = host.run("pgrep", "--exact", "sh", check=False).stdout.split()
    pids = [pid for pid in all_of_it if pid in shells]
    links = {pid: host.run("readlink", f"/proc/{pid}/ns/mnt", check=False).stdout for pid in pids}
    return [int(pid) for pid, link in links.items() if link and link != links[str(parent)]]


def test_stopping_the_slice_ends_what_was_entered(host: Host, sleeper: int) -> None:
    host.run("systemctl", "stop", _SLICE)
    assert not host.machine.path(f"/proc/{sleeper}").exists()
    assert host.has_file("build")


def test_limits_of_the_slice_hold_inside(host: Host) -> None:
    host.run("systemctl", "set-property", "--runtime", _SLICE, "MemoryMax=32M", "MemorySwapMax=0")
    try:
        with host.entered("build", "sleep", "600") as pid:
            assert host.show(_SLICE, "MemoryMax") == str(32 << 20)
            assert host.show(host.unit_of(pid), "Slice") == _SLICE
            group = f"/sys/fs/cgroup/mountns.slice/{_SLICE}"
            if "memory" in host.out("cat", f"{group}/cgroup.controllers").split():
                assert host.out("cat", f"{group}/memory.max") == str(32 << 20)
                hog = host.run("mountnsctl", "enter", "build", "tail", "/dev/zero", check=False)
                assert hog.returncode == 137
                killed = dict(line.split() for line in host.out("cat", f"{group}/memory.events").splitlines())
                assert int(killed["oom_kill"]) >= 1
            else:  # the kernel's memory controller is with control groups of version 1, which systemd cannot use
                assert "memory" not in host.out("cat", "/sys/fs/cgroup/cgroup.controllers").split()
    finally:
        host.run("systemctl", "revert", _SLICE, check=False)
