"""The media of one leg without sockets and clocks: datagrams in, datagrams out, and a tick each 20 ms."""

from __future__ import annotations

from typing import Final

import numpy as np

from media.incoming import Incoming
from media.leg import Leg
from media.outgoing import OutgoingStream
from media.pcm import PACKET_SAMPLES, SILENCE, Pcm
from media.rtcp import Bye, round_trip_s
from media.samples import mailbox_tone
from protocol.description import Flow
from protocol.sealing import Random
from protocol.transport import Statistics

REPORT_TICKS: Final = 50  # a report each second


class Session:
    """Plays a sound to the peer and keeps what the peer plays.

    `now` is always seconds on one steady clock. The owner ticks each 20 ms until the key's lifetime ends;
    this class does not know when that is.
    """

    def __init__(self, leg: Leg, random: Random, sound: Pcm, *, now: float, heard_samples_max: int) -> None:
        """sound: what to play, silence after it; not played where the leg only receives.

        heard_samples_max: how much of what is heard is kept, from its beginning. Raises KeyError for a codec
        that is not in CODECS.
        """
        self._leg = leg
        self._random = random
        self._sound = sound
        self._origin = now - 1  # an NTP time of 0 means "no report yet"
        self._heard_samples_max = heard_samples_max
        self._played = 0  # samples
        self._ticks = 0
        self._sent_before = 0  # packets of streams that are spent
        self._ssrcs: set[int] = set()
        self._outgoing = self._fresh_stream()
        self._incoming = Incoming(leg)
        self._heard: list[Pcm] = []
        self._peer_lost: int | None = None
        self._peer_jitter_ms: float | None = None
        self._round_trip_s: float | None = None

    @property
    def heard_at(self) -> float | None:
        """When the last authentic packet came, None before the first."""
        return self._incoming.heard_at

    def take(self, datagram: bytes, now: float) -> None:
        """A datagram from anybody has come."""
        for report in self._incoming.take(datagram, now):
            if isinstance(report, Bye):
                continue
            for block in report.blocks:
                if block.ssrc == self._outgoing.ssrc:
                    self._peer_lost = block.lost
                    self._peer_jitter_ms = 1000 * block.jitter / self._outgoing.clock_hz
                    trip_s = round_trip_s(block, now - self._origin)
                    self._round_trip_s = self._round_trip_s if trip_s is None else trip_s

    def tick(self, now: float) -> list[bytes]:
        """20 ms have passed: hears the next packet's sound; returns the datagrams to be sent."""
        datagrams = []
        if self._leg.flow is not Flow.RECVONLY:
            if self._outgoing.spent:
                datagrams.append(self.close(now))
                self._sent_before += self._outgoing.sent
                self._outgoing = self._fresh_stream()
            datagrams.append(self._outgoing.packet(self._next_sound()))
        self._hear()
        self._ticks += 1
        if self._ticks % REPORT_TICKS == 0:
            datagrams.append(self._outgoing.report(self._incoming.blocks(now), now - self._origin))
        return datagrams

    def close(self, now: float) -> bytes:
        """The last report, with BYE, to be sent."""
        return self._outgoing.report(self._incoming.blocks(now), now - self._origin, bye=True)

    def heard(self) -> Pcm:
        """What was played here, from the first authentic packet on; before it a tone, if to a mailbox."""
        tone = mailbox_tone() if self._leg.to_mailbox else np.zeros(0, np.int16)
        return np.concatenate([tone, *self._heard])[: self._heard_samples_max]

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
            peer_lost=self._peer_lost,
            peer_jitter_ms=self._peer_jitter_ms,
            round_trip_ms=None if self._round_trip_s is None else 1000 * self._round_trip_s,
        )

    def _fresh_stream(self) -> OutgoingStream:
        """Under an SSRC that this session has not sent from: the same one would repeat a keystream."""
        stream = OutgoingStream(self._leg, self._random)
        while stream.ssrc in self._ssrcs:
            stream = OutgoingStream(self._leg, self._random)
        self._ssrcs.add(stream.ssrc)
        return stream

    def _hear(self) -> None:
        if self._incoming.received == 0:
            return
        sound = self._incoming.pull()
        if (len(self._heard) + 1) * PACKET_SAMPLES <= self._heard_samples_max:
            self._heard.append(sound)

    def _next_sound(self) -> Pcm:
        packet = self._sound[self._played : self._played + PACKET_SAMPLES]
        self._played += packet.size
        if packet.size == PACKET_SAMPLES:
            return packet
        return np.concatenate([packet, SILENCE[packet.size :]])
