"""A session's keys over time: which of them are taken from the peer, and which one is spoken under. No
clock in it.

    key 1   taken, spoken under ......... overlap |
    key 2              | taken ... spoken under ................

A key is dropped as soon as nothing is taken under it any more (PROTOCOL sections 8 and 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from media.leg import Leg
from protocol.limits import OVERLAP_S


@dataclass(slots=True, eq=False)
class Key:
    """A leg's key in one session. Times are on the session's clock."""

    leg: Leg
    not_after: float
    """The end of its own lifetime."""

    taken_until: float
    """At most not_after."""

    speak_at: float
    """From then on it is spoken under, whether it was heard or not."""

    overlap_s: float | None = None
    """For so long the keys before it are taken after something was heard under it; None: that is settled."""

    heard: bool = False


class Succession:
    """The keys that are taken, and the one that is spoken under."""

    def __init__(self, leg: Leg, now: float) -> None:
        not_after = now + leg.lifetime_s
        self.speaking = Key(leg, not_after, not_after, speak_at=now)
        self.taken = [self.speaking]  # the newest first

    @property
    def newest(self) -> Leg:
        """The session ends with it."""
        return self.taken[0].leg

    def has(self, leg: Leg) -> bool:
        """Whether its key is taken already."""
        return any(_same(leg, key.leg) for key in self.taken)

    def renew(self, leg: Leg, now: float, *, speak_within_s: float | None, overlap_s: float | None) -> Key:
        """Another key follows."""
        not_after = now + leg.lifetime_s
        key = Key(leg, not_after, not_after, math.inf if speak_within_s is None else now + speak_within_s)
        if overlap_s is None:
            key.overlap_s = OVERLAP_S
        else:
            self._end_from(0, now + overlap_s)
        self.taken.insert(0, key)
        return key

    def hear(self, key: Key, now: float) -> None:
        """Something authentic has come under a key that is taken."""
        if not key.heard:
            key.heard = True
            if key.overlap_s is not None:
                self._end_from(self.taken.index(key) + 1, now + key.overlap_s)

    def forget(self, now: float) -> list[Key]:
        """Drops the keys that are not taken any more, but for the newest, and returns them."""
        for index, key in enumerate(self.taken):
            if index and now >= key.taken_until:  # OR-28; those before it are over as well
                over = self.taken[index:]
                del self.taken[index:]
                return over
        return []

    def speak(self, now: float) -> Leg:
        """Under which leg's key to send now: never an older one than before."""
        if self.speaking is not self.taken[0]:
            over = now >= self.speaking.not_after
            for key in self.taken:
                if key is self.speaking:
                    break
                if key.heard or over or now >= key.speak_at:
                    self.speaking = key
                    break
        return self.speaking.leg

    def _end_from(self, index: int, when: float) -> None:
        for key in self.taken[index:]:
            key.taken_until = min(key.taken_until, when)


def _same(one: Leg, other: Leg) -> bool:
    return (one.root, one.n, one.local, one.remote, one.group, one.suite, one.media_line) == (
        other.root,
        other.n,
        other.local,
        other.remote,
        other.group,
        other.suite,
        other.media_line,
    )
