"""The packets of one session both ways, under its keys over time: datagrams in, sound out; sound in,
datagrams out. No sockets, no clock, and no sound of its own.
"""

from __future__ import annotations

from typing import Final

from media.codec import CODECS
from media.incoming import Incoming
from media.leg import Leg, RenewMedia
from media.outgoing import OutgoingStream, Ssrcs
from media.pcm import SAMPLE_HZ, Pcm
from media.rtcp import Bye, round_trip_s
from media.srtp import SEQUENCE_MAX
from media.succession import Succession
from protocol.description import Flow
from protocol.sealing import Random
from protocol.transport import Statistics

REPORT_TICKS: Final = 50  # a report each second


class Link:
    """One end of a session.

    `now` is always seconds on one steady clock. The owner asks for packets each 20 ms until the lifetime of
    the newest key ends; this class does not know when that is, only when older keys end.
    """

    def __init__(
        self,
        leg: Leg,
        random: Random,
        *,
        now: float,
        rate_hz: int = SAMPLE_HZ,
        packets_max: int = SEQUENCE_MAX,
        ssrcs: Ssrcs | None = None,
    ) -> None:
        """rate_hz: of the sound in and out. packets_max: of one SSRC. ssrcs: of all who send under the same
        keys. Raises KeyError for a codec that is not in CODECS.
        """
        self._random = random
        self._rate_hz = rate_hz
        self._packets_max = packets_max
        self._ssrcs = ssrcs or Ssrcs()
        self._sent_from: set[int] = set()
        self._origin = now - 1  # an NTP time of 0 means "no report yet"
        self._ticks = 0
        self._sent_before = 0  # packets of streams that are over
        self._keys = Succession(leg, now)
        self._incoming = Incoming(self._keys.speaking, rate_hz)
        self._outgoing = self._fresh_stream(leg)
        self._peer_lost: dict[int, int] = {}  # by our SSRC
        self._peer_jitter_ms: float | None = None
        self._round_trip_s: float | None = None

    @property
    def heard_at(self) -> float | None:
        """When the last authentic packet came, None before the first."""
        return self._incoming.heard_at

    @property
    def received(self) -> int:
        """RTP packets that authenticated and were not seen before."""
        return self._incoming.received

    @property
    def flow(self) -> Flow:
        """Of the leg that is spoken under."""
        return self._outgoing.leg.flow

    def renew(self, instruction: RenewMedia, now: float) -> bool:
        """Another leg follows; one whose key is taken already changes nothing. Returns whether it follows.

        Raises KeyError for a codec that is not in CODECS.
        """
        leg = instruction.leg
        self._forget(now)
        if self._keys.has(leg):
            return False
        if leg.codec not in CODECS:
            raise KeyError(leg.codec)
        key = self._keys.renew(
            leg, now, speak_within_s=instruction.speak_within_s, overlap_s=instruction.overlap_s
        )
        self._incoming.accept(key)
        self._forget(now)
        return True

    def at_rate(self, rate_hz: int) -> None:
        """The sound has another rate from now on."""
        if rate_hz != self._rate_hz:
            self._rate_hz = rate_hz
            self._incoming.at_rate(rate_hz)
            self._outgoing.at_rate(rate_hz)

    def take(self, datagram: bytes, now: float) -> None:
        """A datagram from anybody has come."""
        self._forget(now)
        key, reports = self._incoming.take(datagram, now)
        if key is not None:
            self._keys.hear(key, now)
        for report in reports:
            if isinstance(report, Bye):
                continue
            for block in report.blocks:
                if block.ssrc in self._sent_from:
                    self._peer_lost[block.ssrc] = block.lost
                    self._peer_jitter_ms = 1000 * block.jitter / self._outgoing.clock_hz
                    trip_s = round_trip_s(block, now - self._origin)
                    self._round_trip_s = self._round_trip_s if trip_s is None else trip_s

    def pull(self) -> Pcm:
        """The next 20 ms that the peer says; the very array that `silence` gives where it says nothing."""
        return self._incoming.pull()

    def packets(self, sound: Pcm, now: float) -> list[bytes]:
        """20 ms of sound as datagrams to be sent; none of it where the leg only receives, but reports."""
        datagrams = []
        self._forget(now)
        leg = self._keys.speak(now)
        if leg is not self._outgoing.leg:
            datagrams += self._switch(leg, now)
        if leg.flow is not Flow.RECVONLY:
            if self._outgoing.spent:
                datagrams += self._switch(leg, now)
            datagrams.append(self._outgoing.packet(sound))
        self._ticks += 1
        if self._ticks % REPORT_TICKS == 0:
            datagrams.append(self._outgoing.report(self._incoming.blocks(now), now - self._origin))
        return datagrams

    def close(self, now: float) -> bytes:
        """The last report, with BYE, to be sent."""
        return self._outgoing.report(self._incoming.blocks(now), now - self._origin, bye=True)

    def statistics(self) -> Statistics:
        """So far."""
        incoming = self._incoming
        return Statistics(
            sent=self._sent_before + self._outgoing.sent,
            received=incoming.received,
            lost=incoming.lost,
            late=incoming.late,
            refused=incoming.refused,
            replayed=incoming.replayed,
            jitter_ms=incoming.jitter_ms,
            peer_lost=sum(self._peer_lost.values()) if self._peer_lost else None,
            peer_jitter_ms=self._peer_jitter_ms,
            round_trip_ms=None if self._round_trip_s is None else 1000 * self._round_trip_s,
        )

    def _forget(self, now: float) -> None:
        for key in self._keys.forget(now):
            self._incoming.drop(key)

    def _switch(self, leg: Leg, now: float) -> list[bytes]:
        """A fresh stream; the one before says BYE, if the peer may still take that."""
        before = self._outgoing
        last = [self.close(now)] if self._keys.has(before.leg) else []
        self._sent_before += before.sent
        self._outgoing = self._fresh_stream(leg)
        return last

    def _fresh_stream(self, leg: Leg) -> OutgoingStream:
        """Under an SSRC that nobody here has sent from: the same one could repeat a keystream."""
        while True:
            stream = OutgoingStream(leg, self._random, rate_hz=self._rate_hz, packets_max=self._packets_max)
            if self._ssrcs.take(stream.ssrc):
                self._sent_from.add(stream.ssrc)
                return stream
