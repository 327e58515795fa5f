"""Sounds to call with when no file is given: a melody for each end, and a tone. The same on each machine."""

from __future__ import annotations

from typing import Final

import numpy as np

from media.pcm import SAMPLE_HZ, Pcm

_HARMONICS: Final = 6  # enough of a spectrum that two lags do not look alike
_LEVEL: Final = 12_000  # of 32,767
# (semitones from A 440, eighths); no bar comes twice
_CALLER: Final = ((3, 1), (7, 1), (10, 2), (8, 1), (5, 1), (12, 3), (10, 1), (15, 2), (14, 1), (7, 3), (3, 4))
_CALLEE: Final = ((-5, 3), (-2, 1), (-9, 2), (0, 1), (2, 1), (-4, 2), (-7, 1), (1, 4), (-12, 1), (-5, 4))
_EIGHTH_S: Final = 0.25


def caller_sample() -> Pcm:
    """A melody of 5 s."""
    return _melody(_CALLER)


def callee_sample() -> Pcm:
    """Another melody of 5 s, lower, that has no likeness to the first."""
    return _melody(_CALLEE)


def tone(hertz: float, seconds: float) -> Pcm:
    """A steady sine."""
    time = np.arange(round(seconds * SAMPLE_HZ)) / SAMPLE_HZ
    return (_LEVEL * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def mailbox_tone() -> Pcm:
    """What a caller hears when a mailbox takes her call, made at her own end: 0.4 s."""
    return tone(1000, 0.4)


def _melody(notes: tuple[tuple[int, int], ...]) -> Pcm:
    return np.concatenate([_note(440 * 2 ** (semitones / 12), eighths) for semitones, eighths in notes])


def _note(hertz: float, eighths: int) -> Pcm:
    """A plucked string: harmonics that fade the faster the higher they are."""
    time = np.arange(round(eighths * _EIGHTH_S * SAMPLE_HZ)) / SAMPLE_HZ
    sound = np.zeros(time.size)
    for number in range(1, _HARMONICS + 1):
        if number * hertz < SAMPLE_HZ / 2:
            fading = np.exp(-time * (1.5 + number))
            sound += np.sin(2 * np.pi * number * hertz * time) * fading / number
    attack = np.minimum(1.0, time / 0.005)
    return (_LEVEL * attack * sound / 1.6).astype(np.int16)
