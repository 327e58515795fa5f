"""Whether an agent of this process lives and is ready: what its vitals mean."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from agents.vitals import Vitals

LIVE_S: Final = 10.0  # a loop turns ten times a second; one that waits for bus or store, every few seconds
SILENT_S: Final = 10.0  # a broker answers twice a second; a new leader of a partition takes six


@dataclass(frozen=True, slots=True)
class Watched:
    """One agent of this process. role: its party, as its status and its metrics name it."""

    role: str
    vitals: Vitals = field(default_factory=Vitals)
    since: float = field(default_factory=time.monotonic)  # when it was begun, on the clock of its loop
    live_s: float = LIVE_S
    silent_s: float = SILENT_S

    def turned_before_s(self, now: float) -> float:
        """For how long its loop has not come by; now: as time.monotonic tells it."""
        turned_at = self.vitals.turned_at
        return now - (self.since if turned_at is None else turned_at)

    def stuck(self, now: float) -> str | None:
        """Why it does not live; None when it does."""
        idle_s = self.turned_before_s(now)
        return f"loop: has not turned for {idle_s:.0f} s" if idle_s > self.live_s else None

    def missing(self, now: float) -> tuple[str, ...]:
        """What keeps it from being ready; nothing when it is, also when it is a spare: one that the group has
        given no partition."""
        vitals = self.vitals
        found = [self.stuck(now), vitals.waiting_for]
        if vitals.partitions is None:
            found.append("assigned: no share of the partitions yet")
        if vitals.lag.silent_s > self.silent_s:
            found.append(f"bus: silent for {vitals.lag.silent_s:.0f} s")
        return tuple(each for each in found if each is not None)
