"""What comes in on one session: told apart by SSRC, authenticated, counted, put in order. No clock in it.

    datagram -> SSRC -> key of (root, remote, local, SSRC) -> OR-28 -> playout buffer

An SSRC becomes a stream when a packet under its key authenticates. Anybody may send junk: it is counted, and
what is kept of it is bounded. A stream belongs to one of the session's keys (media/succession.py): it ends
with that, but for what has come before, which is played out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from media import rtcp, rtp
from media.codec import CODECS, Codec, Decoder, PayloadMalformed
from media.leg import Leg
from media.pcm import SAMPLE_HZ, Pcm, mixed, silence
from media.playout import Playout
from media.reception import Reception
from media.rtcp import ReportBlock, is_rtcp
from media.srtp import SrtpRefused, SrtpReplayed, stream_of_peer
from media.succession import Key
from protocol.description import Flow

STREAMS_MAX: Final = 31  # a peer needs a fresh one each 11 minutes at most; one report holds so many blocks
_FOLLOWS_MAX: Final = 25  # 0.5 s: who speaks on is heard at the same time
_UNPROVEN_MAX: Final = 8  # SSRCs of each key that are kept though nothing has authenticated under it


class _Voice:
    """The sound of one stream; no key in it."""

    def __init__(self, codec: Codec, rate_hz: int) -> None:
        self.playout: Playout[bytes] = Playout()
        self._codec = codec
        self._decoder = Decoder(codec, rate_hz)
        self._before: _Voice | None = None
        self._waited = 0

    def follow(self, before: _Voice) -> None:
        """Begin when that one, as far as it has come, is played: as late as it was, no gap and no overlap."""
        if not before.playout.empty:
            self._before = before

    def pull(self) -> Pcm | None:
        """The next 20 ms, decoded only now: a codec with a memory needs its packets in their order. To be
        asked before the one that it follows."""
        if self._before is not None:
            if not self._before.playout.empty and self._waited < _FOLLOWS_MAX:
                self._waited += 1
                return None
            self._before = None
            self.playout.start()
        payload = self.playout.pull()
        if payload is None:
            return None
        try:
            return self._decoder.decode(payload)
        except PayloadMalformed:
            return None

    def at_rate(self, rate_hz: int) -> None:
        self._decoder = Decoder(self._codec, rate_hz)


class _IncomingStream:
    """One SSRC of the peer."""

    def __init__(self, leg: Leg, ssrc: int, rate_hz: int) -> None:
        codec = CODECS[leg.codec]
        self.srtp = stream_of_peer(leg, ssrc)
        self.reception = Reception(ssrc, codec.clock_hz)
        self.voice = _Voice(codec, rate_hz)
        self._payload_type = codec.payload_type
        self._played = leg.flow is not Flow.SENDONLY

    def take(self, packet: bytes, now: float) -> None:
        """An authentic RTP packet."""
        try:
            heard = rtp.parse(packet)
        except rtp.RtpMalformed:
            return
        self.reception.take(heard.sequence, heard.timestamp, now)
        if self._played and heard.payload_type == self._payload_type:
            self.voice.playout.push(heard.sequence, heard.payload)


class _Streams:
    """What comes under one key."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.proven: dict[int, _IncomingStream] = {}
        self._unproven: dict[int, _IncomingStream] = {}

    def stranger(self, ssrc: int, rate_hz: int) -> _IncomingStream | None:
        """A stream that has yet to show that it is the peer's."""
        stream = self._unproven.get(ssrc)
        if stream is None and len(self.proven) < STREAMS_MAX:
            if len(self._unproven) >= _UNPROVEN_MAX:
                del self._unproven[next(iter(self._unproven))]
            stream = self._unproven[ssrc] = _IncomingStream(self.key.leg, ssrc, rate_hz)
        return stream

    def prove(self, ssrc: int) -> None:
        """A packet of a stranger has authenticated."""
        stream = self._unproven.pop(ssrc, None)
        if stream is not None:
            self.proven[ssrc] = stream

    def at_rate(self, rate_hz: int) -> None:
        self._unproven.clear()
        for stream in self.proven.values():
            stream.voice.at_rate(rate_hz)


