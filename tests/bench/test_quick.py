# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run: everything is measured and told of, and nothing is left, interrupted or not. No time is judged."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import directories, leaks
from support.contract import wait_until
from support.daemon import REPOSITORY

from bench import operations
from bench.installed import HOLDERS
from bench.peers import NETNS

LONGEST = 300


@pytest.fixture(scope="module", autouse=True)
def _root() -> None:
    """It mounts."""
    if os.geteuid() != 0:
        pytest.exit("the measurements make mount namespaces: run them as root", returncode=1)


@pytest.fixture
def directory(base: Path) -> Iterator[Path]:
    """A directory for one run.  It fails if a mount is left in it."""
    with directories.below(base) as path:
        (path / "tmp").mkdir(mode=0o755)
        yield path


def start(directory: Path) -> "subprocess.Popen[str]":
    """Start a short run, which writes into that directory."""
    files = ["--report", str(directory / "page.md"), "--json", str(directory / "figures.json")]
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "--quick", *files],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": "tests:.", "TMPDIR": str(directory / "tmp")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def netns() -> list[str]:
    """The directory of network namespaces, where it is there, and those of runs."""
    return [str(path) for path in (NETNS, *NETNS.glob("bench-*")) if path.exists()]


def nothing_left(directory: Path, before: list[str]) -> None:
    """Neither a file nor a mount nor a process of a run is there, nor a name of a network namespace."""
    assert not list((directory / "tmp").iterdir())
    assert not leaks.mounts_below(directory)
    assert not leaks.running()
    assert netns() == before


@pytest.mark.longest(LONGEST)
def test_a_short_run(directory: Path) -> None:
    before = netns()
    process = start(directory)
    output, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, output
    nothing_left(directory, before)
    figures: dict[str, Any] = json.loads((directory / "figures.json").read_text())
    for holder in HOLDERS:
        measured = {row["operation"] for row in figures["rows"] if row["holder"] == holder}
        assert measured >= set(operations.SERVED) - {operations.OPEN_CHANGED}
        assert {
            "Create, 16 in flight, 16 connections",
            "recovery, until ready",
            "cold start",
            "resident memory, idle, just started",
            "resident memory, idle, one of each done",
            "resident memory of each, recovered",
        } <= measured
        assert operations.OPEN_CHANGED in {
            row["operation"] for row in figures["growth"] if row["holder"] == holder
        }
    assert all(row["ours"] is not None for row in figures["rows"])
    assert all(sample["count"] for sample in figures["samples"])
    alone = {sample["operation"] for sample in figures["samples"] if sample["alone"]}
    assert alone == set(operations.ALONE)
    assert ET.parse(directory / "page.svg").getroot().tag.endswith("svg")
    page = (directory / "page.md").read_text()
    assert "## Goals" in page
    assert all(f"{holder} holder" in page.partition("|")[2].partition("\n")[0] for holder in HOLDERS)
    assert page.count("≤ 0.3 ×") >= len(HOLDERS)
    assert "| Create " in output


@pytest.mark.longest(LONGEST)
def test_interrupted(directory: Path) -> None:
    """As by Ctrl-C, which every process of the terminal gets."""
    before = netns()
    process = start(directory)
    assert process.stdout is not None
    said = iter(process.stdout.readline, "")
    assert any("round" in line for line in said)
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(60) == 130, rest
    process.stdout.close()
    wait_until(lambda: not leaks.running())
    nothing_left(directory, before)
    assert not (directory / "page.md").exists()
