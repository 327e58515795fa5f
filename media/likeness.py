"""How much a recording is like the sound that was played into the other end."""

from __future__ import annotations

from typing import Final

import numpy as np

from media.pcm import Pcm


def likeness(heard: Pcm, original: Pcm) -> float:
    """Normalised cross-correlation at the lag where it is greatest, from 0 to 1.

    Measured against all the energy of `heard`, and that of `original` where the two overlap: silence around
    it and a recording that was cut cost nothing; gaps, noise and other sounds do. 0 if either is silent.
    """
    a, b = heard.astype(np.float64), original.astype(np.float64)
    if not a.any() or not b.any():
        return 0.0
    size = 1 << (a.size + b.size - 2).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    lag = int(np.argmax(correlation))
    if lag >= a.size:
        lag -= size  # the first of `original` was not heard
    overlap = b[max(0, -lag) : a.size - lag]
    energy = float(np.sqrt(np.sum(a * a) * np.sum(overlap * overlap)))
    return max(0.0, min(1.0, float(correlation[lag]) / energy)) if energy else 0.0


_FRAME: Final = 256  # 32 ms at 8 kHz
_HOP: Final = 64
_BANDS: Final = 24
_FLOOR_DB: Final = 45.0  # so far below the loudest band nothing counts: codecs put their noise there


def spectral_likeness(heard: Pcm, original: Pcm) -> float:
    """How alike two sounds at 8 kHz are to the ear, from 0 to 1, whatever their phases: after a codec
    `likeness` says little.

    Correlates loudness in dB by time and band, at the lag where that is greatest, and where the two overlap;
    gaps, noise and other sounds cost. 0 if either is silent.
    """
    a, b = _bands(heard), _bands(original)
    if not a.any() or not b.any():
        return 0.0
    if len(a) > len(b):
        a, b = b, a
    size = 1 << (len(a) + len(b) - 2).bit_length()
    spectra = np.fft.rfft(b, size, axis=0) * np.conj(np.fft.rfft(a, size, axis=0))
    correlation = np.fft.irfft(spectra.sum(axis=1), size)
    lag = int(np.argmax(correlation))
    if lag >= len(b):
        lag -= size
    one, other = a[max(0, -lag) : len(b) - lag], b[max(0, lag) : len(a) + lag]
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    energy = float(np.sqrt(np.sum(one * one) * np.sum(other * other)))
    return max(0.0, min(1.0, float(np.sum(one * other)) / energy)) if energy else 0.0


def _bands(sound: Pcm) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Loudness above the floor in dB, one row each 8 ms, one column for each band."""
    if sound.size < _FRAME or not sound.any():
        return np.zeros((1, _BANDS))
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), _FRAME)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_FRAME), axis=1)[:, 2:122]) ** 2
    banded = power.reshape(len(frames), _BANDS, -1).sum(axis=2)
    loudness = 10 * np.log10(banded / banded.max() + 1e-12)
    heard: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.maximum(loudness + _FLOOR_DB, 0.0)
    return heard
