"""What an operator sees of a running loop: the loop writes it, whoever watches reads it.

Plain numbers, because a loop deals with thousands of inputs a second. Another thread may read them at any
time; one that goes through a dict copies it first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from topics.bus import Lag
from topics.messages import Audit, AuditEvent

BATCH_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 400)  # inputs
LATENCIES_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_NO_LAG: Final = Lag(0, 0.0)


class Histogram:
    """How many values were seen, by size. counts[n]: those of at most bounds[n] and above the bound before;
    the last one has those above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds: Final = tuple(bounds)
        self.counts: Final = [0] * (len(bounds) + 1)
        self.total = 0.0  # the sum of all values

    def note(self, value: float, times: int = 1) -> None:
        """The value was seen so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


@dataclass(slots=True)
class RoundTrips:
    """One operation of the store: how often, and how long in all. One that failed counts, too."""

    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Vitals:
    """One loop: what it has done since it began, and how it stands."""

    handled: int = 0  # inputs dealt with
    inputs: Counter[str] = field(default_factory=Counter)  # the same, by type
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)  # by check and code
    dead_letters: int = 0
    conflicts: int = 0  # inputs that were read and decided again
    sent: int = 0  # records acknowledged, those for the audit and dead letters included
    batches: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    latency: Histogram = field(
        default_factory=lambda: Histogram(LATENCIES_S)
    )  # of each input and dead letter
    store: dict[str, RoundTrips] = field(default_factory=dict)  # by operation

    waiting_for: str | None = None  # the store or the bus, which does not do what was asked, and why
    turned_at: float | None = None  # when the loop last came by, well or not, by the loop's monotonic clock
    partitions: frozenset[int] | None = None  # held then; None before the group has given it a share
    lag: Lag = _NO_LAG  # as it was then

    @property
    def dealt_with(self) -> int:
        """Inputs and dead letters: while this moves, work gets done."""
        return self.handled + self.dead_letters

    def batch(self, inputs: Sequence[str], dead_letters: int, seconds: float) -> None:
        """A batch was committed. inputs: the type of each. seconds: since it was received."""
        self.handled += len(inputs)
        self.dead_letters += dead_letters
        self.inputs.update(inputs)
        self.batches.note(len(inputs) + dead_letters)
        self.latency.note(seconds, len(inputs) + dead_letters)

    def audited(self, events: Iterable[Audit]) -> None:
        """What the agent has told the audit."""
        for event in events:
            if event.event is AuditEvent.REFUSED:
                self.refusals[event.check or "", event.code or ""] += 1

    def round_trip(self, operation: str, seconds: float) -> None:
        """The store was asked something, and has answered or failed."""
        trips = self.store.setdefault(operation, RoundTrips())
        trips.count += 1
        trips.seconds += seconds
