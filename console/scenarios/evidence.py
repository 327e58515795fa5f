"""What all scenarios of `otway demo` have in common: who could decrypt what, by trying; and what is kept.

scenario = CallDemo(...) ; outcome = await scenario.run() ; lines = account of the outcome
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from chaos.eavesdropping import can_decrypt
from media.pcm import SAMPLE_HZ, Pcm
from media.wav import write_wav
from protocol.secret import Secret

HEARD_WELL: Final = 0.9
NOT_HEARD: Final = 0.1
SOUNDS_ALIKE: Final = 0.7  # by spectrum: other sounds stay below 0.3, a shift or a short gap costs little
WRONG: Final = "NOT AS IT SHOULD BE: "
NOTES: Final = {
    "bsf": "no K, but Ks, from which K_x follows: with the recorded grants it could",
    "cscf": "tried all that passed it",
    "wiretap": "has the packets and no key",
}
"""Of parties that should decrypt nothing, in any scenario."""
_PARTY_WIDTH: Final = 24
_VOICE_WIDTH: Final = 17


@dataclass(frozen=True, slots=True)
class Voice:
    """What a wiretap caught of one speaker, and what a receiver must know besides the key to open it."""

    packets: Sequence[bytes]
    sender: str  # identities
    receiver: str


class Access(msgspec.Struct, frozen=True):
    """Which voices a party could decrypt, with all that it holds."""

    party: str
    voices: dict[str, bool]
    note: str = ""


def tried(
    held: Mapping[str, Iterable[Secret]], voices: Mapping[str, Voice], notes: Mapping[str, str]
) -> list[Access]:
    """Every party tries every secret that it holds on every voice. held, notes: by party."""
    return [
        Access(
            party,
            {
                name: can_decrypt(roots, voice.packets, sender=voice.sender, receiver=voice.receiver)
                for name, voice in voices.items()
            },
            notes.get(party, ""),
        )
        for party, roots in ((party, list(secrets)) for party, secrets in held.items())
    ]


def table(access: Sequence[Access]) -> list[str]:
    """The attempts as lines, a column for each voice."""
    cells = [
        (each.party, {name: "yes" if could else "no" for name, could in each.voices.items()}, each.note)
        for each in access
    ]
    return rows("who can decrypt", cells, "(each tried with all that it holds)", width=_VOICE_WIDTH)


def rows(
    head: str, cells: Sequence[tuple[str, Mapping[str, str], str]], remark: str, *, width: int = 0
) -> list[str]:
    """A table as lines. cells: of each party its name, what stands in each column, and a note. width: of a
    column; 0: as its name needs."""
    if not cells:
        return []
    widths = {column: width or len(column) + 3 for column in cells[0][1]}
    named = "".join(f"{column:{wide}}" for column, wide in widths.items())
    lines = [f"{head.ljust(_PARTY_WIDTH)}{named}{remark}"]
    for party, said, note in cells:
        row = "".join(f"{said[column]:{wide}}" for column, wide in widths.items())
        lines.append(f"  {party:{_PARTY_WIDTH - 2}}{row}{note}".rstrip())
    return lines


def failed(verdicts: Mapping[str, bool]) -> list[str]:
    """What is to be told. verdicts: by what is wrong where one is false."""
    return [WRONG + wrong for wrong, holds in verdicts.items() if not holds]


def lasting(sound: Pcm, seconds: float) -> Pcm:
    """The sound again and again, for at least so long."""
    return np.tile(sound, -(-int(seconds * SAMPLE_HZ) // max(1, sound.size)))


def keep(directory: Path, name: str, outcome: msgspec.Struct, lines: Sequence[str]) -> None:
    """Write ladder.txt and <name>.json. Raises OSError."""
    (directory / "ladder.txt").write_text("\n".join(lines) + "\n")
    octets = msgspec.json.format(msgspec.json.encode(outcome))
    (directory / f"{name}.json").write_bytes(octets + b"\n")


def keep_sounds(directory: Path, heard: Mapping[str, Pcm]) -> None:
    """Write <name>-heard.wav for each. Raises OSError."""
    for name, pcm in heard.items():
        write_wav(directory / f"{name}-heard.wav", pcm)
