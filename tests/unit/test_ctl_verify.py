# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl verify`: all that is wrong with declarations, in one line each, and what this host lacks for them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountnsd import declaration
from mountnsd.ctl import main

Verify = Callable[..., tuple[int, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with one to declare namespaces in, and no other."""
    (tmp_path / "etc").mkdir(mode=0o755)
    monkeypatch.setattr(declaration, "DIRECTORIES", (tmp_path / "etc", tmp_path / "usr"))
    return tmp_path


@pytest.fixture
def verify(place: Path, capfd: pytest.CaptureFixture[str]) -> Verify:
    """Run it; returns the exit status and the output, with the place left out."""

    def run(*words: str | Path) -> tuple[int, str]:
        status = main.main(["verify", *map(str, words)])
        captured = capfd.readouterr()
        assert captured.err == ""
        return status, captured.out.replace(f"{place}/", "")

    return run


def write(path: Path, *mounts: dict[str, str], more: str = "") -> Path:
    """A declaration, only root's to write where root writes it."""
    tables = [
        "[[mount]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items()) for table in mounts
    ]
    path.write_text("\n".join([more, *tables]))
    path.chmod(0o644)
    return path


def a_bind(what: Path | str, where: Path | str, options: str = "bind") -> dict[str, str]:
    """One table."""
    return {"what": str(what), "where": str(where), "options": options}


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of root's")


@needs_root
class TestFiles:
    """Those that are named, or all there are."""

    def test_a_good_one_is_silent(self, place: Path, verify: Verify) -> None:
        good = write(place / "good.toml", a_bind("/", "/", "bind") | {"where": str(place / "etc")})
        assert verify(good) == (0, "")

    def test_every_error_of_every_file(self, place: Path, verify: Verify) -> None:
        one = write(place / "one.toml", {"where": "x", "opts": ""}, more="a = 1")
        two = write(place / "two.toml", more="[")
        status, out = verify(one, two)
        assert status == 1
        assert [line.split(": ")[:3] for line in out.splitlines()] == [
            ["one.toml", "error", "a"],
            ["one.toml", "error", "mount[1].opts"],
            ["one.toml", "error", "mount[1].where"],
            ["one.toml", "error", "mount[1].type"],
            ["two.toml", "error", "line 1"],
        ]

    def test_all_that_are_declared(
        self, place: Path, verify: Verify, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main.main(["verify"]) == 0
        assert "No namespace is declared in" in capfd.readouterr().err
        assert main.main(["verify", "-q"]) == 0
        assert capfd.readouterr().err == ""
        (place / "usr").mkdir(mode=0o755)
        write(place / "usr" / "hidden.toml", more="x = 1")
        write(place / "etc" / "hidden.toml")
        write(place / "usr" / "vendor.toml", more="y = 1")
        write(place / "etc" / "..toml")
        (place / "etc" / "README").touch()
        status, out = verify()
        assert status == 1
        assert [line.split(": ")[0] for line in out.splitlines()] == ["etc/..toml", "usr/vendor.toml"]

    @pytest.mark.parametrize("name", ["build", "-b.toml", ".toml", "a..b.toml", "b" * 65 + ".toml", "é.toml"])
    def test_a_file_that_names_no_namespace(self, place: Path, verify: Verify, name: str) -> None:
        status, out = verify(write(place / name))
        assert (status, out.count("\n"), "no name for a declaration" in out) == (1, 1, True)

    def test_what_is_no_file(self, place: Path, verify: Verify) -> None:
        (place / "link.toml").symlink_to("etc")
        os.mkfifo(place / "fifo.toml")
        status, out = verify(place / "nowhere.toml", place / "link.toml", place / "fifo.toml", place / "etc")
        assert status == 1
        assert out.count("\n") == 5
        assert "nowhere.toml: error: This cannot be read: No such file" in out
        assert "link.toml: error: This is a symbolic link" in out
        assert "fifo.toml: error: This is not a regular file" in out

    def test_who_may_write_to_it(self, place: Path, verify: Verify) -> None:
        draft = write(place / "draft.toml")
        draft.chmod(0o666)
        status, out = verify(draft)
        assert (status, out.startswith("draft.toml: warning: This must belong to root")) == (0, True)
        assert verify(draft, "--quiet") == (0, "")
        draft.rename(place / "etc" / "draft.toml")
        for words in ([], [place / "etc" / "draft.toml"]):
            status, out = verify(*words)
            assert (status, out.startswith("etc/draft.toml: error: This must belong to root")) == (1, True)

    def test_json(self, place: Path, verify: Verify) -> None:
        one = write(place / "one.toml", more="\x00")
        (row,) = json.loads(verify(one, "--json=short")[1])
        assert (row["file"], row["level"], row["key"]) == ("one.toml", "error", "line 1, column 1")
        assert row["message"].startswith("This is no TOML")

    def test_nothing_reaches_the_terminal_as_it_is(self, place: Path, verify: Verify) -> None:
        _, out = verify(write(place / "a\x1b[2J.toml", more='"\\u001b" = 1'))
        assert "\x1b" not in out


@needs_root
class TestThisHost:
    """What a mount would meet here."""

    @pytest.fixture
    def said(self, place: Path, verify: Verify) -> Callable[..., list[str]]:
        """What is said of mounts: level and key, for those that are not root's alone to see."""

        def of(*mounts: dict[str, Any]) -> list[str]:
            status, out = verify(write(place / "n.toml", *mounts))
            assert status == int(" error: " in out)
            return [" ".join(line.split(": ")[1:3]) for line in out.splitlines()]

        (place / "dir").mkdir()
        (place / "file").touch()
        (place / "link").symlink_to("dir")
        return of

    def test_what_a_bind_shows(self, place: Path, said: Callable[..., list[str]]) -> None:
        assert said(a_bind(place / "link", place / "dir")) == []
        assert said(a_bind(place / "none", place / "dir")) == ["error mount[1].what"]
        assert said(a_bind(place / "file", place / "dir")) == ["error mount[1].where"]
        assert said(a_bind(place / "dir", place / "file")) == ["error mount[1].where"]

    def test_where_it_goes(self, place: Path, said: Callable[..., list[str]]) -> None:
        def tmpfs(where: str, options: str = "") -> dict[str, str]:
            return {"type": "tmpfs", "where": f"{place}/{where}", "options": options}

        assert said(tmpfs("dir")) == []
        assert said(tmpfs("link")) == said(tmpfs("link/x", "X-mount.mkdir")) == ["error mount[1].where"]
        assert said(tmpfs("file")) == said(tmpfs("file/x")) == ["error mount[1].where"]
        assert said(tmpfs("none")) == said(tmpfs("none/x")) == ["warning mount[1].where"]
        assert said(tmpfs("none/x", "X-mount.mkdir")) == []
        assert said(tmpfs("dir"), tmpfs("dir/none"), tmpfs("none")) == ["warning mount[3].where"]

    def test_the_layers_of_an_overlay(self, place: Path, said: Callable[..., list[str]]) -> None:
        def overlay(lower: str, more: str = "") -> dict[str, str]:
            layers = f"lowerdir={place}/{lower},upperdir={place}/up,workdir={place}/work{more}"
            return {"type": "overlay", "where": str(place / "dir"), "options": layers}

        assert said(overlay("dir")) == ["error mount[1].options"] * 2
        assert said(overlay("dir", ",X-mount.mkdir")) == []
        assert said(overlay("none", ",X-mount.mkdir")) == ["error mount[1].options"]
        assert said({"type": "tmpfs", "where": str(place)}, overlay("none")) == []


def test_it_needs_neither_the_daemon_nor_the_bus(tmp_path: Path) -> None:
    file = write(tmp_path / "x.toml")
    program = (
        "import sys; from mountnsd.ctl.main import main; status = main(); "
        "assert not [name for name in sys.modules if 'jeepney' in name or 'dbus' in name]; sys.exit(status)"
    )
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", program, "verify", str(file)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert (result.returncode, result.stderr) == (0, "")


def test_other_verbs_do_not_pay_for_it() -> None:
    program = (
        "import sys, mountnsd.ctl.main, mountnsd.ctl.verbs; "
        "assert not {'tomllib', 'mountnsd.declaration'} & sys.modules.keys()"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=30)
