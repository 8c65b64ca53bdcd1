# SPDX-License-Identifier: LGPL-2.1-or-later
"""mountnsctl against the real daemon on a private bus, as root and as somebody else, with pipes and on a terminal."""

import os
import re
import signal
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.buses import PrivateBus
from support.ctl import PROGRAM, TIMEOUT, Ctl, Terminal, wait_until
from support.daemon import Daemon
from support.identity import NOBODY
from support.polkit import Polkit

# --- what there is


def test_walkthrough(ctl: Ctl, daemon: Daemon) -> None:
    ctl.ok("exec", "demo", "sh", "-c", "mount -t tmpfs hidden /mnt && touch /mnt/hi-there")
    assert not Path("/mnt/hi-there").exists()
    assert "/mnt tmpfs" not in Path("/proc/mounts").read_text()
    (inode,) = daemon.pinned()
    assert ctl.ok("list") == (
        f"NAME INODE            OWNER PROCESSES\ndemo mnt:[{inode}] root          0\n\n1 namespaces listed.\n"
    )
    assert ctl.ok() == ctl.ok("list")
    assert ctl.ok("enter", "demo", "ls", "/mnt") == "hi-there\n"
    assert re.search(r"^[├└]─/mnt +hidden +tmpfs +rw", ctl.ok("mounts", "demo"), re.MULTILINE)
    ctl.ok("destroy", "demo")
    assert ctl.ok("list") == "No namespaces.\n"
    assert not (daemon.pins / "demo").exists()


def test_create_show_and_json(ctl: Ctl, daemon: Daemon) -> None:
    made = ctl.json("create", "b-1", "--description=A test", "--label=x=y", "--propagation=private")
    assert made == {"name": "b-1", "path": "/org/mountnsd1/namespace/b_2d1"}
    listed = ctl.json("list")
    assert [(item["name"], item["owner"], item["processes"]) for item in listed] == [
        ("b-1", 0, 0),
        ("demo", 0, 0),
    ]
    (shown,) = ctl.json("show", "b-1")
    assert shown["path"] == made["path"]
    assert os.path.samefile(shown["pin"], daemon.pins / "b-1")
    assert shown["inode"] == listed[0]["inode"] == (daemon.pins / "b-1").stat().st_ino
    assert (shown["propagation"], shown["description"], shown["labels"]) == ("private", "A test", {"x": "y"})
    assert (shown["state"], shown["processes"], shown["owner"]) == ("active", 0, 0)
    assert abs(shown["created_usec"] / 1e6 - time.time()) < 60
    text = ctl.ok("show", "b-1", "demo")
    assert text.startswith("Name=b-1\n")
    assert "\n\nName=demo\n" in text
    assert ctl("create", "demo").returncode == 1
    ctl.ok("create", "demo", "--if-not-exists")
    ctl.ok("exec", "demo", "mount", "-t", "tmpfs", "copied", "/mnt")
    ctl.ok("create", "copy", "--from=demo")
    assert any(mount["source"] == "copied" for mount in ctl.json("mounts", "copy"))
    ctl.ok("destroy", "demo", "b-1", "copy")


def test_pids_and_busy(ctl: Ctl) -> None:
    process = ctl.start("exec", "demo", "sh", "-c", "echo ready; read x")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (found,) = ctl.json("pids", "demo")
    assert (found["pid"], found["uid"], found["comm"]) == (process.pid, 0, "sh")
    assert re.search(rf"^ *{process.pid} root +\S+ +sh$", ctl.ok("pids", "demo"), re.MULTILINE)
    busy = ctl("destroy", "demo")
    assert busy.returncode == 1
    assert str(process.pid) in busy.stderr
    lazy = ctl("destroy", "demo", "--lazy")
    assert lazy.returncode == 0
    assert str(process.pid) in lazy.stderr
    process.communicate("x\n", TIMEOUT)


def test_destroy_kills(ctl: Ctl) -> None:
    process = ctl.start("enter", "demo", "sh", "-c", "echo ready; read x")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    ((_, pids),) = [item.values() for item in ctl.json("destroy", "demo", "--kill")]
    assert len(pids) == 1
    assert process.wait(TIMEOUT) in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    process.communicate()


