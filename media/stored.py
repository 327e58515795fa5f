"""A message as a mailbox has stored it: packets of one leg, decrypted long after they were sent.

    packet -> SSRC -> key of (root, remote, local, SSRC) -> OR-28 -> sound in the order of sequence numbers

A mailbox holds no key, yet it may lose packets, cut the message short, mix up their order, or add junk that
it was sent. So a message is whole only if its sender says so: by SRTCP BYE of each stream, and by the number
of packets that it says to have sent. What no sender can say is that there was another stream, which takes
eleven minutes: a mailbox that loses all of one is not found out.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from media import rtcp, rtp
from media.codec import CODECS, Codec, Decoder, PayloadMalformed
from media.incoming import STREAMS_MAX
from media.leg import Leg
from media.pcm import PACKET_SAMPLES, SILENCE, Pcm
from media.rtcp import is_rtcp
from media.srtp import SrtpRefused, SrtpReplayed, stream_of_peer

_NOT_TOLD: Final = 1 << 64  # later than any NTP timestamp


class StoredMedia:
    """What one sender has said to a mailbox, in one or more streams, one after another."""

    def __init__(self, leg: Leg, *, heard_samples_max: int) -> None:
        """leg: of who hears it. heard_samples_max: how much of the sound is kept, from its beginning.

        Raises KeyError for a codec that is not in CODECS.
        """
        self.authentic = 0  # packets, SRTP and SRTCP
        self.refused = 0
        self._leg = leg
        self._codec = CODECS[leg.codec]
        self._heard_samples_max = heard_samples_max
        self._streams: dict[int, _StoredStream] = {}

    def take(self, packet: bytes) -> None:
        """The next packet that was stored, whatever it is. Never raises for its content."""
        told = is_rtcp(packet)
        ssrc_at = 4 if told else 8
        ssrc = int.from_bytes(packet[ssrc_at : ssrc_at + 4], "big")
        stream = self._streams.get(ssrc) or self._stranger(ssrc)
        if stream is None:
            self.refused += 1
            return
        try:
            opened = stream.srtp.unprotect_rtcp(packet) if told else stream.srtp.unprotect(packet)
        except SrtpReplayed:  # OR-28: the network or the mailbox has repeated it
            return
        except SrtpRefused:  # OR-28
            self.refused += 1
            return
        self._streams[ssrc] = stream
        self.authentic += 1
        if told:
            stream.take_report(opened)
        else:
            stream.take(opened, kept=self._kept < self._heard_samples_max)

    @property
    def whole(self) -> bool:
        """Whether there is nothing missing from the first packet to the end that the sender gave it."""
        streams = [stream for stream in self._streams.values() if stream.sequences or stream.sent]
        return bool(streams) and all(stream.whole for stream in streams)

    def heard(self) -> Pcm:
        """The sound, silence where a packet is missing. Streams follow each other as their sender's clock
        says, whatever the order in which a mailbox hands them out."""
        heard = np.zeros(0, np.int16)
        for stream in sorted(self._streams.values(), key=lambda stream: stream.ntp):
            room = self._heard_samples_max - heard.size
            heard = np.concatenate([heard, stream.heard()[:room]])
        return heard

    @property
    def _kept(self) -> int:
        """Samples."""
        return sum(stream.kept for stream in self._streams.values()) * PACKET_SAMPLES

    def _stranger(self, ssrc: int) -> _StoredStream | None:
        """A stream that is the sender's if a packet of it authenticates; until then nothing is kept of it."""
        if len(self._streams) >= STREAMS_MAX:
            return None
        return _StoredStream(self._leg, self._codec, ssrc)


class _StoredStream:
    """One SSRC of the sender."""

    def __init__(self, leg: Leg, codec: Codec, ssrc: int) -> None:
        self.srtp = stream_of_peer(leg, ssrc)
        self.sequences: set[int] = set()
        self.ntp = _NOT_TOLD  # of its first report
        self._ssrc = ssrc
        self._codec = codec
        self._payloads: dict[int, bytes] = {}
        self.sent = 0  # packets, as its sender says
        self._ended = False

    def take(self, packet: bytes, *, kept: bool) -> None:
        """An authentic RTP packet. kept: whether there is room for its sound."""
        try:
            heard = rtp.parse(packet)
        except rtp.RtpMalformed:
            return
        self.sequences.add(heard.sequence)
        if kept and heard.payload_type == self._codec.payload_type:
            self._payloads[heard.sequence] = heard.payload

    def take_report(self, packet: bytes) -> None:
        """An authentic RTCP packet."""
        try:
            reports = rtcp.parse(packet)
        except rtcp.RtcpMalformed:
            return
        for report in reports:
            if report.ssrc != self._ssrc:
                continue
            if isinstance(report, rtcp.SenderReport):
                self.ntp = min(self.ntp, report.ntp)
                self.sent = max(self.sent, report.packets)
            elif isinstance(report, rtcp.Bye):
                self._ended = True

    @property
    def kept(self) -> int:
        """Packets whose sound is kept."""
        return len(self._payloads)

    @property
    def whole(self) -> bool:
        """Its sender has ended it, and each packet is there: the numbers have no gap, and there are as many
        as its sender says, so that none is missing before the first either."""
        count = len(self.sequences)
        if not count:
            return False
        no_gap = max(self.sequences) - min(self.sequences) + 1 == count
        return self._ended and no_gap and count == self.sent

    def heard(self) -> Pcm:
        """From its first packet to its last."""
        if not self.sequences:
            return np.zeros(0, np.int16)
        decoder = Decoder(self._codec)
        turns = range(min(self.sequences), max(self.sequences) + 1)
        return np.concatenate([_decoded(decoder, self._payloads.get(turn)) for turn in turns])


def _decoded(decoder: Decoder, payload: bytes | None) -> Pcm:
    if payload is None:
        return SILENCE
    try:
        return decoder.decode(payload)
    except PayloadMalformed:
        return SILENCE
