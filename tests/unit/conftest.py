# SPDX-License-Identifier: LGPL-2.1-or-later
"""What several unit tests of mountnsctl have in common."""

from collections.abc import Callable

import pytest
from support.fakectl import Fake

from mountnsd.ctl import verbs
from mountnsd.ctl.options import parse


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The daemon that the verbs find."""
    daemon = Fake()
    monkeypatch.setattr(verbs, "Connection", lambda *_: daemon)
    return daemon


@pytest.fixture
def ctl(fake: Fake, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; returns exit status, output and standard error."""
    assert fake

    def run(*words: str) -> tuple[int, str, str]:
        status = verbs.run(parse(list(words)))
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run
