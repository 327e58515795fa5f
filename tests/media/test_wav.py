"""Sound files in and out."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from media.likeness import likeness
from media.pcm import SAMPLE_HZ
from media.samples import caller_sample, tone
from media.wav import READ_S_MAX, SoundUnreadable, read_sound, write_wav


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", caller_sample())
    assert np.array_equal(read_sound(tmp_path / "a.wav"), caller_sample())
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 2), (16_000, 1), (44_100, 2), (48_000, 1)])
def test_other_rates_and_channels_are_brought_to_ours(tmp_path: Path, rate: int, channels: int) -> None:
    time = np.arange(2 * rate) / rate
    chirp = (9_000 * np.sin(2 * np.pi * (300 + 400 * time) * time)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(chirp, channels).tobytes())
    ours = np.arange(2 * SAMPLE_HZ) / SAMPLE_HZ
    expected = (9_000 * np.sin(2 * np.pi * (300 + 400 * ours) * ours)).astype(np.int16)
    read = read_sound(tmp_path / "a.wav")
    assert abs(read.size - expected.size) <= 32
    assert likeness(read, expected) > 0.99


def test_flac_is_read_too(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.flac"), "w") as container:
        stream = container.add_stream("flac", rate=SAMPLE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(caller_sample()[np.newaxis, :4096], "s16", "mono")
        frame.sample_rate = SAMPLE_HZ
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert np.array_equal(read_sound(tmp_path / "a.flac"), caller_sample()[:4096])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "not a sound file"),
        (b"this is a letter, not a sound\n" * 50, "not a sound file"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "sound"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a sound file"),  # a playlist opens other files
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a sound file"),
    ],
)
def test_what_is_missing_or_no_sound_is_told(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(SoundUnreadable, match=words):
        read_sound(tmp_path / "a.wav")


def test_a_directory_and_an_empty_wav_are_told(tmp_path: Path) -> None:
    with pytest.raises(SoundUnreadable, match="directory"):
        read_sound(tmp_path)
    write_wav(tmp_path / "empty.wav", np.zeros(0, np.int16))
    with pytest.raises(SoundUnreadable):
        read_sound(tmp_path / "empty.wav")


def test_a_sound_that_is_too_long_is_told(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.resize(tone(300, 1), (READ_S_MAX + 1) * SAMPLE_HZ))
    with pytest.raises(SoundUnreadable, match="longer than"):
        read_sound(tmp_path / "a.wav")
