# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is counted of a call while it is open."""

import pytest

from mountnsd import quota
from mountnsd.errors import LimitsExceeded
from mountnsd.quota import Quota

USERS = range(1000, 1100)


def fill(held: Quota, uid: int, calls: int, descriptors: int = 0) -> int:
    """Open calls of a user; returns how many there could be."""
    for number in range(calls):
        try:
            held.open(uid, descriptors)
        except LimitsExceeded:
            return number
    return calls


def test_calls_of_a_user() -> None:
    held = Quota()
    assert fill(held, USERS[0], 100) == quota.MAX_PENDING_PER_USER
    assert fill(held, USERS[1], 1) == 1
    held.close(USERS[0], 0)
    assert fill(held, USERS[0], 100) == 1


def test_calls_of_all_users() -> None:
    held = Quota()
    assert sum(fill(held, uid, 50) for uid in USERS) == quota.MAX_PENDING
    assert fill(held, 0, 1) == 1


def test_descriptors_of_a_user() -> None:
    held = Quota()
    assert fill(held, USERS[0], 1, quota.MAX_WAITING_DESCRIPTORS_PER_USER + 1) == 0
    assert fill(held, USERS[0], 30, 10) == quota.MAX_WAITING_DESCRIPTORS_PER_USER // 10
    assert fill(held, USERS[0], 1) == 1
    held.close(USERS[0], 10)
    assert fill(held, USERS[0], 30, 10) == 1


def test_descriptors_of_all_users() -> None:
    held = Quota()
    assert sum(fill(held, uid, 1, 100) for uid in USERS) == quota.MAX_WAITING_DESCRIPTORS // 100
    assert fill(held, USERS[-1], 1) == 1


def test_root_is_not_bounded_and_bounds_nobody() -> None:
    held = Quota()
    assert fill(held, 0, 2000, 253) == 2000
    assert fill(held, USERS[0], 1, 253) == 1


def test_nothing_is_left_of_what_was_closed() -> None:
    held = Quota()
    for uid in (0, *USERS):
        held.open(uid, 3)
        held.close(uid, 3)
    with pytest.raises(LimitsExceeded):
        held.open(USERS[0], 1000)
    assert not held._calls.by_user
    assert not held._descriptors.by_user
