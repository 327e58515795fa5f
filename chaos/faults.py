"""How bad it is in a simulated world, what happens there, and who plays in it."""

from __future__ import annotations

import random as seeded
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from agents.conference import Focus, FocusSettings
from agents.decision import Agent
from agents.mailbox.stored_message import VoicemailSettings
from agents.runtime import Loop
from agents.transcoder import Transcoder, TranscoderSettings
from agents.voicemail import Voicemail
from protocol.limits import LIFE_S
from protocol.profile import HARDENED, Profile


class Revoked(StrEnum):
    """What an operator revokes while calls go on."""

    NOTHING = "nothing"
    KEY = "key"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad it is, while it lasts."""

    drop: float = 0.0
    """Chance that a record is lost."""
    duplicate: float = 0.0
    """Chance that it comes twice."""
    delay_s: float = 0.0
    """The longest delay; records of different delays overtake each other."""
    forge: float = 0.0
    """Chance that a confused KMS answers a request first, wrongly, under the right keys."""
    splice: float = 0.0
    """Chance that an outsider adds a record, spliced from those that it has seen."""
    crashes: int = 0
    """How many times a party dies."""
    insider: float = 0.0
    """Chance that a corrupt device of the callee tries something when another asks the KMS."""
    calls: int = 1
    """How many calls are dialled."""
    away: bool = False
    """Whether a user's devices are off for a while, so that messages are left."""
    keep_s: int = 7 * 86_400
    """How long the mailbox keeps a message."""
    life_s: int = LIFE_S
    """How long K of a call lives without renewal."""
    foreign: bool = False
    """Whether the last user shares no codec with the others, so that a transcoder comes between."""
    conference: bool = False
    """Whether there is a conference."""
    revoke: Revoked = Revoked.NOTHING
    """What is revoked."""

    @staticmethod
    def drawn(seed: int) -> Faults:
        """The faults of a seed: one in eight seeds has none, so that the plain way is walked too."""
        chance = seeded.Random(f"faults {seed}")
        if chance.random() < 0.125:
            return _busier(seed, Faults(calls=chance.randint(1, 3), away=chance.random() < 0.5))
        drawn = Faults(
            drop=chance.choice((0.0, 0.02, 0.1, 0.3)),
            duplicate=chance.choice((0.0, 0.1, 0.3)),
            delay_s=chance.choice((0.0, 0.05, 2.0, 8.0)),
            forge=chance.choice((0.0, 0.0, 0.2)),
            splice=chance.choice((0.0, 0.0, 0.5)),
            crashes=chance.choice((0, 1, 2, 4)),
            insider=chance.choice((0.0, 0.0, 0.5)),
            calls=chance.randint(1, 3),
            away=chance.random() < 0.5,
            keep_s=chance.choice((120, 7 * 86_400)),
        )
        return _busier(seed, drawn)


def _busier(seed: int, faults: Faults) -> Faults:
    """Some seeds have more than calls and messages."""
    chance = seeded.Random(f"events {seed}")
    foreign = chance.random() < 0.3
    return replace(
        faults,
        life_s=chance.choice((LIFE_S, LIFE_S, LIFE_S, 200, 60)),
        foreign=foreign,
        conference=chance.random() < 0.25,
        revoke=chance.choice(
            (*[Revoked.NOTHING] * 5, Revoked.KEY, Revoked.RELEASE if foreign else Revoked.KEY)
        ),
    )


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays; a mutant takes one of the parts to show that the invariants notice."""

    kms: Callable[[], Agent] | None = None
    """None: the honest one, with the faults' life_s."""
    ue_profile: Profile = HARDENED
    kms_loop: type[Loop] = Loop
    voicemail: Callable[[VoicemailSettings], Agent] = Voicemail
    transcoder: Callable[[TranscoderSettings], Agent] = Transcoder
    focus: Callable[[FocusSettings], Agent] = Focus
