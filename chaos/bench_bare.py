"""What a bridge does, with nothing around it: numpy alone, SRTP and codec alone, PyAV alone.

Each function gives the CPU of 20 ms in µs: the median of some rounds, by this process's own clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from pylibsrtp import Policy, Session

from media.codec import CODECS, Codec, Decoder, Encoder
from media.pcm import PACKET_S, PACKET_SAMPLES, PACKETS_PER_S, SAMPLE_HZ
from media.rtp import HEADER_OCTETS, RtpPacket
from media.samples import caller_sample
from media.srtp import SendingStream
from protocol.description import SrtpSuite
from protocol.secret import Secret
from protocol.srtp_keys import MasterKey, srtp_master

_ROUNDS: Final = 5
_TICKS: Final = 20  # in each


def numpy_us(members: int) -> float:
    """Sum, the sum without each, clipped: of arrays of 20 ms."""
    sound = caller_sample()
    sounds = [sound[start : start + PACKET_SAMPLES].copy() for start in range(members)]

    def tick(_: int) -> object:
        each = np.array(sounds, np.int32)
        return np.clip(each.sum(axis=0) - each, -32_768, 32_767).astype(np.int16)

    return _cpu_us(tick)


def srtp_and_codec_us(codec: Codec, members: int) -> float:
    """Of each member one packet opened and decoded, one encoded and sealed."""
    said, ticks = payloads(codec), _ROUNDS * _TICKS
    streams: list[tuple[list[bytes], Session, Decoder, Encoder, Session]] = []
    for ssrc in range(1, members + 1):
        came = list(packets(SendingStream(_master(ssrc), ssrc), codec, ssrc, said, ticks))
        streams.append((came, _session(ssrc), Decoder(codec), Encoder(codec), _session(ssrc)))

    def tick(number: int) -> None:
        for came, opening, decoder, encoder, sealing in streams:
            opened = opening.unprotect(came[number])
            sound = decoder.decode(opened[HEADER_OCTETS:])
            sealing.protect(opened[:HEADER_OCTETS] + encoder.encode(sound))

    return _cpu_us(tick)


def pyav_us(names: tuple[str, str], calls: int) -> float:
    """Both directions of so many calls: decode, another rate where that is needed, encode."""
    ways = [(names[0], names[1]), (names[1], names[0])]
    work = [
        (payloads(CODECS[heard]), _context(CODECS[heard], "r"), _resampler(heard, told), _encoder(told))
        for heard, told in calls * ways
    ]

    def tick(number: int) -> None:
        for said, decoder, resampler, encoder in work:
            for frame in decoder.decode(av.Packet(said[number % len(said)])):
                frames = [frame] if resampler is None else resampler.resample(frame)
                for each in frames:
                    each.pts = None
                    [bytes(packet) for packet in encoder.encode(each)]

    return _cpu_us(tick)


def payloads(codec: Codec) -> list[bytes]:
    """Five seconds of a melody."""
    sound, encoder = caller_sample(), Encoder(codec)
    parts = range(0, sound.size - PACKET_SAMPLES + 1, PACKET_SAMPLES)
    return [encoder.encode(sound[start : start + PACKET_SAMPLES]) for start in parts]


def packets(
    stream: SendingStream, codec: Codec, ssrc: int, said: Sequence[bytes], ticks: int
) -> Sequence[bytes]:
    """SRTP; each member is at another place of the melody."""
    clock = round(PACKET_S * codec.clock_hz)
    return [
        stream.protect(
            RtpPacket(
                codec.payload_type, tick, tick * clock, ssrc, said[(7 * ssrc + tick) % len(said)]
            ).pack()
        )
        for tick in range(ticks)
    ]


def _cpu_us(tick: Callable[[int], object]) -> float:
    """Of one tick; the ticks are counted on, from 0."""
    found, ticks = [], count()
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_TICKS):
            tick(next(ticks))
        found.append(1e6 * (time.process_time() - began) / _TICKS)
    return round(statistics.median(found), 1)


def _session(ssrc: int) -> Session:
    """pylibsrtp's, with nothing around it."""
    master = _master(ssrc)
    return Session(
        Policy(
            key=master.key.reveal() + master.salt.reveal(),
            ssrc_type=Policy.SSRC_SPECIFIC,
            ssrc_value=ssrc,
            srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
        )
    )


def _master(ssrc: int) -> MasterKey:
    return srtp_master(
        Secret(bytes(32)),
        SrtpSuite.AEAD_AES_256_GCM,
        sender="sip:anybody@ims.example",
        receiver=bytes(16),
        media_line=0,
        ssrc=ssrc,
        n=1,
    )


def _context(codec: Codec, mode: Any, rate_hz: int = 0) -> AudioCodecContext:  # noqa: ANN401
    context = cast("AudioCodecContext", av.CodecContext.create(codec.library_name, mode))
    context.sample_rate = rate_hz or codec.native_hz
    context.layout = "mono"
    context.format = "s16"
    return context


def _encoder(name: str) -> AudioCodecContext:
    """opus as the bridge has it: from 8 kHz, 24 kbit/s, the quickest."""
    if name != "opus":
        return _context(CODECS[name], "w")
    context = _context(CODECS[name], "w", SAMPLE_HZ)
    context.bit_rate = 24_000
    context.options = {"application": "voip", "frame_duration": "20", "compression_level": "0"}
    return context


def _resampler(heard: str, told: str) -> av.AudioResampler | None:
    rates = [
        SAMPLE_HZ if name == "opus" and name is told else CODECS[name].native_hz for name in (heard, told)
    ]
    if rates[0] == rates[1]:
        return None
    return av.AudioResampler("s16", "mono", rates[1], frame_size=rates[1] // PACKETS_PER_S)
