# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world of the integration tests: a bus of either kind, polkit, the daemon, and clients."""

import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support import fixtures, leaks
from support.buses import KINDS, PrivateBus
from support.client import Client
from support.ctl import Ctl, wait_until
from support.daemon import Daemon
from support.entering import bounded_and_tidy, namespace
from support.identity import NOBODY
from support.polkit import Polkit

daemon, root = fixtures.daemon, fixtures.root

_Hook = TypeVar("_Hook", bound=Callable[..., Any])


_wrapper: Callable[[_Hook], _Hook] = pytest.hookimpl(hookwrapper=True)


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    """The tests mount, and change users."""
    if os.geteuid() != 0:
        pytest.exit("the integration tests make mount namespaces: run them as root", returncode=1)


@_wrapper
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the daemon and the bus said in a test that failed."""
    outcome: Any = yield
    report = outcome.get_result()
    for name in ("daemon", "bus", "polkit"):
        part: Any = getattr(item, "funcargs", {}).get(name)
        if report.failed and hasattr(part, "log"):
            report.sections.append((f"log of {name}", part.log()))


@pytest.fixture(params=KINDS)
def bus(request: pytest.FixtureRequest, directory: Path) -> Iterator[PrivateBus]:
    """A private bus with the shipped policy: each test runs on both kinds."""
    place = directory / "bus"
    place.mkdir()
    with PrivateBus(request.param, place) as running:
        yield running


@pytest.fixture
def polkit(bus: PrivateBus, directory: Path) -> Iterator[Polkit]:
    """The recording polkit, which refuses everything."""
    place = directory / "polkit"
    place.mkdir()
    with Polkit(bus, place) as running:
        yield running


@pytest.fixture
def ctl(bus: PrivateBus, daemon: Daemon) -> Iterator[Ctl]:
    """mountnsctl, and a namespace `demo`."""
    found = Ctl(bus, daemon)
    found.ok("create", "demo")
    yield found
    if daemon.process is not None:
        wait_until(lambda: not leaks.processes_in(daemon.pinned()))


@pytest.fixture
def uid() -> int:
    """The uid of an unprivileged user that the user database knows."""
    return pwd.getpwuid(NOBODY).pw_uid


@pytest.fixture
def user(bus: PrivateBus, uid: int) -> Iterator[Client]:
    """A client of an unprivileged user."""
    with Client(bus.address, uid) as client:
        yield client


@pytest.fixture
def tidy() -> Iterator[None]:
    """For the tests of the launcher: no test hangs, or leaves a child or a descriptor."""
    with bounded_and_tidy():
        yield


@pytest.fixture
def inside(tidy: None) -> Iterator[int]:
    """A namespace with the file PLACE/hi-there."""
    with namespace() as fd:
        yield fd
