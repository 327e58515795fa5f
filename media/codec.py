"""Codecs by their RTP names (RFC 3551, RFC 7587), by PyAV. One packet is 20 ms, whatever the codec.

Sound on our side has a rate of 8 or 16 kHz; where the codec's own is another, it is resampled in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.error import FFmpegError

from media.pcm import PACKETS_PER_S, SAMPLE_HZ, Pcm
from media.resampling import Resampler

_OPUS_HZ: Final = 48_000  # what it decodes to; it encodes from 8 and 16 kHz as well
_OPUS_BITS_PER_S: Final = 24_000
_OPUS_OPTIONS: Final = {"application": "voip", "frame_duration": "20", "compression_level": "0"}
_OPUS_OCTETS_MAX: Final = 1275 * 2  # two frames of 10 ms (RFC 6716, 3.4)


class PayloadMalformed(Exception):  # noqa: N818
    """The octets are no packet of 20 ms of this codec."""


@dataclass(frozen=True, slots=True)
class Codec:
    """What RTP and PyAV need to know of a codec."""

    name: str  # RTP name, as in the session description
    payload_type: int
    clock_hz: int  # units of the RTP timestamp in a second
    packet_octets: int  # of one packet's payload; 0: they vary
    native_hz: int  # the sound that it carries
    library_name: str  # FFmpeg's


CODECS: Final = {
    codec.name: codec
    for codec in (
        Codec("PCMU", 0, clock_hz=8000, packet_octets=160, native_hz=8000, library_name="pcm_mulaw"),
        Codec("PCMA", 8, clock_hz=8000, packet_octets=160, native_hz=8000, library_name="pcm_alaw"),
        # 16 kHz with a clock of 8000: an error of RFC 1890 that stays (RFC 3551, 4.5.2)
        Codec("G722", 9, clock_hz=8000, packet_octets=160, native_hz=16_000, library_name="g722"),
        Codec("opus", 111, clock_hz=48_000, packet_octets=0, native_hz=_OPUS_HZ, library_name="libopus"),
    )
}


class Encoder:
    """One stream's encoder."""

    def __init__(self, codec: Codec, rate_hz: int = SAMPLE_HZ) -> None:
        """rate_hz: of the sound to be encoded, 8000 or 16,000."""
        self._rate_hz = rate_hz
        self._table = _encoding_table(codec.library_name) if codec.native_hz == SAMPLE_HZ else None
        opus = codec.native_hz == _OPUS_HZ
        self._codec_hz = rate_hz if opus else codec.native_hz
        self._resampler = Resampler(rate_hz, self._codec_hz) if rate_hz != self._codec_hz else None
        self._context = _context(codec.library_name, "w", self._codec_hz)
        if opus:
            self._context.bit_rate = _OPUS_BITS_PER_S
            self._context.options = dict(_OPUS_OPTIONS)

    def encode(self, pcm: Pcm) -> bytes:
        """The payload of one packet. pcm: 20 ms."""
        if self._resampler is not None:
            pcm = self._resampler.take(pcm)
        if self._table is not None:
            return self._table[pcm.view(np.uint16)].tobytes()
        [packet] = self._context.encode(_frame(pcm, self._codec_hz))
        return bytes(packet)


class Decoder:
    """One stream's decoder: packets in their order."""

    def __init__(self, codec: Codec, rate_hz: int = SAMPLE_HZ) -> None:
        """rate_hz: that the sound shall have, 8000 or 16,000."""
        self._octets = codec.packet_octets
        self._samples = codec.native_hz // PACKETS_PER_S
        self._table = _decoding_table(codec.library_name) if codec.native_hz == SAMPLE_HZ else None
        self._resampler = Resampler(codec.native_hz, rate_hz) if rate_hz != codec.native_hz else None
        self._context = _context(codec.library_name, "r", codec.native_hz)

    def decode(self, payload: bytes) -> Pcm:
        """20 ms. Raises PayloadMalformed for a payload of another length, and for what is no packet."""
        if self._octets and len(payload) != self._octets:
            raise PayloadMalformed
        if self._table is not None:
            pcm = self._table[np.frombuffer(payload, np.uint8)]
        else:
            pcm = self._decoded(payload)
        return pcm if self._resampler is None else self._resampler.take(pcm)

    def _decoded(self, payload: bytes) -> Pcm:
        if not self._octets and not _is_opus_of_20_ms(payload):
            raise PayloadMalformed
        try:
            frames = self._context.decode(av.Packet(payload))
        except FFmpegError:
            raise PayloadMalformed from None
        if len(frames) != 1 or frames[0].samples != self._samples:
            raise PayloadMalformed
        return np.frombuffer(memoryview(frames[0].planes[0]), np.int16)[: self._samples].copy()


def _is_opus_of_20_ms(payload: bytes) -> bool:
    """By the first octets (RFC 6716, 3.1 and 3.2.5): a packet may say that it lasts up to 120 ms."""
    if not 0 < len(payload) <= _OPUS_OCTETS_MAX:
        return False
    configuration, code = payload[0] >> 3, payload[0] & 3
    frame_ms: float
    if configuration < 12:  # SILK
        frame_ms = (10, 20, 40, 60)[configuration & 3]
    elif configuration < 16:  # hybrid
        frame_ms = (10, 20)[configuration & 1]
    else:  # CELT
        frame_ms = (2.5, 5, 10, 20)[configuration & 3]
    if code == 3:
        return len(payload) > 1 and frame_ms * (payload[1] & 0x3F) == 20
    return frame_ms * (1, 2, 2)[code] == 20


def _frame(pcm: Pcm, rate_hz: int) -> av.AudioFrame:
    frame = av.AudioFrame(format="s16", layout="mono", samples=pcm.size)
    frame.sample_rate = rate_hz
    frame.planes[0].update(pcm.tobytes())
    return frame


def _context(library_name: str, mode: Any, rate_hz: int) -> AudioCodecContext:  # noqa: ANN401
    context = cast("AudioCodecContext", av.CodecContext.create(library_name, mode))
    context.sample_rate = rate_hz
    context.layout = "mono"
    context.format = "s16"
    return context


@cache
def _encoding_table(library_name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """G.711 has no memory: the octet of each sample, by the sample's 16 bits, as FFmpeg encodes it."""
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    context = _context(library_name, "w", SAMPLE_HZ)
    octets = b"".join(bytes(packet) for packet in context.encode(_frame(samples, SAMPLE_HZ)))
    return np.frombuffer(octets, np.uint8)


@cache
def _decoding_table(library_name: str) -> Pcm:
    """The sample of each octet."""
    frames = _context(library_name, "r", SAMPLE_HZ).decode(av.Packet(bytes(range(256))))
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])
