# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl exec` as systemd runs it for a service: as another user, with capabilities for the way in."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.execute import ENVIRONMENT, TIMEOUT, WAY_IN, Exec, Result, service_world, user
from support.identity import NOBODY

from mountnsd.ctl import capabilities


@pytest.fixture
def ns(directory: Path) -> Iterator[Exec]:
    with service_world(directory) as made:
        yield made


def status(result: Result) -> dict[str, str]:
    """What /proc/self/status says of the command."""
    assert (result.returncode, result.stderr) == (0, ""), result
    return dict(re.findall(r"^(\w+):\s*(.*)$", result.stdout, re.MULTILINE))


def sets(result: Result) -> dict[str, int]:
    """The capability sets of the command."""
    found = status(result)
    return {name: int(found[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


READ = ("cat", "/proc/self/status")


def test_a_user_enters_and_has_no_capability(ns: Exec, directory: Path) -> None:
    result = ns(*READ, identity=user(*WAY_IN))
    found = status(result)
    assert found["Uid"].split() == [str(NOBODY)] * 4
    assert found["Gid"].split() == [str(NOBODY)] * 4
    assert found["Groups"].split() == ["33", "44"]
    assert found["NoNewPrivs"] == "1"
    caps = sets(result)
    assert [caps[name] for name in ("Inh", "Prm", "Eff", "Amb")] == [0, 0, 0, 0]
    inode = os.stat(f"/proc/{os.getpid()}/ns/mnt").st_ino
    seen = ns("readlink", "/proc/self/ns/mnt", identity=user(*WAY_IN)).stdout
    assert re.fullmatch(r"mnt:\[\d+\]\n", seen)
    assert seen != f"mnt:[{inode}]\n"
    assert ns("ls", str(directory), identity=user(*WAY_IN)).stdout.split() == ["hi-there", "stays"]


def test_the_capabilities_of_the_service_stay(ns: Exec) -> None:
    own = capabilities.mask_of("CAP_NET_BIND_SERVICE")
    caps = sets(ns(*READ, identity=user(*WAY_IN, "net_bind_service")))
    assert [caps[name] for name in ("Inh", "Prm", "Eff", "Amb")] == [own] * 4


def test_another_list_to_drop(ns: Exec) -> None:
    drop = ("--drop-capabilities=CAP_SYS_CHROOT,cap_dac_read_search",)
    caps = sets(ns(*READ, identity=user(*WAY_IN), options=drop))
    assert caps["Eff"] == caps["Amb"] == capabilities.SYS_ADMIN
    assert sets(ns(*READ, identity=user(*WAY_IN), options=("--drop-capabilities=",)))["Eff"] == (
        capabilities.USERS_WAY_IN
    )


def test_the_bounding_set_where_it_may_be_cut(ns: Exec) -> None:
    drop = ("--drop-capabilities=CAP_SYS_ADMIN,CAP_SYS_CHROOT,CAP_DAC_READ_SEARCH,CAP_SETPCAP",)
    caps = sets(ns(*READ, identity=user(*WAY_IN, "setpcap"), options=drop))
    assert caps["Bnd"] & (capabilities.USERS_WAY_IN | capabilities.SETPCAP) == 0
    assert caps["Bnd"] != 0
    assert caps["Eff"] == caps["Inh"] == 0


def test_root_keeps_all_but_what_it_is_told(ns: Exec) -> None:
    before = sets(ns(*READ))
    assert before["Eff"] & capabilities.SYS_ADMIN
    assert status(ns(*READ))["NoNewPrivs"] == "0"
    after = sets(ns(*READ, options=("--drop-capabilities=CAP_SYS_ADMIN,CAP_SETPCAP",)))
    gone = capabilities.SYS_ADMIN | capabilities.SETPCAP
    assert after == {**before, **{name: before[name] & ~gone for name in ("Prm", "Eff", "Bnd")}}


def test_root_that_could_not_drop_is_told(ns: Exec) -> None:
    result = ns(*READ, identity=("--bounding-set=-setpcap",), options=("--drop-capabilities=CAP_SYS_ADMIN",))
    assert (result.returncode, result.stdout) == (1, "")
    assert "CAP_SETPCAP" in result.stderr
    assert ns("true", options=("--drop-capabilities=CAP_BOGUS",)).returncode == 1


def test_process_descriptors_and_environment_stay(ns: Exec) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        script = f"echo $$ $LISTEN_FDS $NOTIFY_SOCKET >&{number}; ls /proc/self/fd; env"
        environment = {**ENVIRONMENT, "LISTEN_FDS": "1", "NOTIFY_SOCKET": "@x", "PYTHONPATH": "/nowhere"}
        result = ns(
            *("bash", "-c", script),
            identity=user(*WAY_IN),
            pass_fds=(number,),
            env=environment,
        )
        assert result.returncode == 0, result.stderr
        pid, fds, notify = ours.recv(100).decode().split()
    assert (fds, notify) == ("1", "@x")
    assert f"SYSTEMD_EXEC_PID={pid}\n" in result.stdout  # the process is the one that was started
    # The last is of ls itself.
    assert {word for word in result.stdout.split() if word.isdecimal()} == {"0", "1", "2", "3", str(number)}
    found = {line.partition("=")[0] for line in result.stdout.splitlines() if "=" in line}
    assert found - {"PWD", "OLDPWD", "SHLVL", "_"} == {*environment, "SYSTEMD_EXEC_PID"}


def test_sigpipe_is_as_systemd_has_it(ns: Exec) -> None:
    sigpipe = 1 << 12

    def ignored(**more: Any) -> int:
        return int(status(ns(*READ, **more))["SigIgn"], 16) & sigpipe

    assert ignored() == sigpipe
    assert ignored(service=False) == 0
    assert ignored(options=("--sigpipe=default",)) == 0
    assert ignored(options=("--sigpipe=ignore",), service=False) == sigpipe


def test_working_directory(ns: Exec, directory: Path) -> None:
    (directory / "stays").mkdir()
    (directory / "goes").mkdir()
    assert ns("pwd", identity=user(*WAY_IN), cwd=directory / "stays").stdout == f"{directory}/stays\n"
    assert ns("pwd", identity=user(*WAY_IN), cwd=directory / "goes").stdout == "/\n"


def test_a_directory_that_only_the_capability_reaches(ns: Exec, directory: Path) -> None:
    """The working directory is found as the user, whose capabilities are gone by then."""
    ns("sh", "-c", f"mkdir -m 0700 {directory}/closed && mkdir {directory}/closed/in")
    (directory / "closed" / "in").mkdir(parents=True)
    assert ns("pwd", cwd=directory / "closed" / "in").stdout == f"{directory}/closed/in\n"
    assert ns("pwd", identity=user(*WAY_IN), cwd=directory / "closed" / "in").stdout == "/\n"


def test_name_and_variables_of_the_command(ns: Exec) -> None:
    options = ("--argv0=odd name", "--setenv=LD_LIBRARY_PATH=/nowhere")
    result = ns("/bin/sh", "-c", 'echo "$0" "$LD_LIBRARY_PATH"; cat /proc/$$/cmdline', options=options)
    assert result.stdout.startswith("odd name /nowhere\nodd name\0-c\0")


@pytest.mark.parametrize("lacking", WAY_IN)
def test_each_capability_is_needed(ns: Exec, lacking: str) -> None:
    result = ns("true", identity=user(*(name for name in WAY_IN if name != lacking)))
    assert result.returncode == 1
    said = {
        "sys_admin": "needs root",
        "sys_chroot": "CAP_SYS_CHROOT",
        "dac_read_search": "CAP_DAC_READ_SEARCH",
    }
    assert said[lacking] in result.stderr


def test_a_service_that_sees_no_pin_does_not_ask_the_daemon(ns: Exec) -> None:
    environment = {**ENVIRONMENT, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere"}
    result = ns("true", options=("--runtime-directory=/nowhere",), env=environment)
    assert result.returncode == 1
    assert "PrivateTmp=" in result.stderr
    assert "bus" not in result.stderr
    result = ns("true", options=("--runtime-directory=/nowhere",), env=environment, service=False)
    assert "bus" in result.stderr


def test_nothing_of_the_namespace_is_read_with_capabilities(ns: Exec, directory: Path) -> None:
    """From setns to the end of the capabilities there is no call but those that end them."""
    trace = directory / "trace"
    trace.touch()
    words = [*user(*WAY_IN), "strace", "-o", str(trace), str(ns.program), "exec"]
    trace.chmod(0o666)
    result = subprocess.run(
        ["setpriv", *words, f"--runtime-directory={ns.run}", "ns", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env=ENVIRONMENT,
    )
    assert result.returncode == 0, result.stderr
    calls = re.findall(r"^(\w+)\(", trace.read_text(), re.MULTILINE)
    inside = calls[calls.index("setns") :]
    assert inside[: inside.index("execve") + 1] == [
        "setns",
        "capget",
        "capset",
        "capget",
        "close",
        "chdir",
        "execve",
    ]
