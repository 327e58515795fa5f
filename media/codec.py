"""Codecs by their RTP names (RFC 3551), by PyAV. One packet is 20 ms: 160 samples in, so many octets out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from media.pcm import PACKET_SAMPLES, SAMPLE_HZ, Pcm


class PayloadMalformed(Exception):  # noqa: N818
    """The octets are no packet of this codec."""


@dataclass(frozen=True, slots=True)
class Codec:
    """What RTP and PyAV need to know of a codec."""

    name: str  # RTP name, as in the session description
    payload_type: int
    clock_hz: int  # units of the RTP timestamp in a second
    packet_octets: int  # of one packet's payload
    library_name: str  # FFmpeg's


CODECS: Final = {
    codec.name: codec
    for codec in (
        Codec("PCMU", payload_type=0, clock_hz=8000, packet_octets=160, library_name="pcm_mulaw"),
        Codec("PCMA", payload_type=8, clock_hz=8000, packet_octets=160, library_name="pcm_alaw"),
    )
}


class Encoder:
    """One stream's encoder."""

    def __init__(self, codec: Codec) -> None:
        self._context = cast("AudioCodecContext", av.CodecContext.create(codec.library_name, "w"))
        _set_up(self._context)

    def encode(self, pcm: Pcm) -> bytes:
        """The payload of one packet. pcm: 160 samples."""
        frame = av.AudioFrame.from_ndarray(pcm[np.newaxis, :], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_HZ
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


class Decoder:
    """One stream's decoder."""

    def __init__(self, codec: Codec) -> None:
        self._context = cast("AudioCodecContext", av.CodecContext.create(codec.library_name, "r"))
        self._octets = codec.packet_octets
        _set_up(self._context)

    def decode(self, payload: bytes) -> Pcm:
        """160 samples. Raises PayloadMalformed for a payload of another length."""
        if len(payload) != self._octets:
            raise PayloadMalformed
        frames = self._context.decode(av.Packet(payload))
        pcm: Pcm = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        assert pcm.shape == (PACKET_SAMPLES,)
        return pcm


def _set_up(context: AudioCodecContext) -> None:
    context.sample_rate = SAMPLE_HZ
    context.layout = "mono"
    context.format = "s16"
