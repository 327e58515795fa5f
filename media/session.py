"""The media of a handset's leg without sockets and clocks: a sound to play, what was heard, and a tick each
20 ms."""

from __future__ import annotations

import numpy as np

from media.leg import Leg
from media.link import Link
from media.pcm import PACKET_SAMPLES, SILENCE, Pcm
from media.samples import mailbox_tone
from media.srtp import SEQUENCE_MAX
from protocol.description import Flow
from protocol.sealing import Random
from protocol.transport import Statistics


class Session:
    """Plays a sound to the peer and keeps what the peer plays, whatever keys they use.

    `now` is always seconds on one steady clock. The owner ticks each 20 ms until the lifetime of the newest
    key ends; this class does not know when that is.
    """

    def __init__(
        self,
        leg: Leg,
        random: Random,
        sound: Pcm,
        *,
        now: float,
        heard_samples_max: int,
        packets_max: int = SEQUENCE_MAX,
    ) -> None:
        """sound: what to play, silence after it; not played where the leg only receives.

        heard_samples_max: how much of what is heard is kept, from its beginning. packets_max: of one SSRC.
        Raises KeyError for a codec that is not in CODECS.
        """
        self.link = Link(leg, random, now=now, packets_max=packets_max)
        self._to_mailbox = leg.to_mailbox
        self._sound = sound
        self._heard_samples_max = heard_samples_max
        self._played = 0  # samples
        self._heard: list[Pcm] = []

    def take(self, datagram: bytes, now: float) -> None:
        """A datagram from anybody has come."""
        self.link.take(datagram, now)

    def tick(self, now: float) -> list[bytes]:
        """20 ms have passed: hears the next packet's sound; returns the datagrams to be sent."""
        sound = SILENCE if self.link.flow is Flow.RECVONLY else self._next_sound()
        datagrams = self.link.packets(sound, now)
        self._hear()
        return datagrams

    def close(self, now: float) -> bytes:
        """The last report, with BYE, to be sent."""
        return self.link.close(now)

    def heard(self) -> Pcm:
        """What was played here, from the first authentic packet on; before it a tone, if to a mailbox."""
        tone = mailbox_tone() if self._to_mailbox else np.zeros(0, np.int16)
        return np.concatenate([tone, *self._heard])[: self._heard_samples_max]

    def statistics(self) -> Statistics:
        """So far."""
        return self.link.statistics()

    def _hear(self) -> None:
        if self.link.received == 0:
            return
        sound = self.link.pull()
        if (len(self._heard) + 1) * PACKET_SAMPLES <= self._heard_samples_max:
            self._heard.append(sound)

    def _next_sound(self) -> Pcm:
        packet = self._sound[self._played : self._played + PACKET_SAMPLES]
        self._played += packet.size
        if packet.size == PACKET_SAMPLES:
            return packet
        return np.concatenate([packet, SILENCE[packet.size :]])
