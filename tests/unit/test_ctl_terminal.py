# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of enter's terminal needs no daemon: the escape sequence, the pager, the ways out."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mountnsd.ctl import pager
from mountnsd.ctl.terminal import EscapeSequence

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ([(b"\x1d\x1d\x1d", 0.0)], True),
        ([(b"\x1d", 0.0), (b"\x1d", 0.4), (b"\x1d", 0.9)], True),
        ([(b"ls\x1d\x1d\x1dls", 0.0)], True),
        ([(b"\x1d\x1d", 0.0), (b"a", 0.1), (b"\x1d", 0.2)], False),
        ([(b"\x1d\x1d", 0.0), (b"\x1d", 1.1)], False),
        ([(b"\x1d\x1d", 0.0), (b"\x1d", 1.1), (b"\x1d", 1.2), (b"\x1d", 1.3)], True),
        ([(b"\x1d\x1d", 0.0)], False),
    ],
)
def test_escape_sequence(typed: list[tuple[bytes, float]], left: bool) -> None:
    escape = EscapeSequence()
    assert any(escape.typed(data, now) for data, now in typed) == left


@pytest.mark.parametrize(
    ("environment", "candidates"),
    [
        ({}, [["less"], ["more"]]),
        ({"PAGER": "most -x"}, [["most", "-x"], ["less"], ["more"]]),
        ({"SYSTEMD_PAGER": "", "PAGER": "most"}, [["cat"], ["less"], ["more"]]),
    ],
)
def test_pager(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], candidates: list[list[str]]
) -> None:
    for variable in ("PAGER", "SYSTEMD_PAGER"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert pager._candidates(False) == candidates
    assert pager._candidates(True) == [["less"]]


@pytest.mark.parametrize(
    ("login_uid", "variable", "secure"),
    [
        ("0", "", False),
        ("0", "SUDO_UID", False),
        ("1000", "", True),
        (str(2**32 - 1), "", False),
        (str(2**32 - 1), "SUDO_UID", True),
        (str(2**32 - 1), "PKEXEC_UID", True),
        (str(2**32 - 1), "DOAS_USER", True),
        (None, "", False),
        (None, "DOAS_USER", True),
    ],
)
def test_pager_is_secure_for_who_became_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, login_uid: str | None, variable: str, secure: bool
) -> None:
    """Each way to become root but a login as root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pager, "_LOGIN_UID", tmp_path / "loginuid")
    if login_uid is not None:
        (tmp_path / "loginuid").write_text(login_uid)
    for name in ("SYSTEMD_PAGERSECURE", "SUDO_UID", "PKEXEC_UID", "DOAS_USER"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1000")
    assert pager._secure() == secure
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not pager._secure()


def test_pager_is_as_secure_as_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pager._environment(True)["LESSSECURE"] == "1"
    monkeypatch.setenv("LESSSECURE", "1")
    assert "LESSSECURE" not in pager._environment(False)
    monkeypatch.setenv("SYSTEMD_PAGERSECURE", "no")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_UID", "1000")
    assert not pager._secure()
    monkeypatch.setenv("SYSTEMD_PAGERSECURE", "1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert pager._secure()


def test_pager_gets_the_text(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pager, "_secure", lambda: False)
    monkeypatch.setenv("SYSTEMD_PAGER", "sed s/^/paged:/")
    assert pager.show("one\ntwo\n")
    assert capfd.readouterr().out == "paged:one\npaged:two\n"
    monkeypatch.setenv("SYSTEMD_PAGER", "true")  # leaves without reading
    assert pager.show("x" * 1_000_000)
    monkeypatch.setenv("SYSTEMD_PAGER", "cat")
    assert not pager.show("text")


def _ctl(*words: str, stdout: int | None = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mountnsd.ctl", *words],
        cwd=REPOSITORY,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere/bus"},
    )


def test_help_and_version() -> None:
    assert _ctl("--help").stdout.startswith("mountnsctl [OPTIONS...] COMMAND ...\n")
    assert _ctl("--version").stdout.startswith("mountnsd ")


def test_failures_are_one_line_and_no_traceback() -> None:
    for words in (["frob\x1bnicate"], ["list"], ["enter", "x"], ["create", "x"], ["list", "--bogus"]):
        result = _ctl(*words)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("mountnsctl: ")
        assert result.stderr.count("\n") == 1
        assert "\x1b" not in result.stderr


def test_broken_pipe() -> None:
    read, write = os.pipe()
    os.close(read)
    result = _ctl("--help", stdout=write)
    os.close(write)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, "")


def test_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        result = _ctl("--help", stdout=full.fileno())
    assert result.returncode == 1
    assert result.stderr == "mountnsctl: Cannot read or write: No space left on device.\n"
