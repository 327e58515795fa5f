"""Voices that can be told from each other in a mix: steady tones, each of its own pitch."""

from __future__ import annotations

from typing import Final

import numpy as np

from media.pcm import PACKET_SAMPLES, SAMPLE_HZ, Pcm
from media.samples import tone

_WINDOW: Final = PACKET_SAMPLES  # 20 ms: pitches that are multiples of 50 Hz do not disturb each other
_SHARE: Final = 3  # of the loudness of a sample, so that three together are not clipped
_LEVEL: Final = 12_000 / _SHARE


def voice(hertz: int, seconds: float) -> Pcm:
    """A tone, soft enough that four fit into a mix. hertz: a multiple of 50."""
    return tone(hertz, seconds) // _SHARE


def windows_with(heard: Pcm, hertz: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each 20 ms whether the voice of this pitch is in what was heard."""
    frames = heard[: heard.size // _WINDOW * _WINDOW].astype(np.float64).reshape(-1, _WINDOW)
    wave = np.exp(-2j * np.pi * hertz * np.arange(_WINDOW) / SAMPLE_HZ)
    level = np.abs(frames @ wave) * 2 / _WINDOW
    loud: np.ndarray[tuple[int], np.dtype[np.bool_]] = level > _LEVEL / 2
    return loud


def heard_ms(heard: Pcm, hertz: int) -> int:
    """How long this voice was heard, in all."""
    return int(windows_with(heard, hertz).sum()) * 1000 * _WINDOW // SAMPLE_HZ


def gaps_ms(heard: Pcm, hertz: int) -> list[int]:
    """How long this voice was not heard, between its beginning and its end: the longest first."""
    [at] = np.nonzero(windows_with(heard, hertz))
    lost = np.diff(at) - 1
    return sorted((int(gap) * 1000 * _WINDOW // SAMPLE_HZ for gap in lost if gap), reverse=True)
