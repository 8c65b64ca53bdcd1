# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packages, built: what is in them, and that the two are the same."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.ground import run

import mountnsd

TREE = Path(__file__).resolve().parents[2]
VERSION = mountnsd.__version__
SECONDS = 100

# What a package adds to what 'make install' installs: documents, in places of each distribution's own, and what
# byte-compiles for a new Python.
DOCUMENTS = re.compile(r"/usr/share/(doc|licenses|lintian|python3)(/.*)?")
PROGRAMS = {"/usr/sbin/mountnsd", "/usr/bin/mountnsctl"}
# Directories that are nobody's alone.
COMMON = {
    "/",
    "/etc",
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib/systemd",
    "/usr/lib/systemd/catalog",
    "/usr/lib/systemd/system",
    "/usr/share",
    "/usr/share/dbus-1",
    "/usr/share/dbus-1/system.d",
    "/usr/share/dbus-1/system-services",
    "/usr/share/polkit-1",
    "/usr/share/polkit-1/actions",
    "/usr/share/man",
    "/usr/share/bash-completion",
    "/usr/share/bash-completion/completions",
    "/usr/share/fish",
    "/usr/share/fish/vendor_completions.d",
    "/usr/share/zsh",
    "/usr/share/zsh/site-functions",
    "/usr/share/zsh/vendor-completions",
    *(f"/usr/share/man/man{section}" for section in range(1, 9)),
}


@dataclass(frozen=True)
class Entry:
    """What is to be known of a file of a package."""

    mode: int
    owner: str


def make(target: str, *variables: str) -> str:
    """Run a target of the Makefile; gives what it printed."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "SOURCE_DATE_EPOCH")
    }
    result = subprocess.run(
        ["make", "--directory", str(TREE), target, *variables],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def needs(*programs: str) -> None:
    """Skip where these are not installed, or a package cannot be built."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed; 'make tools' installs it")


@pytest.fixture(scope="module")
def built(new_directory: Callable[[], Path]) -> Path:
    """The directory with the Debian package."""
    needs("dpkg-buildpackage", "dh", "pandoc")
    build = new_directory()
    make("deb", f"BUILD={build}")
    return build / "deb"


@pytest.fixture(scope="module")
def deb(built: Path) -> Path:
    """The Debian package."""
    return built / f"mountnsd_{VERSION}_all.deb"


@pytest.fixture(scope="module")
def rpm(new_directory: Callable[[], Path]) -> Path:
    """The RPM package."""
    needs("rpmbuild", "pandoc")
    build = new_directory()
    make("rpm", f"BUILD={build}")
    (package,) = (build / "rpm/RPMS/noarch").glob("*.rpm")
    return package


@pytest.fixture(scope="module")
def installed(new_directory: Callable[[], Path]) -> Path:
    """What 'make install' does, as a package would call it."""
    needs("pandoc")
    root = new_directory()
    make("install", *where(root), f"BUILD={new_directory()}")
    return root


def where(root: Path) -> list[str]:
    """The variables of 'make install' for a package."""
    return [f"DESTDIR={root}", "PREFIX=/usr"]


def below(root: Path) -> Iterator[Path]:
    """Everything below a directory, as paths from there."""
    for path in root.rglob("*"):
        yield Path("/") / path.relative_to(root)


def plain(path: str) -> str:
    """A path without what packaging does to a page, and with Fedora's place for zsh."""
    path = path.replace("/usr/share/zsh/vendor-completions/", "/usr/share/zsh/site-functions/")
    return path.removesuffix(".gz") if path.startswith("/usr/share/man/") else path


def contents_of_deb(package: Path) -> dict[str, Entry]:
    """The files and directories of a Debian package."""
    found = {}
    for line in run("dpkg-deb", "--contents", package).splitlines():
        mode, owner, _, _, _, path = line.split(maxsplit=5)
        found[path.removeprefix(".").rstrip("/") or "/"] = Entry(symbolic(mode), owner)
    return found


def symbolic(mode: str) -> int:
    """`-rwxr-xr-x` as a number."""
    assert re.fullmatch(r"[-d]([-r][-w][-x]){3}", mode), mode
    return int("".join("0" if bit == "-" else "1" for bit in mode[1:]), 2)


