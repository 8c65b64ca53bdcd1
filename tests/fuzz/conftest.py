# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world of the storms: a bus of either kind, the daemon, and who is not to be disturbed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from _pytest.terminal import TerminalReporter
from support import fixtures
from support.buses import KINDS, PrivateBus, generous
from support.client import Client
from support.weather import FRAMES, OTHER_UID, SEED, Report

daemon, root = fixtures.daemon, fixtures.root

_Hook = TypeVar("_Hook", bound=Callable[..., Any])
_wrapper: Callable[[_Hook], _Hook] = pytest.hookimpl(hookwrapper=True)
_report = Report()


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """The tests mount, and change users."""
    if os.geteuid() != 0:
        pytest.exit("the fuzzers make mount namespaces: run them as root", returncode=1)


@_wrapper
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the daemon and the bus said in a test that failed."""
    outcome: Any = yield
    report = outcome.get_result()
    for name in ("daemon", "bus"):
        part: Any = getattr(item, "funcargs", {}).get(name)
        if report.failed and hasattr(part, "log"):
            report.sections.append((f"log of {name}", part.log()[-20_000:]))


def pytest_report_header() -> str:
    """Say how to have the same frames again."""
    return f"fuzz: SEED={SEED} FRAMES={FRAMES}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, where `make fuzz` wants one."""
    where = os.environ.get("MOUNTNSD_FUZZ_REPORT")
    if where and _report.rows:
        outcome = f"{session.testscollected} tests, {session.testsfailed or 'none'} failed"
        if session.exitstatus == pytest.ExitCode.INTERRUPTED:
            outcome += ", ended before the last"
        Path(where).write_text(_report.document(SEED, outcome))


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print the figures."""
    if _report.lines:
        terminalreporter.section("figures")
        for line in _report.lines:
            terminalreporter.line(line)


@pytest.fixture
def report() -> Report:
    """Where the figures go."""
    return _report


@pytest.fixture(params=KINDS)
def bus(request: pytest.FixtureRequest, directory: Path) -> Iterator[PrivateBus]:
    """A private bus with the shipped policy: each test runs on both kinds."""
    place = directory / "bus"
    place.mkdir()
    with generous(request.param, place) as running:
        yield running


@pytest.fixture
def other(bus: PrivateBus) -> Iterator[Client]:
    """A client of the user who is not to be disturbed."""
    with Client(bus.address, OTHER_UID) as client:
        yield client
