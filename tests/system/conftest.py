# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world of the system tests: a Debian of each release, booted, with the built package installed by apt.

The tests of a release run in the order of _STORY, on one machine.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support import deb, roots
from support.host import Host
from support.machine import Machine

_Hook = TypeVar("_Hook", bound=Callable[..., Any])
_wrapper: Callable[[_Hook], _Hook] = pytest.hookimpl(hookwrapper=True)
_last: Callable[[_Hook], _Hook] = pytest.hookimpl(trylast=True)

# The install is first, what ends the package and the machine last.
_STORY = (
    "test_install",
    "test_activation",
    "test_journal",
    "test_authority",
    "test_password",
    "test_enter",
    "test_terminal",
    "test_survival",
    "test_reload",
    "test_declared",
    "test_dependency",
    "test_service",
    "test_hidden",
    "test_examples",
    "test_pages",
    "test_readme",
    "test_upgrade",
    "test_scores",
    "test_boot",
    "test_purge",
    "test_shutdown",
)
_NEEDED = ("mmdebstrap", "systemd-nspawn", "unshare", "nsenter")


@_last
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests here in the order of the story, one release after the other."""
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    releases = [release.name for release in roots.RELEASES]

    strange = {item.path.stem for item in ours} - set(_STORY)
    if strange:
        raise pytest.UsageError(f"these tests have no place in the story of {__file__}: {strange}")

    def place(item: pytest.Item) -> tuple[int, int]:
        call: Any = getattr(item, "callspec", None)
        return releases.index(call.params["host"].name), _STORY.index(item.path.stem)

    ours.sort(key=place)
    items[:] = [item for item in items if item not in ours] + ours


@pytest.fixture(scope="session", autouse=True)
def _possible() -> None:
    """The tests boot machines."""
    if os.geteuid() != 0:
        pytest.exit("the system tests boot machines in systemd-nspawn: run them as root", returncode=1)
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing:
        pytest.exit(f"the system tests need {', '.join(missing)}: run 'make test-packages'", returncode=1)


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tells whoever runs the tests what takes its time."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    reporter: Any = request.config.pluginmanager.getplugin("terminalreporter")

    def tell(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"\n{text}")

    return tell


@pytest.fixture(scope="session")
def package(say: Callable[[str], None]) -> Path:
    """The Debian package under test."""
    return deb.build(say)


@pytest.fixture(scope="session")
def package_tests() -> str:
    """The test that the package has of itself."""
    return (deb.REPOSITORY / "packaging" / "debian" / "tests" / "smoke").read_text()


@pytest.fixture(scope="session", params=roots.RELEASES, ids=lambda release: str(release.name))
def host(
    request: pytest.FixtureRequest, base: Path, package: Path, say: Callable[[str], None]
) -> Iterator[Host]:
    """A booted machine with the package installed, and some people."""
    release: roots.Release = request.param
    with Machine(release, roots.tree(release, say), base) as machine:
        running = Host(machine)
        running.settle()
        running.install(package)
        yield running


@_wrapper
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the machine said in a test that failed."""
    outcome: Any = yield
    report = outcome.get_result()
    host: Any = getattr(item, "funcargs", {}).get("host")
    if report.failed and isinstance(host, Host):
        report.sections.append(("console", host.machine.said()[-4000:]))
        if host.machine.runs:
            report.sections.append(("journal of the test", host.since_mark()[-20000:]))


@pytest.fixture(autouse=True)
def _tidy(host: Host) -> Iterator[None]:
    """Each test finds no namespace and no failed unit, and leaves none."""
    host.mark()
    yield
    if host.machine.runs:
        left = host.sweep()
        assert not left, f"the test left {left}"
