"""Sound as the rest of the package sees it: 8 kHz, mono, 16 bits, in packets of 20 ms."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]
"""One dimension, one int16 for each sample."""

SAMPLE_HZ: Final = 8000
PACKET_SAMPLES: Final = 160
PACKET_S: Final = PACKET_SAMPLES / SAMPLE_HZ

SILENCE: Final[Pcm] = np.zeros(PACKET_SAMPLES, np.int16)
SILENCE.flags.writeable = False


def mixed(sounds: list[Pcm]) -> Pcm:
    """The sum of packets of 160 samples each, clipped to 16 bits; silence when there are none."""
    if not sounds:
        return SILENCE
    if len(sounds) == 1:
        return sounds[0]
    limits = np.iinfo(np.int16)
    return np.clip(np.sum(sounds, axis=0, dtype=np.int32), limits.min, limits.max).astype(np.int16)
