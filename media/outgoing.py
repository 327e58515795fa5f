"""One SSRC that we send: its RTP numbering, its SRTP key, what its sender reports say. No clock in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from media.codec import CODECS, Encoder
from media.leg import Leg
from media.pcm import PACKET_S, SAMPLE_HZ, Pcm
from media.rtcp import Bye, Cname, ReceiverReport, ReportBlock, SenderReport, compound, ntp
from media.rtp import RtpPacket
from media.srtp import SEQUENCE_MAX, SendingStream
from protocol.sealing import Random
from protocol.srtp_keys import srtp_master

_REMEMBERED: Final = 4096  # more than all sessions of a bridge draw under one key


class Ssrcs:
    """Those that were drawn lately: a sender takes none twice under one key."""

    def __init__(self) -> None:
        self._drawn: dict[int, None] = {}  # in their order

    def take(self, ssrc: int) -> bool:
        """Whether it was free."""
        if ssrc in self._drawn:
            return False
        if len(self._drawn) >= _REMEMBERED:
            del self._drawn[next(iter(self._drawn))]
        self._drawn[ssrc] = None
        return True


class OutgoingStream:
    """Packets from a sequence number below 2^15 to 65,535 at most; after that another SSRC must be drawn."""

    def __init__(
        self, leg: Leg, random: Random, *, rate_hz: int = SAMPLE_HZ, packets_max: int = SEQUENCE_MAX
    ) -> None:
        """Draws 4 + 2 + 4 octets: SSRC, first sequence number, first timestamp.

        rate_hz: of the sound. packets_max: a stream may be spent sooner than it must.
        """
        self.leg = leg
        self.ssrc = int.from_bytes(random(4), "big")
        self._sequence = int.from_bytes(random(2), "big") >> 1
        self._timestamp = int.from_bytes(random(4), "big")
        self.sent = 0  # packets
        self._octets = 0
        self._codec = CODECS[leg.codec]
        self._encoder = Encoder(self._codec, rate_hz)
        self._packets_max = packets_max
        self._srtp = SendingStream(
            srtp_master(
                leg.root,
                leg.suite,
                sender=leg.local,
                receiver=leg.group or leg.remote,
                media_line=leg.media_line,
                ssrc=self.ssrc,
                n=leg.n,
            ),
            self.ssrc,
        )

    @property
    def clock_hz(self) -> int:
        """Units of the RTP timestamp in a second."""
        return self._codec.clock_hz

    @property
    def spent(self) -> bool:
        """Whether the last sequence number has been used."""
        return self._sequence > SEQUENCE_MAX or self.sent >= self._packets_max

    def at_rate(self, rate_hz: int) -> None:
        """The sound has another rate from now on."""
        self._encoder = Encoder(self._codec, rate_hz)

    def packet(self, pcm: Pcm) -> bytes:
        """The next SRTP packet. pcm: 20 ms. Not to be asked of a stream that is spent."""
        assert not self.spent
        payload = self._encoder.encode(pcm)
        rtp = RtpPacket(
            payload_type=self._codec.payload_type,
            sequence=self._sequence,
            timestamp=self._timestamp,
            ssrc=self.ssrc,
            payload=payload,
            marker=self.sent == 0,
        )
        self._sequence += 1
        self._timestamp = (self._timestamp + round(PACKET_S * self._codec.clock_hz)) & 0xFFFF_FFFF
        self.sent += 1
        self._octets += len(payload)
        return self._srtp.protect(rtp.pack())

    def report(self, blocks: Sequence[ReportBlock], now: float, *, bye: bool = False) -> bytes:
        """SRTCP: a sender report, or a receiver report from one who has sent nothing; CNAME; BYE if wanted.

        blocks: at most 31. now: seconds on a steady clock, the one that `round_trip_s` is asked with.
        """
        told: SenderReport | ReceiverReport = ReceiverReport(self.ssrc, tuple(blocks))
        if self.sent:
            told = SenderReport(self.ssrc, ntp(now), self._timestamp, self.sent, self._octets, tuple(blocks))
        # the SSRC says nothing of who it is, and is drawn anew for each stream
        parts = (told, Cname(self.ssrc, f"{self.ssrc:08x}"), *((Bye(self.ssrc),) if bye else ()))
        return self._srtp.protect_rtcp(compound(*parts))