def contents_of_rpm(package: Path) -> dict[str, Entry]:
    """The files and directories of an RPM package."""
    query = "[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}/%{FILEGROUPNAME}\\n]"
    lines = run("rpm", "--query", "--package", "--queryformat", query, package).splitlines()
    split = [line.rsplit(" ", 2) for line in lines]
    return {path: Entry(int(mode, 8) & 0o7777, owner) for path, mode, owner in split}


def payload(contents: dict[str, Entry]) -> dict[str, int]:
    """The files and the package's own directories, with their modes, and without documents."""
    return {
        plain(path): entry.mode
        for path, entry in contents.items()
        if path not in COMMON and not DOCUMENTS.fullmatch(path)
    }


def test_lintian(built: Path) -> None:
    needs("lintian")
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", *map(str, built.glob("*.changes"))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not re.search(r"^[EW]: ", result.stdout, re.MULTILINE)


def test_every_override_is_needed(built: Path) -> None:
    needs("lintian")
    shown = run("lintian", "--allow-root", "--show-overrides", *built.glob("*.changes"))
    overrides = (TREE / "packaging/debian/mountnsd.lintian-overrides").read_text()
    tags = re.findall(r"^([a-z-]+)", overrides, re.MULTILINE)
    assert tags
    for tag in tags:
        assert f"O: mountnsd: {tag} " in shown
    assert "unused-override" not in shown


def test_owners_and_modes(deb: Path) -> None:
    contents = contents_of_deb(deb)
    assert {entry.owner for entry in contents.values()} == {"root/root"}
    rtupdate = "/usr/share/python3/runtime.d/mountnsd.rtupdate"
    executable = {path for path, entry in contents.items() if entry.mode & 0o111 and entry.mode == 0o755}
    directories = {str(parent) for path in contents for parent in Path(path).parents}
    empty = {
        "/etc/mountnsd/mountnsd.toml.d",
        "/etc/mountnsd/namespaces",
        "/usr/lib/mountnsd/namespaces",
    }
    assert executable == directories | empty | PROGRAMS | {rtupdate}
    assert {entry.mode for path, entry in contents.items() if path not in executable} == {0o644}


def test_no_bytecode(deb: Path) -> None:
    """It is made on the machine, for the Python there."""
    assert not [path for path in contents_of_deb(deb) if "__pycache__" in path or path.endswith(".pyc")]


def test_it_is_what_make_installs(deb: Path, installed: Path) -> None:
    expected = {
        str(path): (installed / path.relative_to("/")).stat().st_mode & 0o7777
        for path in below(installed)
        if str(path) not in COMMON
    }
    assert "/usr/lib/mountnsd/mountnsd/daemon.py" in expected
    assert payload(contents_of_deb(deb)) == expected


def test_all_of_the_program_is_in_it(deb: Path) -> None:
    contents = contents_of_deb(deb)
    library = "/usr/lib/mountnsd/mountnsd"
    for source in (TREE / "mountnsd").rglob("*.py"):
        assert f"{library}/{source.relative_to(TREE / 'mountnsd')}" in contents
    for source in (TREE / "dbus").glob("*.xml"):
        assert f"{library}/interfaces/{source.name}" in contents
    for source in (TREE / "systemd").iterdir():
        place = "catalog" if source.suffix == ".catalog" else "system"
        assert f"/usr/lib/systemd/{place}/{source.name.removesuffix('.in')}" in contents
    for source in (TREE / "docs").glob("*.[1-9].md"):
        page = source.name.removesuffix(".md")
        assert f"/usr/share/man/man{page[-1]}/{page}.gz" in contents
    assert "/usr/share/bash-completion/completions/mountnsctl" in contents
    assert "/usr/share/zsh/vendor-completions/_mountnsctl" in contents
    assert "/usr/share/fish/vendor_completions.d/mountnsctl.fish" in contents


def test_the_rpm_is_the_same(deb: Path, rpm: Path) -> None:
    of_rpm = contents_of_rpm(rpm)
    assert {entry.owner for entry in of_rpm.values()} == {"root/root"}
    assert payload(of_rpm) == payload(contents_of_deb(deb))


def test_the_rpm_has_the_dependencies(rpm: Path) -> None:
    required = run("rpm", "--query", "--package", "--requires", rpm).splitlines()
    assert {"python3-dbus-next >= 0.2.3", "python3-jeepney >= 0.8", "systemd"} <= set(required)
    assert run("rpm", "--query", "--package", "--recommends", rpm).split() == ["polkit"]


