"""A sound as messages: a second of it in each, since a message on the bus is small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from protocol.limits import SOUND_PART_OCTETS, SOUND_PARTS_MAX
from topics.messages import Sound, SoundUse

_SOUNDS_AT_A_TIME: Final = 8  # that have begun and are not whole yet


def take_apart(use: SoundUse, about: bytes, samples: bytes, device: str | None = None) -> Iterator[Sound]:
    """The messages of a sound, one at least. samples: 16 bits each, little-endian, 8 kHz; what is longer than
    SOUND_PARTS_MAX seconds is cut."""
    pieces = [samples[at : at + SOUND_PART_OCTETS] for at in range(0, len(samples), SOUND_PART_OCTETS)]
    pieces = pieces[:SOUND_PARTS_MAX] or [b""]
    for part, piece in enumerate(pieces):
        yield Sound(use=use, about=about, device=device, part=part, parts=len(pieces), samples=piece)


class Gathering:
    """Puts sounds together again, whatever order their parts come in, and however often."""

    def __init__(self) -> None:
        self._parts: dict[tuple[SoundUse, bytes, str | None], dict[int, bytes]] = {}

    def add(self, sound: Sound) -> bytes | None:
        """The samples of the whole sound, once this part makes it whole; of half a sample nothing."""
        key = (sound.use, sound.about, sound.device)
        if key not in self._parts and len(self._parts) >= _SOUNDS_AT_A_TIME:
            self._parts.pop(next(iter(self._parts)))  # the oldest was given up by its sender
        parts = self._parts.setdefault(key, {})
        parts[sound.part] = sound.samples
        if len(parts) < sound.parts:
            return None
        del self._parts[key]
        whole = b"".join(parts[number] for number in sorted(parts))
        return whole[: len(whole) & ~1]
