# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which descriptors of a process are such as we send."""

import os

import pytest

from mountnsd import lying


def test_pidfds_and_namespaces() -> None:
    before = lying.count(os.getpid())
    opened = [os.pidfd_open(os.getpid()), os.open("/proc/self/ns/mnt", os.O_RDONLY)]
    others = [os.open("/dev/null", os.O_RDONLY), os.open("/proc/self/ns/net", os.O_RDONLY), *os.pipe()]
    try:
        assert lying.count(os.getpid()) == before + 2
    finally:
        for fd in opened + others:
            os.close(fd)
    assert lying.count(os.getpid()) == before


def test_a_process_that_is_gone() -> None:
    with pytest.raises(FileNotFoundError):
        lying.count(2**22 + 1)
