# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is written into unit files is what systemd reads."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import unitfile

from mountnsd.ctl.problem import Problem
from mountnsd.ctl.unitsyntax import literal, service_name, word

TREE = Path(__file__).resolve().parents[2]
# All that D-Bus carries: no NUL, no surrogates.
TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=0xD7FF) | st.characters(min_codepoint=0xE000))
ODD = st.text(st.sampled_from("aZ09%$\"'\\;{}() \t\n-@+!:|#\x01\x7fü€😀"))


@given(st.lists(st.one_of(TEXT, ODD), min_size=1))
@example([""])
@example(
    [";", "\\", "\\;", '"', "'", "%", "%%n", "$", "$$", "${A}", " ", "#", "a\nb", "\x7f", "\x80", "ü", "😀"]
)
def test_round_trip(texts: list[str]) -> None:
    line = " ".join(map(word, texts))
    assert line.isascii()
    assert line.isprintable()
    assert unitfile.words(line) == texts
    assert unitfile.command(f"-/bin/x {line}") == ("/bin/x", ["/bin/x", *texts], ["ignore-failure"])


def test_what_needs_no_quotes_has_none() -> None:
    assert word("/usr/bin/x") == "/usr/bin/x"
    assert word("--name=$VALUE") == "--name=$VALUE"
    assert word("${VALUE}") == '"${VALUE}"'
    assert literal("$HOME/$$") == "$$HOME/$$$$"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nginx", "nginx.service"),
        ("a@b.service", "a@b.service"),
        ("a.b", "a.b.service"),
        ("x\\x2dy", "x\\x2dy.service"),
    ],
)
def test_names_of_services(text: str, name: str) -> None:
    assert service_name(text) == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.socket", "not a service"),
        ("-.mount", "not a service"),
        ("getty@", "say which instance"),
        ("../x", "no name of a unit"),
        ("a/b", "no name of a unit"),
        ("a b", "no name of a unit"),
        ("", "no name of a unit"),
        ("ü", "no name of a unit"),
        ("x" * 250, "no name of a unit"),
    ],
)
def test_what_is_no_service(text: str, said: str) -> None:
    with pytest.raises(Problem, match=said):
        service_name(text)


@pytest.mark.parametrize("document", ["README.md", "docs/mountnsd.7.md"])
def test_the_unit_that_is_shown(document: str, tmp_path: Path) -> None:
    text = unitfile.shown_unit(TREE / document)
    assert text == unitfile.shown_unit(TREE / "README.md")
    found = dict(unitfile.sections(text)["Service"])
    assert found["ExecStart"].startswith("/usr/bin/mountnsctl exec build /")
    assert set(found["AmbientCapabilities"].split()) == {
        "CAP_SYS_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_DAC_READ_SEARCH",
    }
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "builder.service"
    unit.write_text(text.replace("/usr/bin/mountnsctl", "/bin/true").replace("User=builder", "User=root"))
    (tmp_path / "mountns@.service").write_text(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    )
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = [line for line in (result.stdout + result.stderr).splitlines() if "builder.service" in line]
    assert (result.returncode, said) == (0, [])