def test_what_a_namespace_says_cannot_steer_a_terminal(ctl: Ctl) -> None:
    ctl.ok("exec", "demo", "sh", "-c", r"""d=$(printf '/tmp/\033[2Jx'); mkdir "$d"; mount -t tmpfs t "$d" """)
    try:
        assert r"/tmp/\x1b[2Jx" in ctl.ok("mounts", "demo")
        assert "/tmp/\x1b[2Jx" in [mount["target"] for mount in ctl.json("mounts", "demo")]
    finally:
        Path("/tmp/\x1b[2Jx").rmdir()


# --- exec


def test_exec_is_the_command(ctl: Ctl, directory: Path) -> None:
    result = ctl("exec", "demo", "sh", "-c", "pwd; cat; echo bad >&2; exit 9", cwd=directory, input="typed")
    assert (result.returncode, result.stdout, result.stderr) == (9, f"{directory}\ntyped", "bad\n")
    assert ctl("exec", "demo", "sh", "-c", "kill -9 $$").returncode == -9
    process = ctl.start("exec", "demo", "sh", "-c", "echo $$", stdin=subprocess.DEVNULL)
    assert process.communicate(timeout=TIMEOUT)[0] == f"{process.pid}\n"
    assert ctl.ok("exec", "demo", "ls", "--version").startswith("ls ")


def test_exec_where_the_directory_is_not_there(ctl: Ctl) -> None:
    place = Path("/mnt/only-outside")
    place.mkdir()
    try:
        ctl.ok("exec", "demo", "mount", "-t", "tmpfs", "t", "/mnt")
        assert ctl.ok("exec", "demo", "pwd", cwd=place) == "/\n"
    finally:
        place.rmdir()


def test_exec_hands_nothing_of_the_interpreter_on(ctl: Ctl) -> None:
    (ignored,) = re.findall(r"SigIgn:\t(\w+)", ctl.ok("exec", "demo", "cat", "/proc/self/status"))
    assert leaks.signals(ignored) == 0
    assert ctl.ok("exec", "demo", "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is of ls itself


def test_exec_of_what_cannot_be_run(ctl: Ctl) -> None:
    missing = ctl("exec", "demo", "no-such-command")
    assert missing.returncode == 127
    assert (
        missing.stderr
        == "mountnsctl: Cannot run 'no-such-command' in the namespace: No such file or directory.\n"
    )
    assert ctl("exec", "demo", "/etc/passwd").returncode == 126
    assert ctl("exec", "demo", "/").returncode == 126
    assert ctl("exec", "nope", "true").returncode == 1


def test_exec_asks_the_daemon_for_what_it_cannot_see(ctl: Ctl) -> None:
    inode = ctl.json("list")[0]["inode"]
    out = ctl.ok("exec", "--runtime-directory=/nowhere", "demo", "readlink", "/proc/self/ns/mnt")
    assert out == f"mnt:[{inode}]\n"
    fds = ctl.ok("exec", "--runtime-directory=/nowhere", "demo", "ls", "/proc/self/fd")
    assert fds.split() == ["0", "1", "2", "3"]


def test_exec_needs_no_daemon(ctl: Ctl, daemon: Daemon) -> None:
    inode = ctl.json("list")[0]["inode"]
    daemon.stop()
    assert ctl.ok("exec", "demo", "readlink", "/proc/self/ns/mnt") == f"mnt:[{inode}]\n"
    result = ctl("exec", "nope", "true")
    assert result.returncode == 1
    assert "systemctl start mountnsd" in result.stderr


# --- enter, with pipes


def test_enter_has_our_descriptors(ctl: Ctl) -> None:
    result = ctl("enter", "demo", "sh", "-c", "cat; echo bad >&2; exit 9", input="typed\n" * 50_000)
    assert result.returncode == 9
    assert result.stdout == "typed\n" * 50_000
    assert result.stderr == "bad\n"
    inode = ctl.json("list")[0]["inode"]
    assert ctl.ok("enter", "demo", "readlink", "/proc/self/ns/mnt") == f"mnt:[{inode}]\n"


@pytest.mark.parametrize("status", [0, 1, 42, 126, 127, 255])
def test_enter_exits_with_the_status(ctl: Ctl, status: int) -> None:
    result = ctl("enter", "demo", "sh", "-c", f"exit {status}")
    assert (result.returncode, result.stderr) == (status, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE])
def test_enter_exits_for_a_signal(ctl: Ctl, number: int) -> None:
    assert ctl("enter", "demo", "sh", "-c", f"kill -{int(number)} $$").returncode == 128 + number


def test_enter_is_quick_and_often(ctl: Ctl) -> None:
    running = [ctl.start("enter", "demo", "sh", "-c", f"exit {number}") for number in range(20)]
    for process in running:
        process.communicate(timeout=TIMEOUT)
    assert [process.returncode for process in running] == list(range(20))


def test_enter_options(ctl: Ctl) -> None:
    out = ctl.ok(
        "enter", "--user=nobody", "demo", "-E", "A=1 2", "--setenv=HANDED", "--chdir=/usr/bin",
        "sh", "-c", 'id -un; echo "$A $HANDED"; pwd', env={"HANDED": "over"},
    )  # fmt: skip
    assert out == "nobody\n1 2 over\n/usr/bin\n"
    assert ctl.ok("enter", "demo", "--chdir=lib", "pwd", cwd="/usr") == "/usr/lib\n"
    missing = ctl("enter", "demo", "--chdir=/no/such/place", "pwd")
    assert missing.returncode == 1
    assert "chdir" in missing.stderr


def test_enter_of_what_cannot_be_run(ctl: Ctl) -> None:
    assert ctl("enter", "demo", "no-such-command").returncode == 127
    assert ctl("enter", "demo", "/etc/passwd").returncode == 126
    assert ctl("enter", "nope", "true").returncode == 1
    assert ctl("enter", "demo", "--user=no-such-user", "true").returncode == 1


