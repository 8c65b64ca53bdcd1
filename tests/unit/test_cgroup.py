# SPDX-License-Identifier: LGPL-2.1-or-later
"""The unit that a process is in, as its control group says."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountnsd import cgroup


@pytest.mark.parametrize(
    ("table", "unit"),
    [
        ("0::/system.slice/cron.service\n", "cron.service"),
        ("0::/system.slice/system-getty.slice/getty@tty1.service\n", "getty@tty1.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
        # What a user runs below his manager he could name as he likes.
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/sshd.service\n", "user@1000.service"),
        ("0::/system.slice/_cpu.service\n", "cpu.service"),
        ("12:pids:/x.service\n1:name=systemd:/system.slice/ssh.service\n0::/\n", "ssh.service"),
        ("0::/init.scope\n", "init.scope"),
        ("0::/\n", ""),
        ("0::/somebody/else\n", ""),
        ("", ""),
    ],
)
def test_the_unit(table: str, unit: str) -> None:
    assert cgroup.unit_in(table) == unit


@settings(max_examples=200, deadline=None, database=None)
@given(st.text("0:/.abslice\n service", max_size=60))
def test_whatever_it_says(table: str) -> None:
    unit = cgroup.unit_in(table)
    assert unit == "" or (unit in table and "/" not in unit)


def test_of_a_process() -> None:
    with open("/proc/self/cgroup") as file:  # noqa: PTH123
        assert cgroup.unit_of(os.getpid()) == cgroup.unit_in(file.read())
    assert cgroup.unit_of((1 << 22) + 1) == ""
