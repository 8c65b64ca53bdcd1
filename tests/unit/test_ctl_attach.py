# SPDX-License-Identifier: LGPL-2.1-or-later
"""attach and detach: the files, and what systemd is asked, with a systemd that reads them as the real one does."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from support import unitfile

from mountnsd.ctl import attach
from mountnsd.ctl.dropfile import NAME
from mountnsd.ctl.dropin import MARK
from mountnsd.ctl.options import parse
from mountnsd.ctl.problem import Problem

ORIGINAL: unitfile.Command = ("/bin/x", ["/bin/x", "-v"], [])


class Manager:
    """systemd with one service, as loaded at the last reload.

    Attributes: unit: properties of the service without drop-ins; seen: for each reload, what it would run;
        deaf: drop-ins have no effect.
    """

    def __init__(self, places: list[Path]) -> None:
        self._places = places
        self.unit: dict[str, Any] = {
            "Id": "x.service",
            "LoadState": "loaded",
            "FragmentPath": "/usr/lib/systemd/system/x.service",
            "ActiveState": "active",
            "ExecStartEx": [ORIGINAL],
        }
        self.deaf = False
        self.seen: list[str] = []
        self.started: list[str] = []
        self.restarted: list[str] = []
        self._text = ""

    def __call__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def reload(self) -> None:
        files = [place / "x.service.d" / NAME for place in self._places]
        self._text = next((file.read_text() for file in files if file.exists()), "")
        unit = unitfile.sections(self._text).get("Unit", [])
        stopped = ("AssertPathExists", "!/") in unit
        self.seen.append("nothing" if stopped else self.service("x.service")["ExecStartEx"][0][0])

    def service(self, _name: str) -> dict[str, Any]:
        read = {} if self.deaf else unitfile.commands(self._text)
        return {**self.unit, **{f"{setting}Ex": found for setting, found in read.items()}}

    def start(self, name: str) -> None:
        self.started.append(f"{name} before {len(self.seen) + 1}")

    def restart(self, name: str) -> None:
        self.restarted.append(name)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories for units of the administrator and until the next reboot."""
    found = [tmp_path / "etc" / "system", tmp_path / "run" / "system"]
    monkeypatch.setattr(attach, "ADMINISTRATOR", str(found[0]))
    monkeypatch.setattr(attach, "RUNTIME", str(found[1]))
    return found


