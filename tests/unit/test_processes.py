# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is inside, where the kernel does not say."""

import errno
import os
import signal

import pytest

from mountnsd import processes


def _failing(code: int) -> object:
    def fail(*_: object, **__: object) -> str:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EMFILE, errno.EIO])
def test_nobody_is_outside_because_he_could_not_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "readlink", _failing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        processes.inside(1)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESRCH, errno.EACCES])
def test_who_is_gone_or_out_of_reach_is_not_inside(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "readlink", _failing(code))
    assert processes.inside(1) == []


def test_who_is_inside_is_counted_though_nothing_can_be_learnt_of_him(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = processes.namespace_of(os.getpid())
    assert own is not None
    monkeypatch.setattr(os, "stat", _failing(errno.ENOMEM))
    with pytest.raises(OSError, match="Cannot allocate"):
        processes.inside(own)


def test_a_signal_that_could_not_be_sent_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    own = processes.namespace_of(os.getpid())
    assert own is not None
    assert processes._signal(os.getpid(), own, signal.Signals(signal.SIGURG))
    monkeypatch.setattr(os, "pidfd_open", _failing(errno.EMFILE))
    assert not processes._signal(os.getpid(), own, signal.Signals(signal.SIGURG))
