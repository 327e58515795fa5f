"""A playout buffer with a fixed delay: packets in as they come, one out every 20 ms. No clock in it."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

DELAY: Final = 3  # packets of 20 ms: what the network may delay one packet more than the first
_HELD_MAX: Final = 50  # 1 s: more than this ahead means that the sender's clock is faster than ours
_LATE_MAX: Final = 10  # so many late in a row are not late: the sender has paused, or its clock is slower

Packet = TypeVar("Packet")


class Playout(Generic[Packet]):
    """Packets in the order of their sequence numbers, None where one is missing."""

    def __init__(self, delay: int = DELAY) -> None:
        """delay: packets that the first one waits."""
        self.late = 0
        self._delay = delay
        self._waits = delay  # pulls until the first packet is played
        self._held: dict[int, Packet] = {}
        self._turn = -1  # the sequence number to be played next; -1 before the first packet
        self._late_in_a_row = 0

    @property
    def empty(self) -> bool:
        """Whether all that has come is played."""
        return not self._held

    def start(self) -> None:
        """Play from the next pull on what has come, without the delay."""
        self._waits = 0

    def push(self, sequence: int, packet: Packet) -> None:
        """A packet has come. sequence: its number; the stream never wraps."""
        if self._turn < 0:
            self._turn = sequence
        if sequence < self._turn and self._waits and self._turn - sequence <= self._delay:
            self._turn = sequence  # nothing is played yet: the first packet was overtaken by another
        if sequence < self._turn:
            self.late += 1
            self._late_in_a_row += 1
            if self._late_in_a_row < _LATE_MAX:
                return
            self._restart(sequence)
        if sequence in self._held:
            return
        self._late_in_a_row = 0
        self._held[sequence] = packet
        if sequence - self._turn >= _HELD_MAX:
            self._skip_to(sequence - self._delay)

    def pull(self) -> Packet | None:
        """What is played for the next 20 ms; None before the first packet's time and for one that is
        missing."""
        if self._turn < 0:
            return None
        if self._waits:
            self._waits -= 1
            return None
        packet = self._held.pop(self._turn, None)
        self._turn += 1
        return packet

    def _restart(self, sequence: int) -> None:
        self._held.clear()
        self._turn, self._waits = sequence, self._delay

    def _skip_to(self, turn: int) -> None:
        self._held = {sequence: packet for sequence, packet in self._held.items() if sequence >= turn}
        self._turn = turn
