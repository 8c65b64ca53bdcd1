# SPDX-License-Identifier: LGPL-2.1-or-later
"""`mountnsctl edit` and `cat`: what becomes of a declaration while it is edited, and when something is wrong."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.ctl import TIMEOUT, Result, Terminal
from support.daemon import REPOSITORY
from support.ground import run
from support.identity import NOBODY

from mountnsd import declaration

GOOD = 'description = "Good"\n'
BAD = 'description = "Bad"\nwrong = 1\n'

# mountnsctl with directories of the test's own to declare namespaces in.
_PROGRAM = """\
import sys
from pathlib import Path
from mountnsd import declaration
declaration.DIRECTORIES = (Path(sys.argv[1]) / "etc", Path(sys.argv[1]) / "usr")
from mountnsd.ctl.main import main
sys.exit(main(sys.argv[2:]))
"""


class Place:
    """Where namespaces are declared, and an editor that does what it is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.own = directory / "etc"
        self.vendor = directory / "usr"
        self.file = self.own / "build.toml"
        self.seen = directory / "seen"
        self._editor = directory / "edit it"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MOUNTNSD_RUNTIME_DIRECTORY": str(directory / "run"),
            "TERM": "xterm",
            "SYSTEMD_EDITOR": f"'{self._editor}' --flag",
        }
        self.command = [sys.executable, "-c", _PROGRAM, str(directory)]
        self.edits("true")

    def declare(self, text: str, directory: Path | None = None, mode: int = 0o644) -> None:
        """Have a declaration there."""
        where = directory or self.own
        where.mkdir(exist_ok=True)
        (where / "build.toml").write_text(text)
        (where / "build.toml").chmod(mode)

    def edits(self, script: str) -> None:
        """What the editor does with the file $1; before, it keeps a copy of what it was given."""
        self._editor.write_text(f'#!/bin/sh\nset -e\nshift\ncp "$1" {self.seen}\n{script}\n')
        self._editor.chmod(0o755)

    def writes(self, text: str) -> None:
        """Have the editor replace the text, as editors do: by another file."""
        (self.directory / "text").write_text(text)
        self.edits(f'cp {self.directory}/text "$1.new"; chmod 666 "$1.new"; mv "$1.new" "$1"')

    def __call__(self, *words: str, **more: Any) -> Result:
        """Run it without a terminal."""
        environment = {**self.environment, **more.pop("env", {})}
        return subprocess.run(
            [*self.command, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            **more,
        )


@pytest.fixture
def place(directory: Path) -> Iterator[Place]:
    """Nothing is declared; and nothing but declarations is left there."""
    found = Place(directory)
    yield found
    if found.own.exists():
        assert [path.name for path in found.own.iterdir() if path.name != "build.toml"] == []


def mode_of(path: Path) -> int:
    """The mode of a file of root's."""
    status = path.stat()
    assert (status.st_uid, status.st_gid) == (0, 0)
    return stat.S_IMODE(status.st_mode)


class TestEdit:
    """A declaration is there, or there is a new one."""

    def test_it_is_replaced(self, place: Place) -> None:
        place.declare("# old\n")
        before = place.file.stat().st_ino
        place.writes(GOOD)
        result = place("edit", "build")
        assert (result.returncode, result.stdout) == (0, "")
        assert result.stderr == f"{place.file} is written.\n"
        assert place.file.read_text() == GOOD
        assert place.file.stat().st_ino != before
        assert mode_of(place.file) == 0o644
        assert place.seen.read_text() == "# old\n"
        assert place("edit", "build", "-q").stderr == ""

    def test_a_new_one_begins_with_what_there_is(self, place: Place) -> None:
        nothing = place("edit", "build")
        assert nothing.returncode == 0
        assert nothing.stderr == f"Nothing was declared: {place.file} is not made.\n"
        assert not place.file.exists()
        template = place.seen.read_text()
        assert all(line.startswith("#") for line in template.splitlines() if line)
        _, faults = declaration.examine("build", "", re.sub("(?m)^#(?! )", "", template).encode())
        assert faults == []
        place.edits('sed -i "s/^#description/description/" "$1"')
        assert place("edit", "build").returncode == 0
        assert tomllib.loads(place.file.read_text()) == {"description": "What it is for"}

    def test_one_of_a_package_is_copied(self, place: Place) -> None:
        place.declare("# theirs\n", place.vendor, mode=0o600)
        place("edit", "build")
        assert not place.file.exists()
        place.writes(GOOD)
        assert place("edit", "build").returncode == 0
        assert place.seen.read_text() == "# theirs\n"
        assert place.file.read_text() == GOOD
        assert mode_of(place.file) == 0o600
        assert (place.vendor / "build.toml").read_text() == "# theirs\n"

    def test_what_others_could_write_they_cannot_any_more(self, place: Place) -> None:
        place.declare("", mode=0o666)
        os.chown(place.file, NOBODY, NOBODY)
        place.writes(GOOD)
        assert place("edit", "build").returncode == 0
        assert mode_of(place.file) == 0o644

    def test_it_does_not_change_a_namespace_that_is_there(self, place: Place) -> None:
        pins = place.directory / "run" / "ns"
        pins.mkdir(parents=True)
        (pins / "build").touch()
        place.declare("")
        place.writes(GOOD)
        assert "is written.\n" in place("edit", "build").stderr
        run("mount", "--make-private", "--bind", pins, pins)
        try:
            run("unshare", f"--mount={pins / 'build'}", "true")
            place.writes(GOOD + "# again\n")
            assert "systemctl restart mountns@build" in place("edit", "build").stderr
        finally:
            run("umount", pins / "build")
            run("umount", pins)

    def test_the_editor_is_looked_for(self, place: Place) -> None:
        place.declare("# old\n")
        for variables, said in (
            ({"SYSTEMD_EDITOR": "", "EDITOR": "true", "VISUAL": "false"}, "Nothing was changed"),
            ({"SYSTEMD_EDITOR": "", "VISUAL": "sh -c 'exit 3'"}, "The editor 'sh' ended with status 3: "),
            (
                {"SYSTEMD_EDITOR": "/nowhere/vi"},
                "There is no editor: set $SYSTEMD_EDITOR, $EDITOR or $VISUAL",
            ),
            ({"SYSTEMD_EDITOR": "/etc/passwd"}, "The editor '/etc/passwd' cannot be run: Permission denied."),
            ({"SYSTEMD_EDITOR": "vi '"}, "$SYSTEMD_EDITOR makes no sense"),
            ({"SYSTEMD_EDITOR": "", "PATH": "/nowhere"}, "There is no editor"),
        ):
            assert said in place("edit", "build", env=variables).stderr
        assert place.file.read_text() == "# old\n"


class TestWrong:
    """What makes no sense never gets there."""

    @pytest.mark.parametrize("before", [None, "# old\n"])
    def test_nobody_can_be_asked(self, place: Place, before: str | None) -> None:
        if before is not None:
            place.declare(before)
        place.writes(BAD)
        result = place("edit", "build")
        assert result.returncode == 1
        assert f"{place.file}: error: wrong: There is no such key" in result.stderr
        assert result.stderr.endswith("is not made.\n" if before is None else "stays as it was.\n")
        assert place.file.exists() == (before is not None)

    def test_edited_again(self, place: Place) -> None:
        place.writes(BAD)
        with Terminal(place, "edit", "build") as terminal:
            terminal.expect(r"error: wrong: There is no such key.*\r\n")
            terminal.expect(r"What now\? \(e\)dit again, e\(x\)it without saving: ")
            terminal.press("what?\r")
            terminal.expect(r"What now\?")
            assert not place.file.exists()
            place.writes(GOOD)
            terminal.press("e\r")
            terminal.expect("is written")
            assert terminal.end() == 0
        assert place.seen.read_text() == BAD  # he goes on from what he wrote
        assert place.file.read_text() == GOOD

    @pytest.mark.parametrize("answer", ["x\r", "\x04"])
    def test_given_up(self, place: Place, answer: str) -> None:
        place.declare("# old\n")
        place.writes(BAD)
        with Terminal(place, "edit", "build") as terminal:
            terminal.expect(r"What now\?")
            terminal.press(answer)
            terminal.expect("stays as it was")
            assert terminal.end() == 1
        assert place.file.read_text() == "# old\n"

    def test_interrupted(self, place: Place) -> None:
        place.declare("# old\n")
        place.edits("echo editing; trap 'exit 0' INT; while :; do sleep 0.1; done")
        with Terminal(place, "edit", "build") as terminal:
            terminal.expect("editing")
            terminal.press("\x03")  # the editor's
            terminal.expect("Nothing was changed")
            assert terminal.end() == 0
        place.writes(BAD)
        with Terminal(place, "edit", "build") as terminal:
            terminal.expect(r"What now\?")
            terminal.press("\x03")
            assert terminal.end() == -signal.SIGINT

    def test_a_warning_does_not_matter(self, place: Place) -> None:
        place.writes('[[mount]]\ntype = "tmpfs"\nwhere = "/no-such-place"\n')
        result = place("edit", "build")
        assert result.returncode == 0
        assert ": warning: mount[1].where: " in result.stderr
        assert place.file.exists()

    def test_an_empty_one_is_not_written(self, place: Place) -> None:
        place.declare("# old\n")
        place.writes("\n")
        assert place("edit", "build").stderr == f"Nothing was changed: {place.file} stays as it was.\n"
        assert place.file.read_text() == "# old\n"

    def test_somebody_else_was_faster(self, place: Place) -> None:
        place.declare("# old\n")
        (place.directory / "text").write_text(GOOD)
        place.edits(f'cp {place.directory}/text "$1"; echo "# other" > {place.file}')
        result = place("edit", "build")
        assert result.returncode == 1
        assert "was changed by somebody else meanwhile" in result.stderr
        assert place.file.read_text() == "# other\n"
        kept = Path(result.stderr.rpartition(" ")[2].rstrip(".\n"))
        assert kept.read_text() == GOOD
        kept.unlink()

    def test_no_plain_file(self, place: Place) -> None:
        place.own.mkdir()
        place.file.symlink_to("/dev/null")
        assert "This is a symbolic link" in place("edit", "build").stderr
        place.file.unlink()
        place.file.mkdir()
        assert "This is not a regular file" in place("edit", "build").stderr
        place.file.rmdir()

    def test_a_directory_of_others(self, place: Place) -> None:
        place.own.mkdir()
        place.own.chmod(0o777)
        assert "writable by nobody else" in place("edit", "build").stderr

    def test_no_name(self, place: Place) -> None:
        for name in ("../x", "", "a b"):
            result = place("edit", name)
            assert result.returncode == 1
            assert "is no name for a namespace" in result.stderr

    def test_not_by_others(self, place: Place) -> None:
        result = place("edit", "build", user=NOBODY, group=NOBODY, extra_groups=[])
        assert result.returncode == 1
        assert "needs root" in result.stderr


class TestCat:
    """What is declared, as it is written."""

    def test_those_that_count(self, place: Place) -> None:
        place.declare("# theirs\n", place.vendor)
        (place.vendor / "web.toml").write_text("# web")
        place.declare(GOOD)
        shown = f"# {place.file}\n{GOOD}"
        assert place("cat", "build").stdout == shown
        assert place("cat").stdout == f"{shown}\n# {place.vendor}/web.toml\n# web\n"
        result = place("cat", "nope", "build")
        assert (result.returncode, result.stdout) == (1, shown)
        assert "No namespace 'nope' is declared" in result.stderr
        assert "mountnsctl edit nope" in result.stderr

    def test_json(self, place: Place) -> None:
        place.declare(GOOD)
        (shown,) = json.loads(place("cat", "--json=short").stdout)
        assert shown == {"name": "build", "file": str(place.file), "text": GOOD}

    def test_nothing(self, place: Place) -> None:
        result = place("cat")
        assert (result.returncode, result.stdout) == (0, "")
        assert result.stderr.startswith("No namespace is declared in ")

    def test_it_cannot_steer_a_terminal(self, place: Place) -> None:
        place.declare("a\t# \x1b[2J \\x09\r\nb\n")
        assert place("cat").stdout == f"# {place.file}\na\t# \\x1b[2J \\x09\nb\n"
