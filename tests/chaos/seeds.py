"""Running seeds until one of them complains."""

from __future__ import annotations

from chaos.faults import Cast, Faults
from chaos.invariants import violations
from chaos.simulator import World

SEEDS = 600


def assert_found(cast: Cast, complaint: str, faults: Faults | None = None) -> None:
    """Some seed complains so, under these faults or its own."""
    found = next(
        (
            violation
            for seed in range(SEEDS)
            for violation in violations(World(seed, faults, cast).run())
            if complaint in violation
        ),
        None,
    )
    assert found is not None, f"{SEEDS} seeds and no violation that speaks of {complaint!r}"


def assert_clean(cast: Cast, faults: Faults, seeds: int) -> None:
    """No seed complains of anything."""
    found = [each for seed in range(seeds) for each in violations(World(seed, faults, cast).run())]
    assert found == []
