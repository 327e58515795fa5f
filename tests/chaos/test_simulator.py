"""Whole deployments from seeds: the invariants hold, and a seed is a run."""

from __future__ import annotations

import pytest

from chaos.invariants import violations
from chaos.simulator import Faults, World

SEEDS = 2000
CHUNK = 250


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_the_invariants_hold(first: int) -> None:
    found = [v for seed in range(first, first + CHUNK) for v in violations(World(seed).run())]
    assert found == []


def test_a_seed_is_a_run() -> None:
    one, two = World(7).run(), World(7).run()
    assert one.history == two.history
    assert one.grants == two.grants


def test_the_seeds_reach_what_they_are_there_for() -> None:
    """Calls come up and end in trouble, agents crash, records are lost, repeated, forged and spliced."""
    worlds = [World(seed).run() for seed in range(60)]
    assert sum(len(world.grants) for world in worlds) > 60
    assert sum(len(member.crashed_at) for world in worlds for member in world.members) > 30
    assert any(world.faults.drop for world in worlds)
    assert any(world.faults.forge for world in worlds)
    assert sum(len(world.splicer.sent) for world in worlds) > 300
    opened = sum(len(media.openings) for world in worlds for media in world.sessions)
    assert opened > 100


def test_without_faults_every_call_comes_up() -> None:
    for seed in range(20):
        world = World(seed, Faults(calls=3)).run()
        assert violations(world) == []
        assert world.grants
