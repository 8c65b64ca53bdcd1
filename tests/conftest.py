# SPDX-License-Identifier: LGPL-2.1-or-later
"""What holds for every test: nothing is left behind, and in CI nothing is skipped."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter
from support import directories, hidden, leaks

_PREFIX = "mountnsd-test-"
_LONGEST = 120  # seconds, for a test that has no mark of its own
_PID = os.getpid()
_skipped: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """The clients are forked off while a thread reads the bus's log; they call nothing that takes a lock."""
    config.addinivalue_line("filterwarnings", "ignore:.*multi-threaded, use of fork:DeprecationWarning")
    signal.signal(signal.SIGTERM, _interrupted)
    # What the tests start is to begin as from a shell, also where they were started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _interrupted(_number: int, _frame: object) -> None:
    """Be ended as by Ctrl-C, so that everything is taken down; but a forked child ends as any process does."""
    if os.getpid() == _PID:
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def _bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that hangs."""
    marked = request.node.get_closest_marker("longest")
    seconds = int(marked.args[0]) if marked else _LONGEST

    def too_long(_number: int, _frame: object) -> None:
        raise TimeoutError(f"the test took longer than {seconds} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    yield
    signal.alarm(0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a hidden holder, leave out what is about the visible one."""
    if not hidden.HIDE:
        return
    left_out = [item for item in items if item.get_closest_marker("visible_holder")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Remember modules that were skipped as a whole."""
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where CI=true, a test that was skipped is one that failed."""
    if _skipped and os.environ.get("CI", "").lower() in ("true", "1") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say why the run failed when it is for what was skipped."""
    if _skipped and os.environ.get("CI", "").lower() in ("true", "1"):
        terminalreporter.section("skipped, which is a failure here", red=True)
        for nodeid in _skipped:
            terminalreporter.line(nodeid)


def _state(base: Path) -> tuple[set[leaks.MountPoint], set[int], set[str]]:
    mounts = {mount for place in (base, "/run/mountnsd") for mount in leaks.mounts_below(place)}
    return mounts, set(leaks.running()), {entry.name for entry in base.iterdir()}


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """The directory below which every test works; all users can reach it, and it is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    directory.chmod(0o755)
    yield directory
    if os.getpid() == _PID and not leaks.mounts_below(directory):
        shutil.rmtree(directory)


@pytest.fixture
def directory(base: Path) -> Iterator[Path]:
    """A directory for one test, which all users can reach.  The test fails if it leaves a mount in it."""
    with directories.below(base) as path:
        yield path


@pytest.fixture(scope="session", autouse=True)
def _nothing_left(base: Path) -> Iterator[None]:
    """Fail the run if a mount, a process or a directory of the tests is left after the last of them."""
    leaks.become_subreaper()
    mounts, processes, _ = _state(base)
    yield
    later_mounts, later_processes, directories = _state(base)
    left = [f"mount {mount}" for mount in later_mounts - mounts]
    left += [f"process {leaks.describe(pid)}" for pid in later_processes - processes]
    left += [f"directory {base / name}" for name in directories]
    for pid in later_processes - processes:
        leaks.end(pid)
    for mount in leaks.mounts_below(base)[::-1]:
        leaks.detach(mount)
    assert not left, "the tests left behind: " + "; ".join(left)
