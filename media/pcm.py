"""Sound as the rest of the package sees it: 8 kHz, mono, 16 bits, in packets of 20 ms. A bridge may have
16 kHz instead."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]
"""One dimension, one int16 for each sample."""

SAMPLE_HZ: Final = 8000
WIDE_HZ: Final = 16_000
PACKETS_PER_S: Final = 50
PACKET_SAMPLES: Final = SAMPLE_HZ // PACKETS_PER_S
PACKET_S: Final = PACKET_SAMPLES / SAMPLE_HZ

SILENCE: Final[Pcm] = np.zeros(PACKET_SAMPLES, np.int16)
SILENCE.flags.writeable = False


@cache
def silence(rate_hz: int) -> Pcm:
    """20 ms of it at 8000 or 16,000 Hz, always the same array."""
    if rate_hz == SAMPLE_HZ:
        return SILENCE
    quiet: Pcm = np.zeros(rate_hz // PACKETS_PER_S, np.int16)
    quiet.flags.writeable = False
    return quiet


def mixed(sounds: list[Pcm]) -> Pcm:
    """The sum of packets of one length, clipped to 16 bits; 8 kHz silence when there are none."""
    if not sounds:
        return SILENCE
    if len(sounds) == 1:
        return sounds[0]
    return clipped(np.array(sounds, np.int32).sum(axis=0))


def clipped(sound: npt.NDArray[np.int32]) -> Pcm:
    """As loud as 16 bits can say."""
    limits = np.iinfo(np.int16)
    return np.clip(sound, limits.min, limits.max).astype(np.int16)
