"""Likeness of what was heard to what was played, and the built-in samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from media.codec import CODECS, Decoder, Encoder
from media.likeness import likeness, spectral_likeness
from media.pcm import SAMPLE_HZ, Pcm
from media.samples import callee_sample, caller_sample, tone


def silence(seconds: float) -> Pcm:
    return np.zeros(round(seconds * SAMPLE_HZ), np.int16)


def test_a_sound_is_like_itself() -> None:
    assert likeness(caller_sample(), caller_sample()) == pytest.approx(1)


def test_silence_around_it_and_loudness_cost_nothing() -> None:
    heard = np.concatenate([silence(0.31), caller_sample() // 2, silence(1.7)])
    assert likeness(heard, caller_sample()) > 0.999


@pytest.mark.parametrize("cut", [slice(16_000), slice(8_000, None), slice(4_001, 20_000)])
def test_a_part_is_like_the_whole(cut: slice) -> None:
    assert likeness(caller_sample()[cut], caller_sample()) > 0.999


def test_the_two_samples_are_not_alike() -> None:
    assert likeness(caller_sample(), callee_sample()) < 0.3
    assert likeness(callee_sample(), caller_sample()) < 0.3


def test_noise_silence_and_nothing_are_not_alike() -> None:
    noise = (np.random.default_rng(1).normal(size=20_000) * 5_000).astype(np.int16)
    assert likeness(noise, caller_sample()) < 0.1
    assert likeness(silence(1), caller_sample()) == 0
    assert likeness(caller_sample(), silence(1)) == 0
    assert likeness(silence(0), silence(0)) == 0


def test_gaps_and_other_sounds_cost() -> None:
    gaps = caller_sample().copy()
    gaps.reshape(-1, 160)[::4] = 0
    assert 0.8 < likeness(gaps, caller_sample()) < 0.9
    mixed = caller_sample() // 2 + callee_sample() // 2
    assert 0.5 < likeness(mixed, caller_sample()) < 0.85


@pytest.mark.parametrize("sample", [caller_sample(), callee_sample()], ids=["caller", "callee"])
def test_a_sample_is_five_seconds_and_never_like_itself_at_another_lag(sample: Pcm) -> None:
    assert sample.size == 5 * SAMPLE_HZ
    assert 8_000 < int(np.abs(sample).max()) < 32_000
    wave = sample.astype(float)
    spectrum = np.abs(np.fft.rfft(wave, 1 << 17)) ** 2
    correlation = np.fft.irfft(spectrum)[: wave.size] / float(np.sum(wave * wave))
    assert float(np.abs(correlation[400:]).max()) < 0.6


def test_a_tone_has_one_frequency() -> None:
    spectrum = np.abs(np.fft.rfft(tone(440, 1)))
    assert int(np.argmax(spectrum)) == 440
    assert tone(440, 0.5).size == SAMPLE_HZ // 2


def through(sound: Pcm, *codecs: str) -> Pcm:
    for name in codecs:
        encoder, decoder = Encoder(CODECS[name]), Decoder(CODECS[name])
        sound = np.concatenate([decoder.decode(encoder.encode(pcm)) for pcm in sound.reshape(-1, 160)])
    return sound


@pytest.mark.parametrize("codecs", list(itertools.product(CODECS, CODECS)), ids=" ".join)
def test_a_sound_sounds_like_itself_after_two_codecs(codecs: tuple[str, str]) -> None:
    for sample, other in ((caller_sample(), callee_sample()), (callee_sample(), caller_sample())):
        heard = through(sample, *codecs)
        assert spectral_likeness(heard, sample) > 0.95
        assert spectral_likeness(heard[12_000:], sample) > 0.95
        assert spectral_likeness(heard, other) < 0.3


def test_what_does_not_sound_alike() -> None:
    sample = caller_sample()
    noise = (np.random.default_rng(1).normal(size=sample.size) * 3_000).astype(np.int16)
    for other in (noise, tone(440, 5), tone(1000, 5), sample[::-1]):
        assert spectral_likeness(other, sample) < 0.2
    assert spectral_likeness(sample // 2 + callee_sample() // 2, sample) < 0.8
    gaps = sample.copy()
    gaps.reshape(-1, 160)[::4] = 0
    assert spectral_likeness(gaps, sample) < 0.9
    for nothing in (silence(0), silence(1), sample[:100]):
        assert spectral_likeness(nothing, sample) == spectral_likeness(sample, nothing) == 0


def test_silence_around_it_and_loudness_sound_alike() -> None:
    heard = np.concatenate([silence(0.31), caller_sample() // 2, silence(1.7)])
    assert spectral_likeness(heard, caller_sample()) > 0.99
