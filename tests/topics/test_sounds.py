"""A sound that is taken apart comes together again, whatever happens to its parts on the way."""

from __future__ import annotations

import random

import pytest

from protocol.limits import MESSAGE_OCTETS_MAX, SOUND_PART_OCTETS, SOUND_PARTS_MAX
from topics.codec import decode, encode
from topics.messages import Sound, SoundUse
from topics.sounds import Gathering, take_apart

ABOUT = bytes(range(16))


@pytest.mark.parametrize("octets", [0, 2, SOUND_PART_OCTETS, SOUND_PART_OCTETS + 2, 5 * SOUND_PART_OCTETS])
def test_what_is_taken_apart_comes_together(octets: int) -> None:
    draw = random.Random(octets)
    samples = draw.randbytes(octets)
    parts = list(take_apart(SoundUse.HEARD, ABOUT, samples, "alice-1@ims.example"))
    assert all(len(encode(part)) <= MESSAGE_OCTETS_MAX for part in parts)
    gathering, whole = Gathering(), []
    draw.shuffle(parts)
    for part in (*parts[:-1], *parts[:-1], parts[-1]):  # the first ones twice
        message = decode(encode(part))
        assert isinstance(message, Sound)
        whole.append(gathering.add(message))
    assert whole[-1] == samples
    assert set(whole[:-1]) <= {None}


def test_what_is_too_long_is_cut() -> None:
    parts = list(take_apart(SoundUse.SAY, ABOUT, bytes(SOUND_PART_OCTETS * (SOUND_PARTS_MAX + 3))))
    assert len(parts) == SOUND_PARTS_MAX


def test_half_a_sample_is_left_out() -> None:
    [part] = take_apart(SoundUse.SAY, ABOUT, b"abc")
    assert Gathering().add(part) == b"ab"


def test_who_never_ends_does_not_fill_the_memory() -> None:
    gathering = Gathering()
    for number in range(1000):
        begun = Sound(use=SoundUse.SAY, about=number.to_bytes(16, "big"), part=0, parts=2, samples=b"ab")
        assert gathering.add(begun) is None
    assert len(gathering._parts) < 10