class Incoming:
    """All that the peer sends in a session."""

    def __init__(self, key: Key, rate_hz: int = SAMPLE_HZ) -> None:
        """rate_hz: that the sound shall have."""
        self.refused = 0
        self.replayed = 0
        self.jitter_ms = 0.0  # of the stream that was heard last
        self.heard_at: float | None = None  # when the last authentic packet came
        self._rate_hz = rate_hz
        self._under = [_Streams(key)]  # the newest first
        self._voice: _Voice | None = None  # that was heard last
        self._played_out: list[_Voice] = []  # of streams whose key is gone
        self._received = self._lost = self._late = 0  # of those

    def accept(self, key: Key) -> None:
        """Another key follows those that there are."""
        self._under.insert(0, _Streams(key))

    def drop(self, key: Key) -> None:
        """Nothing is taken under this key any more."""
        for streams in self._under:
            if streams.key is key:
                for stream in streams.proven.values():
                    self._received += stream.reception.received
                    self._lost += stream.reception.lost
                    self._late += stream.voice.playout.late
                    self._played_out.append(stream.voice)
        self._under = [streams for streams in self._under if streams.key is not key]

    def at_rate(self, rate_hz: int) -> None:
        """The sound shall have another rate from now on."""
        self._rate_hz = rate_hz
        for streams in self._under:
            streams.at_rate(rate_hz)
        for voice in self._played_out:
            voice.at_rate(rate_hz)

    def take(self, datagram: bytes, now: float) -> tuple[Key | None, tuple[rtcp.Heard, ...]]:
        """A datagram from anybody. Never raises for its content.

        Returns the key under which it is authentic, and what an RTCP packet says, of its own sender's SSRC
        only.
        """
        told = is_rtcp(datagram)
        ssrc_at = 4 if told else 8
        if len(datagram) < rtp.HEADER_OCTETS:
            self.refused += 1
            return None, ()
        ssrc = int.from_bytes(datagram[ssrc_at : ssrc_at + 4], "big")
        for streams, stream in self._candidates(ssrc):
            try:
                packet = stream.srtp.unprotect_rtcp(datagram) if told else stream.srtp.unprotect(datagram)
            except SrtpReplayed:  # OR-28
                self.replayed += 1
                return None, ()
            except SrtpRefused:  # OR-28
                continue
            streams.prove(ssrc)
            self.heard_at = now
            if told:
                return streams.key, _reports(stream, packet, ssrc, now)
            if self._voice is not None and stream.reception.received == 0:
                stream.voice.follow(self._voice)
            self._voice = stream.voice
            stream.take(packet, now)
            self.jitter_ms = stream.reception.jitter_ms
            return streams.key, ()
        self.refused += 1
        return None, ()

    def pull(self) -> Pcm:
        """The next 20 ms of sound; where there is none, the very array that `silence` gives."""
        sounds = [
            sound
            for streams in self._under
            for stream in reversed(streams.proven.values())  # the newest first
            if (sound := stream.voice.pull()) is not None
        ]
        if self._played_out:
            sounds += [sound for voice in self._played_out if (sound := voice.pull()) is not None]
            self._played_out = [voice for voice in self._played_out if not voice.playout.empty]
        return mixed(sounds) if sounds else silence(self._rate_hz)

    def blocks(self, now: float) -> Sequence[ReportBlock]:
        """How each stream that has been heard since the last call is received."""
        blocks = (stream.reception.report(now) for stream in self._streams())
        return tuple(block for block in blocks if block is not None)[:STREAMS_MAX]

    @property
    def received(self) -> int:
        """RTP packets that authenticated and were not seen before."""
        return self._received + sum(stream.reception.received for stream in self._streams())

    @property
    def lost(self) -> int:
        """RTP packets that have not come."""
        return self._lost + sum(stream.reception.lost for stream in self._streams())

    @property
    def late(self) -> int:
        """RTP packets that came after their turn to be played."""
        return self._late + sum(stream.voice.playout.late for stream in self._streams())

    def _streams(self) -> Iterator[_IncomingStream]:
        for streams in self._under:
            yield from streams.proven.values()

    def _candidates(self, ssrc: int) -> Iterator[tuple[_Streams, _IncomingStream]]:
        """The stream that has this SSRC, or one under each key that may turn out to have it."""
        known = [(streams, streams.proven[ssrc]) for streams in self._under if ssrc in streams.proven]
        if known:
            yield from known
            return
        for streams in self._under:
            stream = streams.stranger(ssrc, self._rate_hz)
            if stream is not None:
                yield streams, stream


def _reports(stream: _IncomingStream, packet: bytes, ssrc: int, now: float) -> tuple[rtcp.Heard, ...]:
    try:
        heard = rtcp.parse(packet)
    except rtcp.RtcpMalformed:
        return ()
    for report in heard:
        if isinstance(report, rtcp.SenderReport) and report.ssrc == ssrc:
            stream.reception.take_report(rtcp.middle(report.ntp), now)
    return tuple(report for report in heard if report.ssrc == ssrc)