@pytest.fixture
def manager(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """The systemd that mountnsctl finds; the user is root."""
    found = Manager(places)
    monkeypatch.setattr(attach, "Systemd", found)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    before = os.umask(0o077)
    yield found
    os.umask(before)


def ctl(*words: str) -> None:
    """Run a command line that must succeed."""
    assert attach.run(parse(list(words))) == 0


def files(places: list[Path]) -> list[Path]:
    """All that is there."""
    return [path for place in places for path in place.rglob("*") if not path.is_dir()]


def test_there_and_back(manager: Manager, places: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    ctl("attach", "x", "build")
    file = places[0] / "x.service.d" / NAME
    assert files(places) == [file]
    assert file.stat().st_mode & 0o7777 == 0o644
    assert file.parent.stat().st_mode & 0o777 in (0o700, 0o755)
    assert file.read_text().startswith(MARK)
    assert manager.seen == ["/usr/bin/mountnsctl"]
    said = capfd.readouterr().err
    assert "mountns@build.service makes an empty one" in said
    assert "systemctl restart x.service" in said
    assert manager.restarted == []
    # It runs, and would be stopped by a reload that binds it to a unit that is not active.
    assert manager.started == ["mountns@build.service before 1"]
    ctl("detach", "x", "--now")
    assert not file.parent.exists()
    assert manager.seen[1:] == ["/bin/x"]
    assert manager.restarted == ["x.service"]


def test_again_is_the_same_and_at_no_moment_outside(manager: Manager, places: list[Path]) -> None:
    ctl("attach", "x", "build", "-q")
    first = files(places)[0].read_text()
    ctl("attach", "x", "build", "-q")
    assert files(places)[0].read_text() == first
    assert manager.seen == ["/usr/bin/mountnsctl", "nothing", "/usr/bin/mountnsctl"]


def test_again_takes_the_unit_as_it_is_now(manager: Manager, places: list[Path]) -> None:
    ctl("attach", "x", "build", "-q")
    manager.unit["ExecStartEx"] = [("/bin/new", ["/bin/new"], [])]
    ctl("attach", "x", "other", "-q", "--runtime")
    assert files(places) == [places[1] / "x.service.d" / NAME]
    text = files(places)[0].read_text()
    assert "exec other -- /bin/new\n" in text
    assert "/bin/x" not in text
    assert "/bin/x" not in manager.seen


def test_refused_leaves_all_as_it_was(manager: Manager, places: list[Path]) -> None:
    manager.unit["PrivateTmp"] = True
    with pytest.raises(Problem, match="PrivateTmp="):
        ctl("attach", "x", "build")
    assert files(places) == []
    ctl("attach", "x", "build", "--without-mount-sandbox", "-q")
    before = files(places)[0].read_text()
    with pytest.raises(Problem, match="PrivateTmp="):
        ctl("attach", "x", "build")
    assert files(places)[0].read_text() == before
    assert manager.seen[-1] == "/usr/bin/mountnsctl"


def test_what_systemd_does_not_read_is_taken_back(manager: Manager, places: list[Path]) -> None:
    manager.deaf = True
    manager.unit["DropInPaths"] = ["/etc/systemd/system/x.service.d/99-other.conf"]
    with pytest.raises(Problem, match=r"99-other\.conf"):
        ctl("attach", "x", "build")
    assert files(places) == []


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_is_not_ours_stays(manager: Manager, places: list[Path], tmp_path: Path, kind: str) -> None:
    file = places[1] / "x.service.d" / NAME
    file.parent.mkdir(parents=True)
    ours = tmp_path / "ours"
    ours.write_text(f"{MARK}\n")
    if kind == "file":
        file.write_text("[Service]\nNice=1\n")
    elif kind == "link":
        file.symlink_to(ours)
    else:
        file.mkdir()
    for words in (("attach", "x", "build"), ("detach", "x")):
        with pytest.raises((Problem, OSError)):
            ctl(*words)
    assert file.is_symlink() or file.is_dir() or file.read_text() == "[Service]\nNice=1\n"
    assert ours.read_text() == f"{MARK}\n"
    assert manager.seen == [] or set(manager.seen) == {"/bin/x"}


def test_other_drop_ins_stay(manager: Manager, places: list[Path]) -> None:
    other = places[0] / "x.service.d" / "60-mine.conf"
    other.parent.mkdir(parents=True)
    other.touch()
    ctl("attach", "x", "build", "-q")
    ctl("detach", "x", "-q")
    assert files(places) == [other]
    with pytest.raises(Problem, match="is not attached"):
        ctl("detach", "x")
    assert len(manager.seen) == 2


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"LoadState": "not-found"}, "There is no unit"),
        ({"LoadState": "masked"}, "systemctl unmask"),
        ({"LoadState": "bad-setting", "LoadError": ("x", "Bad line.")}, "Bad line"),
        ({"Transient": True}, "transient"),
        ({"FragmentPath": ""}, "transient"),
        ({"FragmentPath": "/run/systemd/generator.late/x.service"}, "generated"),
        ({"Id": "mountnsd.service"}, "must run"),
        ({"Id": "mountns@build.service"}, "must run"),
        ({"DefaultDependencies": False}, "may start before"),
    ],
)
def test_units_that_cannot_be_attached(
    manager: Manager, places: list[Path], properties: dict[str, Any], said: str
) -> None:
    manager.unit.update(properties)
    with pytest.raises(Problem, match=said):
        ctl("attach", "x", "build")
    assert files(places) == []
    assert manager.seen == []


def test_an_alias_is_attached_by_its_own_name(manager: Manager, places: list[Path]) -> None:
    ctl("attach", "alias", "build", "-q")
    assert files(places)[0].parent.name == "x.service.d"
    ctl("detach", "alias", "-q")
    assert files(places) == []


def test_root_is_needed(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Problem, match="needs root"):
        ctl("attach", "x", "build")
    assert manager.seen == []


def test_names_of_namespaces(manager: Manager) -> None:
    with pytest.raises(Problem, match="no name for a namespace"):
        ctl("attach", "x", "../x")
    assert manager.seen == []
