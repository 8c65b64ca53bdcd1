# SPDX-License-Identifier: LGPL-2.1-or-later
"""The completions in the tree are those of the verbs and options that there are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from completions.generate import FILES, HERE, TEXTS, Kind, operands, spellings, value
from mountnsd.ctl.options import OPTIONS, VALUES, VERBS, find_verb

SHELLS = sorted(FILES)


@pytest.mark.parametrize("shell", SHELLS)
def test_they_are_made_from_the_tables_of_now(shell: str) -> None:
    assert (HERE / FILES[shell]).read_text() == TEXTS[shell](), "'make completions' makes them anew"


@pytest.mark.parametrize("shell", SHELLS)
def test_every_verb_and_option(shell: str) -> None:
    text = (HERE / FILES[shell]).read_text()
    for verb in VERBS:
        assert re.search(rf"\b{verb.name}\b", text)
    for option in OPTIONS:
        for spelling in spellings(option):
            written = spelling
            if shell == "fish":
                written = f"-l {option.long} " if spelling.startswith("--") else f"-s {option.short} "
            assert written in text


def test_what_words_may_be() -> None:
    assert operands(find_verb("create")) == [(Kind.DECLARED, False)]
    assert operands(find_verb("show")) == [(Kind.NAMESPACE, True)]
    assert operands(find_verb("attach")) == [(Kind.UNIT, False), (Kind.NAMESPACE, False)]
    assert operands(find_verb("enter")) == [(Kind.NAMESPACE, False), (Kind.COMMAND, True)]
    kinds = {option.long: value(option) for option in OPTIONS}
    assert kinds["json"] == ("pretty", "short", "off")
    assert (kinds["user"], kinds["from"], kinds["chdir"]) == (Kind.USER, Kind.NAMESPACE, Kind.DIRECTORY)
    assert (kinds["argv0"], kinds["quiet"]) == (Kind.NOTHING, None)
    assert set(VALUES) <= set(kinds)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_it(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed; 'make tools' installs it")
    result = subprocess.run(
        [shell, "-n", HERE / FILES[shell]], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; 'make tools' installs it")
    command = ["shellcheck", "--severity=warning", str(Path(HERE) / FILES["bash"])]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout
