"""From one sampling rate to another in packets of 20 ms, by a windowed sinc. FFmpeg's takes three times as
long for packets this small."""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Final

import numpy as np
import numpy.typing as npt

from media.pcm import PACKETS_PER_S, Pcm

_REACH: Final = 16  # periods of the lower rate on either side that a sample is made of
_PASSED: Final = 0.92  # of the band; what is left is the filter's edge
_KAISER: Final = 6.0

Floats = npt.NDArray[np.float32]


class Resampler:
    """One stream: each packet goes on where the one before has ended, 2 ms later than it came."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        """One rate is a multiple of the other."""
        least = gcd(from_hz, to_hz)
        self._up, self._down = to_hz // least, from_hz // least
        assert min(self._up, self._down) == 1
        self._samples = from_hz // PACKETS_PER_S
        self._phases = _filter(self._up, self._down)
        self._before: Floats = np.zeros(self._phases[0].size - 1, np.float32)

    def take(self, pcm: Pcm) -> Pcm:
        """20 ms in, 20 ms out."""
        assert pcm.size == self._samples
        sound: Floats = np.concatenate([self._before, pcm.astype(np.float32)])
        self._before = sound[self._samples :]
        if self._up == 1:
            made = np.convolve(sound, self._phases[0], "valid")[:: self._down]
        else:
            made = np.empty(self._samples * self._up, np.float32)
            for phase, taps in enumerate(self._phases):
                made[phase :: self._up] = np.convolve(sound, taps, "valid")
        np.rint(made, out=made)
        return np.clip(made, -32_768, 32_767).astype(np.int16)


@cache
def _filter(up: int, down: int) -> tuple[Floats, ...]:
    """The taps of each phase of the output, for np.convolve."""
    factor = max(up, down)
    half = _REACH * factor
    time = np.arange(-half, half) / factor
    taps = _PASSED * np.sinc(_PASSED * time) * np.kaiser(2 * half, _KAISER)
    taps *= up / taps.sum()
    return tuple(taps[phase::up].astype(np.float32) for phase in range(up))
