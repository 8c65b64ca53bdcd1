# SPDX-License-Identifier: LGPL-2.1-or-later
"""The walkthrough and the embedded daemon work, can be interrupted at any point, and leave nothing behind."""

import os
import re
import select
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks

TREE = Path(__file__).resolve().parents[2]


def start(module: str, directory: Path) -> "subprocess.Popen[str]":
    """Start a module of the demo with its temporary files below a directory."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", f"demo.{module}"],
        cwd=TREE,
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=0,
    )


def read_until(process: "subprocess.Popen[str]", text: str, timeout: float = 30) -> str:
    """What a process says, up to a text."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout
    said = ""
    while text not in said:
        assert select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))[0], said
        data = os.read(process.stdout.fileno(), 4096)
        assert data, said
        said += data.decode(errors="replace")
    return said


@pytest.fixture(autouse=True)
def _clean(directory: Path) -> Iterator[None]:
    yield
    assert [leaks.describe(pid) for pid in leaks.running()] == []
    assert leaks.mounts_below(directory) == []
    assert list(directory.iterdir()) == []


def test_walkthrough(directory: Path) -> None:
    process = start("walkthrough", directory)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "✗" not in output
    assert output.count("✓") >= 14
    assert output.rstrip().endswith("All of it holds.")


@pytest.mark.parametrize("after", ["This is", "it is created", "the file is there", "it is listed"])
def test_interrupted_walkthrough(directory: Path, after: str) -> None:
    process = start("walkthrough", directory)
    read_until(process, after)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "nothing is left behind" in output


def _drawn(picture: Path) -> list[str]:
    """The lines of a picture, without the numbers that differ from run to run."""
    texts = [text.text or "" for text in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    return [re.sub(r"[0-9]{10}", "N", text) for text in texts]


def test_the_picture_in_the_readme_is_what_the_walkthrough_says(directory: Path) -> None:
    assert "docs/walkthrough.svg" in (TREE / "README.md").read_text()
    picture = directory / "walkthrough.svg"
    subprocess.run(
        [sys.executable, "-m", "demo.picture", str(picture)],
        cwd=TREE,
        env={**os.environ, "TMPDIR": str(directory)},
        timeout=60,
        check=True,
    )
    drawn = _drawn(picture)
    picture.unlink()
    assert drawn == _drawn(TREE / "docs" / "walkthrough.svg")
    assert "# mountnsctl create demo" in drawn
    assert not [line for line in drawn if line.startswith("✗")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_embedded(directory: Path, number: signal.Signals) -> None:
    process = start("embedded", directory)
    said = read_until(process, "Ctrl-C")
    environment = dict(os.environ)
    for line in said.splitlines():
        if line.strip().startswith("export "):
            key, _, value = line.strip().removeprefix("export ").partition("=")
            environment[key] = value
    for arguments in (["create", "demo"], ["exec", "demo", "true"], ["list"]):
        result = subprocess.run(
            [sys.executable, "-m", "mountnsd.ctl", *arguments],
            cwd=TREE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    assert "demo" in result.stdout
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
