# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of the manual pages do what the pages say; those of org.mountnsd1(5) run in the integration tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import document
from support.deb import REPOSITORY
from support.declared import FILE, UNIT
from support.document import Command
from support.host import Host

_DOCS = REPOSITORY / "docs"
# What needs another host, somebody at the terminal or a program that is not there, or has no end; the README's test
# attaches a service.
_NOT_HERE = (
    "-H ",
    "monitor",
    "edit ",
    "zstd",
    "jq ",
    "attach",
    "detach",
    "ExecStart",
    "23869",
    "export ",
    "mountnsd --",
)


def _steps(page: str, title: str) -> list[Command]:
    found = document.steps(document.chapter(_DOCS / page, title))
    steps = [step for step in found if isinstance(step, Command)]
    return [step for step in steps if not any(word in step.text for word in _NOT_HERE)]


def _type(host: Host, step: Command) -> None:
    result = host.run("sh", "-c", f"{{ {step.text}; }} 2>&1", check=False)
    if step.output:
        assert document.comparable(result.stdout) == document.comparable(step.output), step.text
    elif step.text.startswith(("mountnsctl", "systemctl")):
        assert result.returncode == 0, f"{step.text}: {result.stdout}"


@contextmanager
def _build(host: Host) -> Iterator[None]:
    """The namespace that most examples are about, declared, with a process inside."""
    host.machine.write(FILE, 'description = "Builds"\n')
    host.run("systemctl", "start", UNIT)
    try:
        with host.entered("build", "sleep", "600"):
            yield
            host.run("systemctl", "disable", "--now", UNIT)
    finally:
        host.run("rm", FILE)


def test_the_walkthrough(host: Host) -> None:
    steps = _steps("mountnsd.7.md", "WALKTHROUGH")
    assert len(steps) > 8
    for step in steps:
        _type(host, step)


def test_mountnsctl(host: Host) -> None:
    steps = _steps("mountnsctl.1.md", "EXAMPLES")
    texts = [step.text for step in steps]
    begin = texts.index("mountnsctl destroy demo") + 1
    assert (begin, len(steps)) >= (7, 14)
    for step in steps[:begin]:
        _type(host, step)
    with _build(host):
        for step in steps[begin:]:
            _type(host, step)


def test_mountnsd(host: Host) -> None:
    steps = _steps("mountnsd.8.md", "EXAMPLES")
    assert len(steps) >= 4
    with _build(host):
        for step in steps:
            _type(host, step)


def test_they_are_those_of_the_package(host: Host) -> None:
    pages = {path.name.removesuffix(".md") for path in _DOCS.glob("*.[1578].md")}
    listed = host.out("dpkg", "--listfiles", "mountnsd").splitlines()
    assert {Path(path).name.removesuffix(".gz") for path in listed if "/share/man/man" in path} - {
        f"man{section}" for section in "1578"
    } == pages
