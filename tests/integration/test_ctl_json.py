# SPDX-License-Identifier: LGPL-2.1-or-later
"""The JSON shapes that mountnsctl(1) documents, against what the commands print: no key less and none more.

Others parse them, so that a key once documented stays.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.ctl import TIMEOUT, Ctl

PAGE = (Path(__file__).parents[2] / "docs" / "mountnsctl.1.md").read_text()
SHAPES = dict(
    re.findall(
        r"^\*\*(\w+)\*\*\n\n:   (.*?)\n\n(?=\S)", PAGE.partition("\n# JSON\n")[2], re.MULTILINE | re.DOTALL
    )
)
# Whose shape is a part of another one's.
PARTS = {"list": ("show",), "status": ("show", "pids", "diff")}


def _documented(verb: str) -> set[str]:
    keys = set(re.findall(r"`(\w+)`", SHAPES[verb]))
    for part in PARTS.get(verb, ()):
        assert f"of {part}" in SHAPES[verb]
        keys |= _documented(part)
    return keys


def _printed(value: Any) -> Iterator[str]:
    """Every key that is in a value, at any depth; labels are the user's own."""
    if isinstance(value, list):
        for item in value:
            yield from _printed(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            if key != "labels":
                yield from _printed(item)


def _declaration(directory: Path) -> str:
    """A declaration that something is wrong with."""
    path = directory / "wrong.toml"
    path.write_text("nonsense = 1\n")
    return str(path)


# Each after the other, on a namespace that has a process inside.
COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "create": lambda _: ["create", "other", "--label=a=b"],
    "mount": lambda _: ["mount", "demo", "scratch", "/mnt", "-t", "tmpfs"],
    "list": lambda _: ["list"],
    "status": lambda _: ["status", "demo"],
    "show": lambda _: ["show", "demo", "other"],
    "mounts": lambda _: ["mounts", "demo"],
    "diff": lambda _: ["diff", "demo"],
    "pids": lambda _: ["pids", "demo"],
    "busy": lambda _: ["busy", "demo"],
    "which": lambda _: ["which"],
    "verify": lambda directory: ["verify", _declaration(directory)],
    "umount": lambda _: ["umount", "demo", "/mnt"],
    "destroy": lambda _: ["destroy", "other"],
}


def test_every_shape_is_that_which_is_documented(ctl: Ctl, directory: Path) -> None:
    inside = ctl.start("exec", "demo", "sh", "-c", "echo ready; read x")
    assert inside.stdout is not None
    assert inside.stdout.readline() == "ready\n"
    try:
        for verb, words in COMMANDS.items():
            line = words(directory) if verb != "which" else ["which", str(inside.pid)]
            result = ctl(*line, "--json=short")
            assert result.returncode in ((0, 1) if verb in ("diff", "verify") else (0,)), result
            assert result.stdout.count("\n") == 1
            assert result.stdout.isascii()
            keys = set(_printed(json.loads(result.stdout)))
            units = {"active", "sub", "enabled"} if verb == "status" else set()  # there is no systemd here
            assert keys | units == _documented(verb), verb
            pretty = ctl(
                *(words(directory) if verb in ("list", "show", "mounts") else ["list"]), "--json=pretty"
            )
            assert pretty.stdout.startswith("[\n\t{\n")
    finally:
        inside.communicate("x\n", TIMEOUT)


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_page_says_what_kind_of_value_it_is(verb: str) -> None:
    assert re.match(r"An (array|object)", SHAPES[verb])


def test_the_shapes_of_before_are_still_there() -> None:
    """Those of the first version that had them: keys are added, and none is taken away."""
    first = {
        "list": "name path inode owner processes",
        "show": "name path pin inode namespace_id owner created_usec propagation description labels state processes",
        "create": "name path",
        "destroy": "name pids",
        "mounts": "id parent device root target options fstype source",
        "verify": "file level key message",
        "pids": "pid uid comm",
    }
    for verb, keys in first.items():
        assert set(keys.split()) <= _documented(verb), verb


def test_the_same_whatever_the_legend(ctl: Ctl) -> None:
    ctl.still("still")
    for words in (
        ["list"],
        ["show", "demo"],
        ["mounts", "still"],
        ["diff", "still", "still"],
        ["pids", "demo"],
    ):
        plain = ctl.ok(*words, "-j")
        assert ctl.ok(*words, "-j", "--no-legend", "--no-pager", "-q") == plain


@pytest.mark.parametrize("words", [["list"], ["show"], ["status"], ["mounts"], ["pids"], ["busy"]])
def test_no_json_is_text(ctl: Ctl, words: list[str]) -> None:
    line = words if words == ["list"] else [*words, "demo"]
    for text in (ctl(*line).stdout, ctl(*line, "--json=short", "--json=off").stdout):
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
