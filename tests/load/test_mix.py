# SPDX-License-Identifier: LGPL-2.1-or-later
"""A hundred callers of several users mix all methods for half a minute, while the daemon is restarted."""

import asyncio
import os
import random
from pathlib import Path

import pytest
from support import contract

from load import soak
from load.mix import MIX
from load.model import Fate, Found, Model
from load.report import lines
from load.soak import Plan
from load.tally import Sample
from load.world import World

SECONDS = 30.0


def test_every_method_is_in_the_mix() -> None:
    """What is new in the XML is new in the mix."""
    assert MIX.keys() == {(method.interface, method.name) for method in contract.methods()}


def test_nothing_is_lost(directory: Path, figures: list[str]) -> None:
    """Nothing acknowledged is lost, nothing destroyed comes back, and no error comes that the contract has not."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    plan = Plan(SECONDS, seed, pause=3.0, say=print)
    world = asyncio.run(soak.run(plan, directory))
    figures += [f"SEED={seed}", *lines(world, plan)]
    assert not world.wrong, f"with SEED={seed}: " + "\n".join(world.wrong[:20])
    assert world.tally.calls.keys() == MIX.keys()
    assert {restart.how for restart in world.tally.restarts} == {"SIGKILL", "SIGTERM"}
    assert world.tally.reloads


class TestModel:
    """What the run would be worth nothing without: that it sees what is wrong."""

    def model(self) -> Model:
        """One that was acknowledged, one that was destroyed, one of which nobody knows."""
        model = Model()
        model.created(model.add("there", 7), 100)
        model.names["there"].id = 1
        gone = model.add("gone", 7)
        model.created(gone, 101)
        gone.id = 2
        model.destroyed(gone)
        model.add("unknown", 7).fate = Fate.UNKNOWN
        return model

    def test_as_it_must_be(self) -> None:
        model = self.model()
        assert model.compare({"there": Found(100, 1, 7)}) == []
        assert model.names["unknown"].fate is Fate.ABSENT

    def test_either_outcome_of_a_lost_answer_is_right(self) -> None:
        model = self.model()
        assert model.compare({"there": Found(100, 1, 7), "unknown": Found(103, 3, 7)}) == []
        assert model.names["unknown"].fate is Fate.PRESENT

    @pytest.mark.parametrize(
        ("found", "what"),
        [
            ({}, "is lost"),
            ({"there": Found(109, 1, 7)}, "another namespace"),
            ({"there": Found(100, 9, 7)}, "another namespace"),
            ({"there": Found(100, 1, 8)}, "belong to 8"),
            ({"there": Found(100, 1, 7), "gone": Found(104, 4, 7)}, "is there again"),
            ({"there": Found(100, 1, 7), "all-1": Found(101, 2, 7)}, "came back"),
        ],
    )
    def test_what_is_wrong_is_seen(self, found: dict[str, Found], what: str) -> None:
        (complaint,) = self.model().compare(found)
        assert what in complaint


def test_growth_is_seen() -> None:
    """From the first quarter after the warm-up to the last; what was before is no growth."""
    world = World(None, 1)  # type: ignore[arg-type]
    steps = [1000] * 15 + [20_000] * 15 + [50_000] * 10 + [70_000] * 10
    world.tally.samples = [Sample(second, 1, rss, 9, 0, 0) for second, rss in enumerate(steps)]
    assert soak.grown(world, 0.0) == 50_000
    assert soak.grown(world, 25.0) == 20_000
    assert soak.grown(world, 100.0) == 0