def test_maintainer_scripts(deb: Path, directory: Path) -> None:
    run("dpkg-deb", "--control", deb, directory / "control")
    scripts = {path.name: path for path in (directory / "control").iterdir() if path.stat().st_mode & 0o111}
    assert set(scripts) == {"postinst", "prerm", "postrm"}
    for script in scripts.values():
        run("sh", "-n", script)
        text = script.read_text()
        assert text.startswith("#!/bin/sh\n")
        assert "\nset -e\n" in text
    # The daemon alone is started with an installation, restarted with an upgrade, stopped by a removal.
    service = re.compile(r"deb-systemd-invoke \S+ (.*?) >")
    assert service.findall(scripts["postinst"].read_text()) == ["'mountnsd.service'"]
    assert service.findall(scripts["prerm"].read_text()) == ["'mountnsd.service'"]
    # The bus knows the policy by then.
    postinst = scripts["postinst"].read_text()
    assert postinst.index("ReloadConfig") < postinst.index("deb-systemd-invoke")
    assert not (directory / "control/conffiles").exists()  # an upgrade never asks


def test_the_same_source_makes_the_same_package(
    built: Path, deb: Path, new_directory: Callable[[], Path]
) -> None:
    again = new_directory() / "a-longer-path"
    make("deb", f"BUILD={again}")
    for name in (deb.name, f"mountnsd_{VERSION}.tar.xz"):
        digests = {hashlib.sha256((place / name).read_bytes()).digest() for place in (built, again / "deb")}
        assert len(digests) == 1, name


def test_uninstall(directory: Path, new_directory: Callable[[], Path]) -> None:
    """All of it goes, but for what the administrator wrote."""
    build = f"BUILD={new_directory()}"
    make("install", *where(directory), build)
    mine = directory / "etc/mountnsd/namespaces/mine.toml"
    mine.write_text("")
    make("uninstall", *where(directory), build)
    assert [path for path in directory.rglob("*") if path.is_file()] == [mine]
    mine.unlink()
    make("install", *where(directory), build)
    make("uninstall", *where(directory), build)
    assert {str(path) for path in below(directory)} <= COMMON


def test_other_places(directory: Path, new_directory: Callable[[], Path]) -> None:
    """Every variable is honoured, and the programs find each other."""
    places = {
        "BINDIR": "/opt/b",
        "SBINDIR": "/opt/s",
        "LIBDIR": "/opt/l",
        "UNITDIR": "/opt/u",
        "MANDIR": "/opt/m",
        "BASHDIR": "/opt/bash",
        "ZSHDIR": "/opt/zsh",
        "FISHDIR": "/opt/fish",
        "POLICYDIR": "/opt/p",
        "SERVICEDIR": "/opt/v",
        "ACTIONSDIR": "/opt/a",
        "CATALOGDIR": "/opt/g",
        "CONFIGDIR": "/opt/c",
        "DECLAREDDIR": "/opt/d",
    }
    variables = [f"DESTDIR={directory}", *(f"{name}={path}" for name, path in places.items())]
    build = f"BUILD={new_directory()}"
    make("install", *variables, build)
    assert {str(path) for path in directory.glob("*/*")} == {f"{directory}{path}" for path in places.values()}
    unit = (directory / "opt/u/mountnsd.service").read_text()
    assert "ExecStart=/opt/s/mountnsd --launcher=systemd\n" in unit
    assert 'sys.path.insert(0, "/opt/l")' in (directory / "opt/b/mountnsctl").read_text()
    make("uninstall", *variables, build)
    assert not [path for path in directory.rglob("*") if path.is_file()]


def test_without_git(directory: Path) -> None:
    """As from the source archive: the copy that packages are made of has the same files."""
    make("dist", f"BUILD={directory}")
    run("tar", "--extract", "--directory", directory, "--file", directory / f"dist/mountnsd-{VERSION}.tar.gz")
    source = directory / f"mountnsd-{VERSION}"
    assert not (source / ".git").exists()
    run("make", "--directory", source, "dist", f"BUILD={directory}/again")
    first, second = (
        sorted(run("tar", "--list", "--file", place / f"dist/mountnsd-{VERSION}.tar.gz").splitlines())
        for place in (directory, directory / "again")
    )
    assert f"mountnsd-{VERSION}/mountnsd/daemon.py" in first
    assert first == second
