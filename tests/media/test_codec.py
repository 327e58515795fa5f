"""Codecs by their RTP names."""

from __future__ import annotations

import numpy as np
import pytest

from media.codec import CODECS, Codec, Decoder, Encoder, PayloadMalformed
from media.pcm import PACKET_SAMPLES
from media.samples import caller_sample


@pytest.fixture(params=list(CODECS.values()), ids=lambda codec: codec.name)
def codec(request: pytest.FixtureRequest) -> Codec:
    value: Codec = request.param
    return value


def test_a_packet_comes_back_nearly_as_it_was(codec: Codec) -> None:
    encoder, decoder = Encoder(codec), Decoder(codec)
    for pcm in caller_sample().reshape(-1, PACKET_SAMPLES):
        payload = encoder.encode(pcm)
        assert len(payload) == codec.packet_octets
        error = np.abs(decoder.decode(payload).astype(int) - pcm)
        assert np.all(error <= 16 + np.abs(pcm.astype(int)) // 16)  # G.711: 4 bits under the segment


def test_g711_octets() -> None:
    silence = np.zeros(PACKET_SAMPLES, np.int16)
    assert Encoder(CODECS["PCMU"]).encode(silence) == b"\xff" * 160
    assert Encoder(CODECS["PCMA"]).encode(silence) == b"\xd5" * 160
    assert (CODECS["PCMU"].payload_type, CODECS["PCMA"].payload_type) == (0, 8)  # RFC 3551, table 4


@pytest.mark.parametrize("octets", [0, 1, 159, 161, 320])
def test_a_payload_of_another_length_is_malformed(codec: Codec, octets: int) -> None:
    with pytest.raises(PayloadMalformed):
        Decoder(codec).decode(bytes(octets))


def test_any_octets_decode(codec: Codec) -> None:
    everything = bytes(range(256)) + bytes(64)
    for start in (0, 160):
        assert Decoder(codec).decode(everything[start : start + 160]).dtype == np.int16
