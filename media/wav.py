"""Sound files: any that PyAV can read in, WAV out."""

from __future__ import annotations

import wave
from itertools import chain
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from media.pcm import SAMPLE_HZ, Pcm

READ_S_MAX: Final = 600  # ten minutes are 10 MB in memory
_FORMATS: Final = "wav,w64,aiff,au,flac,mp3,ogg,matroska,webm"  # no playlists: they open other files


class SoundUnreadable(Exception):  # noqa: N818
    """A file that is missing, no sound, or too long. Its text says which, for the user."""


def read_sound(path: Path) -> Pcm:
    """The file's first sound track at 8 kHz, mono, whatever rate and channels it has.

    Raises SoundUnreadable. Blocks for as long as the file takes to decode.
    """
    try:
        with path.open("rb") as file, av.open(file, "r", options={"format_whitelist": _FORMATS}) as container:
            if not container.streams.audio:
                raise SoundUnreadable(f"{path}: no sound in it")
            parts = _decoded(container, path)
    except FFmpegError as error:
        raise SoundUnreadable(f"{path}: not a sound file ({error.strerror})") from None
    except OSError as error:
        raise SoundUnreadable(f"{path}: {error.strerror}") from None
    if not parts:
        raise SoundUnreadable(f"{path}: no sound in it")
    return np.concatenate(parts)


def write_wav(path: Path, pcm: Pcm) -> None:
    """8 kHz, mono, 16 bits. Raises OSError."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_HZ)
        file.writeframes(pcm.astype("<i2").tobytes())


def _decoded(container: InputContainer, path: Path) -> list[Pcm]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_HZ)
    parts: list[Pcm] = []
    samples = 0
    for frame in chain(container.decode(audio=0), (None,)):  # None flushes what the resampler holds back
        for resampled in resampler.resample(frame):
            parts.append(resampled.to_ndarray()[0])
            samples += parts[-1].size
            if samples > READ_S_MAX * SAMPLE_HZ:
                raise SoundUnreadable(f"{path}: longer than {READ_S_MAX} s")
    return parts
