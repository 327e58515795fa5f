"""How much a recording is like the sound that was played into the other end."""

from __future__ import annotations

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