def test_enter_with_closed_descriptors(ctl: Ctl) -> None:
    command = " ".join((*PROGRAM, "enter", "demo", "ls", "-l", "/proc/self/fd"))
    listing = " ".join((*PROGRAM, "list", "<&-", ">&-"))
    quiet = subprocess.run(["sh", "-c", listing], env=ctl.environment, capture_output=True, check=False)
    assert (quiet.returncode, quiet.stderr) == (0, b"")
    for closing in ("<&-", "<&- 2>&-"):
        result = subprocess.run(
            ["sh", "-c", f"{command} {closing}"],
            env=ctl.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result
        assert "0 -> /dev/null" in result.stdout
        assert "socket" not in result.stdout


def _inside(process: "subprocess.Popen[str]") -> int:
    """The pid that a command writes on its first line."""
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_ends_with_us(ctl: Ctl, number: int) -> None:
    process = ctl.start("enter", "demo", "sh", "-c", "echo $$; sleep 1000 & wait")
    pid = _inside(process)
    process.send_signal(number)
    assert process.wait(TIMEOUT) == -number
    wait_until(lambda: not leaks.alive(pid))
    for left in ctl.json("pids", "demo"):
        leaks.end(left["pid"])
    assert process.communicate()[1] == ""


def test_the_daemon_vanishes(ctl: Ctl, daemon: Daemon) -> None:
    process = ctl.start("enter", "demo", "sh", "-c", "echo $$; read x; exit 7")
    pid = _inside(process)
    wait_until(lambda: any("pidfd" in target for target in leaks.fds_of(process.pid).values()))
    daemon.kill(signal.SIGKILL)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert leaks.wait_gone(pid)
    _, err = process.communicate(timeout=TIMEOUT)
    # Since Linux 6.15 the kernel knows what nobody is there to say.
    if process.returncode != 7:
        assert process.returncode == 1
        assert "exit status is unknown" in err


def test_the_bus_vanishes(ctl: Ctl, bus: PrivateBus, daemon: Daemon) -> None:
    process = ctl.start("enter", "demo", "sh", "-c", "echo $$; read x")
    pid = _inside(process)
    wait_until(lambda: any("pidfd" in target for target in leaks.fds_of(process.pid).values()))
    bus.stop()
    daemon.wait()
    leaks.end(pid)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (1, 128 + signal.SIGKILL), err


# --- enter, on a terminal


def _in_foreground(process: Mapping[str, Any]) -> bool:
    """Whether a process runs and has its terminal, proc_pid_stat(5)."""
    fields = Path(f"/proc/{process['pid']}/stat").read_text().rpartition(")")[2].split()
    state, group, foreground = fields[0], fields[2], fields[5]
    return state in "RS" and group == foreground


def test_terminal(ctl: Ctl) -> None:
    with Terminal(ctl, "enter", "demo", "bash", "--norc", "--noediting", "-i") as terminal:
        before = terminal.modes()
        terminal.expect(r"# ")
        terminal.press("PS1='>''> '; stty size; tty\n")
        terminal.expect(r"\n33 101\r\n/dev/pts/\d+\r\n>> ")
        terminal.resize(50, 132)
        terminal.press("stty size\n")
        terminal.expect(r"\n50 132\r\n>> ")
        terminal.press("test -t 0 && test -t 1 && test -t 2 && echo a''ll; echo $TERM\n")
        terminal.expect(r"\nall\r\nxterm\r\n>> ")
        terminal.press("sleep 1000\n")
        terminal.expect("sleep 1000\r\n")
        wait_until(lambda: "sleep" in [item["comm"] for item in ctl.json("pids", "demo")])
        terminal.press("\x1a")  # ^Z
        terminal.expect(r"Stopped.*\r\n>> ")
        terminal.press("fg\n")
        terminal.expect("sleep 1000\r\n")
        wait_until(lambda: all(map(_in_foreground, ctl.json("pids", "demo")[1:])))
        terminal.press("\x03")  # ^C
        terminal.expect(r"\^C\r\n>> ")
        terminal.press("exit 3\n")
        assert terminal.end() == 3
        assert terminal.modes() == before


def test_terminal_loses_nothing(ctl: Ctl) -> None:
    with Terminal(ctl, "enter", "demo", "seq", "30000") as terminal:
        assert terminal.end() == 0
        assert terminal.seen.split() == [str(number) for number in range(1, 30001)]


def test_terminal_login_shell(ctl: Ctl) -> None:
    with Terminal(ctl, "enter", "demo") as terminal:
        terminal.expect(r"In namespace demo\..*\^\] three times.*\r\n")
        terminal.press("shopt -q login_shell; echo login=$? argv=$0\n")
        terminal.expect(r"[\r\n]login=0 argv=-")
        terminal.press("exit 4\n")
        assert terminal.end() == 4
    with Terminal(ctl, "enter", "-q", "demo", "true") as terminal:
        assert terminal.end() == 0
        assert terminal.seen == ""


def test_terminal_of_somebody_else(ctl: Ctl) -> None:
    script = 'id -un > "$(tty)"; stat -c %U "$(tty)"; ps -o tty= -p $$'
    with Terminal(ctl, "enter", "--user=nobody", "demo", "sh", "-c", script) as terminal:
        assert terminal.end() == 0, terminal.seen
        assert re.fullmatch(r"nobody\r\nnobody\r\npts/\d+ *\r\n", terminal.seen)
    with Terminal(ctl, "enter", "--user=no-such-user", "demo", "true") as terminal:
        assert terminal.end() == 1
        assert "no-such-user" in terminal.seen


def test_terminal_but_errors_elsewhere(ctl: Ctl, directory: Path) -> None:
    log = directory / "log"
    command = " ".join((*PROGRAM, "enter", "demo", "sh", "-c", "'echo shown; echo logged >&2'"))
    with Terminal(ctl, "exec", "demo", "sh", "-c", f"exec {command} 2>{log}") as terminal:
        assert terminal.end() == 0
        assert terminal.seen == "shown\r\n"
    assert log.read_text() == "logged\n"


def test_terminal_left_by_force(ctl: Ctl) -> None:
    with Terminal(ctl, "enter", "demo", "sh", "-c", "echo ready; trap '' INT; sleep 1000") as terminal:
        before = terminal.modes()
        terminal.expect("ready")
        terminal.press("\x1d\x1d\x1d")
        assert terminal.end() == 129
        assert "Left namespace demo" in terminal.seen
        assert (
            terminal.modes()[3] == before[3] | termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN
        )
    wait_until(lambda: not [item for item in ctl.json("pids", "demo") if item["comm"] == "sh"])


def test_terminal_closed(ctl: Ctl) -> None:
    with Terminal(ctl, "enter", "demo", "sh", "-c", "echo ready; sleep 1000") as terminal:
        terminal.expect("ready")
        assert terminal.hang_up() in (-signal.SIGHUP, 129)
    wait_until(lambda: ctl.json("pids", "demo") == [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_terminal_is_restored_when_we_are_killed(ctl: Ctl, number: int) -> None:
    with Terminal(ctl, "enter", "demo", "sh", "-c", "echo ready; sleep 1000") as terminal:
        terminal.expect("ready")
        wait_until(lambda: not terminal.modes()[3] & termios.ECHO)
        os.kill(terminal.pid, number)
        assert terminal.end() == -number
        assert terminal.modes()[3] & termios.ECHO
        assert "Traceback" not in terminal.seen
    wait_until(lambda: ctl.json("pids", "demo") == [])


def test_terminal_refused(ctl: Ctl) -> None:
    with Terminal(ctl, "enter", "nope") as terminal:
        before = terminal.modes()
        assert terminal.end() == 1
        assert "no namespace 'nope'" in terminal.seen
        assert terminal.modes() == before


def test_pager_and_colours(ctl: Ctl) -> None:
    with Terminal(ctl, "list", env={"SYSTEMD_PAGER": "sed s/^/paged:/"}) as terminal:
        assert terminal.end() == 0
        assert "paged:\x1b[4mNAME INODE" in terminal.seen
    with Terminal(ctl, "list", "--no-pager", env={"NO_COLOR": "1"}) as terminal:
        assert terminal.end() == 0
        assert terminal.seen.startswith("NAME INODE")
    with Terminal(ctl, "list", "-j", "--no-pager") as terminal:
        assert terminal.end() == 0
        assert terminal.seen.startswith("[\r\n\t{\r\n")
    with Terminal(ctl, "show", "nope") as terminal:
        assert terminal.end() == 1
        assert terminal.seen.startswith("\x1b[1;31mmountnsctl: ")


# --- as somebody else


def test_everybody_may_look(ctl: Ctl, polkit: Polkit) -> None:
    polkit.allow("org.mountnsd1.list")
    assert "demo" in ctl.ok("list", uid=NOBODY)
    assert ctl.ok("show", "demo", uid=NOBODY).startswith("Name=demo\n")
    assert "TARGET" in ctl.ok("mounts", "demo", uid=NOBODY)
    assert ctl.ok("pids", "demo", uid=NOBODY) == "No processes.\n"


def test_refused(ctl: Ctl, polkit: Polkit) -> None:
    polkit.allow("org.mountnsd1.list")
    for words in (["create", "mine"], ["destroy", "demo"], ["enter", "demo", "true"]):
        result = ctl(*words, uid=NOBODY)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("mountnsctl: ")
        assert "org.freedesktop.DBus.Error" not in result.stderr
    result = ctl("exec", "demo", "true", uid=NOBODY)
    assert "mountnsctl enter" in result.stderr


def test_allowed(ctl: Ctl, polkit: Polkit) -> None:
    for action in ("create", "destroy", "enter"):
        polkit.allow(f"org.mountnsd1.{action}", NOBODY)
    ctl.ok("create", "mine", uid=NOBODY)
    assert [item["owner"] for item in ctl.json("list") if item["name"] == "mine"] == [NOBODY]
    assert ctl.ok("enter", "mine", "id", "-u", uid=NOBODY) == f"{NOBODY}\n"
    assert ctl("enter", "mine", "sh", "-c", "exit 5", uid=NOBODY).returncode == 5
    ctl.ok("enter", "mine", "--user=nobody", "true", uid=NOBODY)
    assert ctl("enter", "mine", "--user=root", "true", uid=NOBODY).returncode == 1
    assert polkit.questions()[-1].action == "org.mountnsd1.enter-as"
    with Terminal(ctl, "enter", "mine", "sh", "-c", "id -u; tty", uid=NOBODY) as terminal:
        terminal.expect(rf"{NOBODY}\r\n/dev/pts/")
        assert terminal.end() == 0
    ctl.ok("destroy", "mine", uid=NOBODY)


def test_asking_for_a_password(ctl: Ctl, polkit: Polkit) -> None:
    polkit.challenge("org.mountnsd1.create", NOBODY)
    refused = ctl("create", "mine", "--no-ask-password", uid=NOBODY)
    assert refused.returncode == 1
    assert "--no-ask-password" in refused.stderr
    ctl.ok("create", "mine", uid=NOBODY)
    assert [question.flags & 1 for question in polkit.questions()] == [0, 1]


def test_agent(ctl: Ctl, polkit: Polkit, directory: Path) -> None:
    polkit.challenge("org.mountnsd1.create", NOBODY)
    tools = directory / "tools"
    tools.mkdir()
    told = directory / "told"
    told.touch()
    told.chmod(0o666)
    agent = tools / "pkttyagent"
    agent.write_text(f'#!/bin/sh\necho "$$ $*" > {told}\neval "exec $4>&-"\nexec sleep 1000\n')
    agent.chmod(0o755)
    path = {"PATH": f"{tools}:{ctl.environment['PATH']}"}
    with Terminal(ctl, "create", "mine", uid=NOBODY, env=path) as terminal:
        assert terminal.end() == 0, terminal.seen
        expected = rf"(\d+) --process {terminal.pid} --notify-fd \d+ --fallback\n"
    match = re.fullmatch(expected, told.read_text())
    assert match is not None
    assert not leaks.alive(int(match[1]))
    told.write_text("")
    with Terminal(ctl, "create", "other", "--no-ask-password", uid=NOBODY, env=path) as terminal:
        assert terminal.end() == 1
    with Terminal(ctl, "create", "other", env=path) as terminal:
        assert terminal.end() == 0
    assert told.read_text() == ""


# --- when things are not as they should be


def test_no_daemon(bus: PrivateBus) -> None:
    ctl = Ctl(bus, None)
    for words in ([], ["create", "x"], ["enter", "x", "true"], ["exec", "x", "true"]):
        result = ctl(*words)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("mountnsctl: mountnsd is not running")
        assert "systemctl start mountnsd" in result.stderr
        assert "DBUS_SYSTEM_BUS_ADDRESS" in result.stderr


def test_the_daemon_dies_while_we_wait(ctl: Ctl, polkit: Polkit, daemon: Daemon) -> None:
    polkit.hold()
    process = ctl.start("create", "mine", user=NOBODY, group=NOBODY, extra_groups=[])
    polkit.wait_for_questions()
    daemon.kill(signal.SIGKILL)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "went away" in err
    polkit.release()


def test_interrupted_while_we_wait(ctl: Ctl, polkit: Polkit) -> None:
    polkit.hold()
    process = ctl.start("create", "mine", user=NOBODY, group=NOBODY, extra_groups=[])
    polkit.wait_for_questions()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (-signal.SIGINT, "")
    polkit.release()


def test_invalid_names(ctl: Ctl) -> None:
    for name in ("a/b", "../demo", "", "x" * 65, "é", "a\x1b[2J"):
        for words in (["create", name], ["show", name], ["exec", name, "true"], ["enter", name, "true"]):
            result = ctl(*words)
            assert result.returncode == 1, words
            assert "\x1b" not in result.stderr
            assert "is no name for a namespace" in result.stderr, words
    raw = ctl("show", "\udcff")
    assert raw.returncode == 1
    assert raw.stderr == "mountnsctl: The bus carries UTF-8 text only, and an argument is not.\n"
