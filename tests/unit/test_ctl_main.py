# SPDX-License-Identifier: LGPL-2.1-or-later
"""How mountnsctl ends."""

import pytest

from mountnsd.ctl import main


def test_a_fault_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_arguments: object) -> int:
        raise ValueError("not enough values\x1b[2J")

    monkeypatch.setattr(main, "_run", fail)
    assert main.main(["list"]) == 1
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "fault of mountnsctl: ValueError: not enough values" in said
    assert "\x1b" not in said
