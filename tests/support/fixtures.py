# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fixtures of every layer that has a running daemon; a conftest.py imports them, and has a `bus` of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .buses import PrivateBus
from .client import Client
from .daemon import Daemon


@pytest.fixture
def daemon(bus: PrivateBus, directory: Path) -> Iterator[Daemon]:
    """A running mountnsd."""
    place = directory / "daemon"
    place.mkdir()
    with Daemon(bus, place) as running:
        yield running


@pytest.fixture
def root(bus: PrivateBus) -> Iterator[Client]:
    """A client of root."""
    with Client(bus.address) as client:
        yield client
