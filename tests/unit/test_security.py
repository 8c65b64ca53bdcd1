# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each promise of SECURITY.md names the tests that hold it, and these are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SECURITY = (TESTS.parent / "SECURITY.md").read_text()
SECTION = SECURITY.partition("\n## What is promised, and the tests that hold it\n")[2].partition("\n## ")[0]
PROMISES = re.findall(r"^\| (.+?) \| (.+?) \|$", SECTION, re.MULTILINE)[2:]
NAMED = sorted(set(re.findall(r"`(\w+/test_\w+\.py)((?:::\w+)*)`", SECURITY)))


def test_there_are_promises() -> None:
    assert len(PROMISES) > 20


@pytest.mark.parametrize(("promise", "tests"), PROMISES)
def test_each_names_its_tests(promise: str, tests: str) -> None:
    assert re.search(r"`\w+/test_\w+\.py(::\w+)*`", tests), promise


@pytest.mark.parametrize(("file", "within"), NAMED)
def test_these_are_there(file: str, within: str) -> None:
    body: list[ast.stmt] = ast.parse((TESTS / file).read_text()).body
    assert any("test" in ast.dump(node) for node in body)
    for name in within.split("::")[1:]:
        found = [
            node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
        ]
        assert found, f"{file} has no {name}"
        body = found[0].body
