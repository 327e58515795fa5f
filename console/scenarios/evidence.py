"""What all scenarios of `otway demo` have in common: who could decrypt what, by trying; and what is kept.

scenario = CallDemo(...) ; outcome = await scenario.run() ; lines = account of the outcome
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chaos.eavesdropping import can_decrypt
from media.pcm import Pcm
from media.wav import write_wav
from protocol.secret import Secret

HEARD_WELL: Final = 0.9
NOT_HEARD: Final = 0.1
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
    if not access:
        return []
    voices = list(access[0].voices)
    head = "who can decrypt".ljust(_PARTY_WIDTH) + "".join(f"{name:{_VOICE_WIDTH}}" for name in voices)
    lines = [f"{head}(each tried with all that it holds)"]
    for attempt in access:
        said = "".join(f"{'yes' if attempt.voices[name] else 'no':{_VOICE_WIDTH}}" for name in voices)
        lines.append(f"  {attempt.party:{_PARTY_WIDTH - 2}}{said}{attempt.note}".rstrip())
    return lines


def keep(directory: Path, name: str, outcome: msgspec.Struct, lines: Sequence[str]) -> None:
    """Write ladder.txt and <name>.json. Raises OSError."""
    (directory / "ladder.txt").write_text("\n".join(lines) + "\n")
    octets = msgspec.json.format(msgspec.json.encode(outcome))
    (directory / f"{name}.json").write_bytes(octets + b"\n")


def keep_sounds(directory: Path, heard: Mapping[str, Pcm]) -> None:
    """Write <name>-heard.wav for each. Raises OSError."""
    for name, pcm in heard.items():
        write_wav(directory / f"{name}-heard.wav", pcm)
