"""Loss and interarrival jitter of one stream that is received (RFC 3550, 6.4, A.3, A.8)."""

from __future__ import annotations

from media.rtcp import ReportBlock


class Reception:
    """Counts packets that authenticated and were not seen before; sequence numbers never wrap here."""

    def __init__(self, ssrc: int, clock_hz: int) -> None:
        """clock_hz: units of the RTP timestamp in a second."""
        self.ssrc = ssrc
        self.received = 0
        self.jitter = 0.0  # in units of the RTP timestamp
        self._clock_hz = clock_hz
        self._lowest = 0
        self._highest = 0
        self._before: tuple[int, float] | None = None  # timestamp and arrival
        self._reported = (0, 0)  # expected and received at the last report
        self._lsr = 0
        self._lsr_at = 0.0

    def take(self, sequence: int, timestamp: int, now: float) -> None:
        """One packet. now: its arrival, seconds on a steady clock."""
        if self.received == 0:
            self._lowest = self._highest = sequence
        self._lowest = min(self._lowest, sequence)
        self._highest = max(self._highest, sequence)
        self.received += 1
        if self._before is not None:
            steps = timestamp - self._before[0] & 0xFFFF_FFFF
            steps -= (steps & 0x8000_0000) << 1  # a packet out of order goes back
            late = (now - self._before[1]) * self._clock_hz - steps
            self.jitter += (abs(late) - self.jitter) / 16
        self._before = (timestamp, now)

    def take_report(self, lsr: int, now: float) -> None:
        """A sender report. lsr: the middle 32 bits of its NTP time."""
        self._lsr, self._lsr_at = lsr, now

    @property
    def expected(self) -> int:
        """Packets from the lowest to the highest sequence number."""
        return self._highest - self._lowest + 1 if self.received else 0

    @property
    def lost(self) -> int:
        """Packets that have not come."""
        return self.expected - self.received

    @property
    def jitter_ms(self) -> float:
        """Interarrival jitter in milliseconds."""
        return 1000 * self.jitter / self._clock_hz

    def report(self, now: float) -> ReportBlock | None:
        """The block for the next report; None if nothing has come since the last."""
        expected, received = (self.expected - self._reported[0], self.received - self._reported[1])
        if received == 0:
            return None
        self._reported = (self.expected, self.received)
        lost = max(0, expected - received)
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=min(255, (lost << 8) // expected) if lost else 0,
            lost=self.lost,
            highest=self._highest,
            jitter=int(self.jitter),
            lsr=self._lsr,
            dlsr=int((now - self._lsr_at) * 65_536) & 0xFFFF_FFFF if self._lsr else 0,
        )
