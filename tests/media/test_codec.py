"""Codecs by their RTP names."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.codec import CODECS, Codec, Decoder, Encoder, PayloadMalformed
from media.likeness import spectral_likeness
from media.pcm import PACKET_SAMPLES, Pcm
from media.resampling import Resampler
from media.samples import caller_sample

G711 = ["PCMU", "PCMA"]


@pytest.fixture(params=list(CODECS.values()), ids=lambda codec: codec.name)
def codec(request: pytest.FixtureRequest) -> Codec:
    value: Codec = request.param
    return value


@pytest.mark.parametrize("name", G711)
def test_a_packet_comes_back_nearly_as_it_was(name: str) -> None:
    encoder, decoder = Encoder(CODECS[name]), Decoder(CODECS[name])
    for pcm in caller_sample().reshape(-1, PACKET_SAMPLES):
        error = np.abs(decoder.decode(encoder.encode(pcm)).astype(int) - pcm)
        assert np.all(error <= 16 + np.abs(pcm.astype(int)) // 16)  # G.711: 4 bits under the segment


@pytest.mark.parametrize("rate_in", [8000, 16_000])
@pytest.mark.parametrize("rate_out", [8000, 16_000])
def test_20_ms_in_20_ms_out(codec: Codec, rate_in: int, rate_out: int) -> None:
    encoder, decoder = Encoder(codec, rate_in), Decoder(codec, rate_out)
    heard: list[Pcm] = []
    for pcm in at_rate(caller_sample(), rate_in).reshape(-1, rate_in // 50):
        payload = encoder.encode(pcm)
        assert len(payload) == codec.packet_octets or (not codec.packet_octets and 0 < len(payload) < 200)
        heard.append(decoder.decode(payload))
        assert heard[-1].shape == (rate_out // 50,)
        assert heard[-1].dtype == np.int16
    assert spectral_likeness(np.concatenate(heard)[:: rate_out // 8000], caller_sample()) > 0.95


def at_rate(sound: Pcm, rate: int) -> Pcm:
    if rate == 8000:
        return sound
    resampler = Resampler(8000, rate)
    return np.concatenate([resampler.take(pcm) for pcm in sound.reshape(-1, PACKET_SAMPLES)])


@pytest.mark.parametrize("name", ["G722", "opus"])
def test_a_wide_codec_carries_what_is_above_4_khz(name: str) -> None:
    encoder, decoder = Encoder(CODECS[name], 16_000), Decoder(CODECS[name], 16_000)
    wave = (8000 * np.sin(2 * np.pi * 5500 * np.arange(16_000) / 16_000)).astype(np.int16)
    heard = np.concatenate([decoder.decode(encoder.encode(pcm)) for pcm in wave.reshape(-1, 320)])
    spectrum = np.abs(np.fft.rfft(heard))
    assert abs(int(np.argmax(spectrum)) - 5500) <= 2
    assert np.sqrt(np.mean(heard[3200:].astype(float) ** 2)) > 3000


def test_g711_octets() -> None:
    silence = np.zeros(PACKET_SAMPLES, np.int16)
    assert Encoder(CODECS["PCMU"]).encode(silence) == b"\xff" * 160
    assert Encoder(CODECS["PCMA"]).encode(silence) == b"\xd5" * 160


def test_rtp_names_types_and_clocks() -> None:
    """RFC 3551, tables 4 and 4.5.2; RFC 7587, 4.1."""
    told = {codec.name: (codec.payload_type, codec.clock_hz) for codec in CODECS.values()}
    assert told == {"PCMU": (0, 8000), "PCMA": (8, 8000), "G722": (9, 8000), "opus": (111, 48_000)}


@pytest.mark.parametrize("octets", [0, 1, 159, 161, 320])
@pytest.mark.parametrize("name", [*G711, "G722"])
def test_a_payload_of_another_length_is_malformed(name: str, octets: int) -> None:
    with pytest.raises(PayloadMalformed):
        Decoder(CODECS[name]).decode(bytes(octets))


@pytest.mark.parametrize("name", [*G711, "G722"])
def test_any_octets_decode(name: str) -> None:
    everything = bytes(range(256)) + bytes(64)
    for start in (0, 160):
        assert Decoder(CODECS[name]).decode(everything[start : start + 160]).dtype == np.int16


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x03",  # code 3 without its count
        b"\x0b\x00",  # no frame at all
        b"\x0b\x06" + bytes(60),  # 120 ms
        b"\x18" + bytes(40),  # 60 ms of SILK
        b"\x00" + bytes(40),  # 10 ms
        b"\x0a" + bytes(40),  # two frames of 20 ms
        b"\x08" + bytes(2600),
    ],
    ids=lambda payload: f"{payload[:2].hex()} {len(payload)}",
)
def test_opus_of_another_duration_is_malformed(payload: bytes) -> None:
    with pytest.raises(PayloadMalformed):
        Decoder(CODECS["opus"]).decode(payload)


@given(st.binary(max_size=400))
def test_opus_decodes_or_is_malformed(payload: bytes) -> None:
    try:
        assert Decoder(CODECS["opus"]).decode(payload).shape == (PACKET_SAMPLES,)
    except PayloadMalformed:
        return


def test_a_decoder_goes_on_after_junk(codec: Codec) -> None:
    chance = random.Random(5)
    encoder, decoder = Encoder(codec), Decoder(codec)
    heard: list[Pcm] = []
    for count, pcm in enumerate(caller_sample().reshape(-1, PACKET_SAMPLES)):
        payload = encoder.encode(pcm)
        if count % 10 == 0:
            junk = bytearray(payload)
            junk[chance.randrange(len(junk))] ^= 1 << chance.randrange(8)
            for octets in (
                chance.randbytes(chance.randrange(200)),
                bytes(junk),
                payload[: len(payload) // 2],
            ):
                try:
                    assert decoder.decode(octets).shape == (PACKET_SAMPLES,)
                except PayloadMalformed:
                    continue
        heard.append(decoder.decode(payload))
    assert spectral_likeness(np.concatenate(heard), caller_sample()) > 0.7


@pytest.mark.parametrize(
    ("from_hz", "to_hz"), [(8000, 16_000), (16_000, 8000), (48_000, 8000), (48_000, 16_000)]
)
def test_resampling_keeps_a_tone_and_adds_nothing(from_hz: int, to_hz: int) -> None:
    resampler = Resampler(from_hz, to_hz)
    wave = (12_000 * np.sin(2 * np.pi * 1000 * np.arange(from_hz) / from_hz)).astype(np.int16)
    made = np.concatenate([resampler.take(pcm) for pcm in wave.reshape(50, -1)])[to_hz // 10 :]
    spectrum = np.abs(np.fft.rfft(made * np.hanning(made.size)))
    peak = int(np.argmax(spectrum))
    assert peak * to_hz / made.size == pytest.approx(1000, abs=2)
    spectrum[peak - 5 : peak + 6] = 0
    assert spectrum.max() < 1e-3 * 12_000 * made.size / 4
    loud = np.full(from_hz // 50, 32_767, np.int16)
    assert int(resampler.take(loud).max()) <= 32_767  # clipped, not wrapped
    assert int(resampler.take(loud).min()) > 30_000


def test_what_is_above_the_band_is_not_heard_below_it() -> None:
    resampler = Resampler(16_000, 8000)
    wave = (12_000 * np.sin(2 * np.pi * 5000 * np.arange(16_000) / 16_000)).astype(np.int16)
    made = np.concatenate([resampler.take(pcm) for pcm in wave.reshape(50, -1)])[800:]
    assert np.sqrt(np.mean(made.astype(float) ** 2)) < 20
