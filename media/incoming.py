"""What comes in on one session: told apart by SSRC, authenticated, counted, put in order. No clock in it.

    datagram -> SSRC -> key of (root, remote, local, SSRC) -> OR-28 -> playout buffer

An SSRC becomes a stream when a packet under its key authenticates. Anybody may send junk: it is counted, and
what is kept of it is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from media import rtcp, rtp
from media.codec import CODECS, Codec, Decoder, PayloadMalformed
from media.leg import Leg
from media.pcm import Pcm, mixed
from media.playout import Playout
from media.reception import Reception
from media.rtcp import ReportBlock, is_rtcp
from media.srtp import SrtpRefused, SrtpReplayed, stream_of_peer
from protocol.description import Flow

STREAMS_MAX: Final = 31  # a peer needs a fresh one each 11 minutes at most; one report holds so many blocks
_UNPROVEN_MAX: Final = 8  # SSRCs whose key is kept though nothing has authenticated under it


class _IncomingStream:
    """One SSRC of the peer."""

    def __init__(self, leg: Leg, codec: Codec, ssrc: int) -> None:
        self.srtp = stream_of_peer(leg, ssrc)
        self.reception = Reception(ssrc, codec.clock_hz)
        self.playout = Playout()
        self._codec = codec
        self._decoder = Decoder(codec)
        self._played = leg.flow is not Flow.SENDONLY

    def take(self, packet: bytes, now: float) -> None:
        """An authentic RTP packet."""
        try:
            heard = rtp.parse(packet)
        except rtp.RtpMalformed:
            return
        self.reception.take(heard.sequence, heard.timestamp, now)
        if self._played and heard.payload_type == self._codec.payload_type:
            try:
                self.playout.push(heard.sequence, self._decoder.decode(heard.payload))
            except PayloadMalformed:
                return


class Incoming:
    """All that the peer sends in a session."""

    def __init__(self, leg: Leg) -> None:
        self.refused = 0
        self.replayed = 0
        self.jitter_ms = 0.0  # of the stream that was heard last
        self.heard_at: float | None = None  # when the last authentic packet came
        self._leg = leg
        self._codec = CODECS[leg.codec]
        self._streams: dict[int, _IncomingStream] = {}
        self._unproven: dict[int, _IncomingStream] = {}

    def take(self, datagram: bytes, now: float) -> tuple[rtcp.Heard, ...]:
        """A datagram from anybody. Never raises for its content.

        Returns what an authentic RTCP packet says, of its own sender's SSRC only.
        """
        told = is_rtcp(datagram)
        ssrc_at = 4 if told else 8
        if len(datagram) < rtp.HEADER_OCTETS:
            self.refused += 1
            return ()
        ssrc = int.from_bytes(datagram[ssrc_at : ssrc_at + 4], "big")
        stream = self._streams.get(ssrc) or self._stranger(ssrc)
        if stream is None:
            self.refused += 1
            return ()
        try:
            packet = stream.srtp.unprotect_rtcp(datagram) if told else stream.srtp.unprotect(datagram)
        except SrtpReplayed:  # OR-28
            self.replayed += 1
            return ()
        except SrtpRefused:  # OR-28
            self.refused += 1
            return ()
        self._prove(ssrc, stream)
        self.heard_at = now
        if told:
            return _reports(stream, packet, ssrc, now)
        stream.take(packet, now)
        self.jitter_ms = stream.reception.jitter_ms
        return ()

    def pull(self) -> Pcm:
        """The next 20 ms of sound, 160 samples."""
        return mixed([stream.playout.pull() for stream in self._streams.values()])

    def blocks(self, now: float) -> Sequence[ReportBlock]:
        """How each stream that has been heard since the last call is received."""
        blocks = (stream.reception.report(now) for stream in self._streams.values())
        return tuple(block for block in blocks if block is not None)

    @property
    def received(self) -> int:
        """RTP packets that authenticated and were not seen before."""
        return sum(stream.reception.received for stream in self._streams.values())

    @property
    def lost(self) -> int:
        """RTP packets that have not come."""
        return sum(stream.reception.lost for stream in self._streams.values())

    @property
    def late(self) -> int:
        """RTP packets that came after their turn to be played."""
        return sum(stream.playout.late for stream in self._streams.values())

    def _stranger(self, ssrc: int) -> _IncomingStream | None:
        """A stream that has yet to show that it is the peer's."""
        stream = self._unproven.get(ssrc)
        if stream is None and len(self._streams) < STREAMS_MAX:
            if len(self._unproven) >= _UNPROVEN_MAX:
                del self._unproven[next(iter(self._unproven))]
            stream = self._unproven[ssrc] = _IncomingStream(self._leg, self._codec, ssrc)
        return stream

    def _prove(self, ssrc: int, stream: _IncomingStream) -> None:
        if self._unproven.pop(ssrc, None) is not None:
            self._streams[ssrc] = stream


def _reports(stream: _IncomingStream, packet: bytes, ssrc: int, now: float) -> tuple[rtcp.Heard, ...]:
    try:
        heard = rtcp.parse(packet)
    except rtcp.RtcpMalformed:
        return ()
    for report in heard:
        if isinstance(report, rtcp.SenderReport) and report.ssrc == ssrc:
            stream.reception.take_report(rtcp.middle(report.ntp), now)
    return tuple(report for report in heard if report.ssrc == ssrc)
