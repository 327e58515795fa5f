"""One call with a transcoder in it: what its handlers have in common to keep it, answer for it and end it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agents.alarms import LegsAlarm, StillBetween
from agents.decision import Decision, Put, Send, Wake
from media.leg import CloseMedia
from protocol.checks import RefusalCode
from protocol.description import BodyMalformed, SrtpSuite, read_description
from protocol.evidence import Holder
from protocol.limits import LIFE_S
from protocol.names import Role, Suite
from protocol.secret import Secret
from protocol.sharding import call_key
from protocol.transport import MediaAddress
from storage.transcoder_records import Legs, LegsState, TranscoderLines
from topics.catalogue import CSCF
from topics.messages import NoLegs, OfRun, clear

REPEAT_S: Final = 2  # what may be lost is sent again after so long, then after 4, 8 and 16 s
GIVE_UP_S: Final = 32  # and no longer than this
WATCH_S: Final = 2  # an instance looks so often whether a call of its partitions is another's
_STAY_MS: Final = 2_000  # and whether it still has a call of its own
_FORGET_S: Final = 64  # what is over is remembered so long
_REPEATS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscoderSettings:
    """Who this transcoder is, and what it can do."""

    identity: str
    """ID-T."""
    key_id: str
    """KID-T, whose owner is a transcoder to the KMS."""
    key: Secret
    """K_T, 32 octets. It is in no record."""
    instance: str
    """A name of this process that no other has had: whose media engine has a call."""
    lines: tuple[MediaAddress, ...]
    """The addresses of this process's media engine: two of them for each call."""
    codecs: tuple[str, ...] = ("PCMU", "PCMA", "G722", "opus")
    """RTP names of the codecs between which it can go."""
    suite: Suite = Suite.AES_256_GCM
    """The seals' suite between it and the KMS."""


def holder(settings: TranscoderSettings) -> Holder:
    """The transcoder with its own key."""
    return Holder(Role.TRANSCODER, settings.key_id, settings.key)


def session_of(legs: Legs, side: Role) -> str:
    """The name of one leg at the media engine. side: CALLER or CALLEE."""
    return f"{legs.bridge} {side}"


def bridge_of(session: str) -> str:
    """The bridge in a session's name."""
    return session.rpartition(" ")[0]


def call_of(session: str) -> tuple[str, bytes]:
    """ID-A and C in a session's name."""
    caller, _, call = session.partition(" ")[0].rpartition("/")
    return caller, bytes.fromhex(call)


def codecs_of(settings: TranscoderSettings, offer: bytes, answer: bytes) -> tuple[str, str] | None:
    """What is spoken with A, the first of her offer that this transcoder knows, and with B, what he chose.
    None where it cannot go between these two."""
    try:
        offered, answered = read_description(offer), read_description(answer)
    except BodyMalformed:
        return None
    codec_a = next((name for name in offered.codecs if name in settings.codecs), None)
    codec_b = answered.codecs[0]
    if codec_a is None or codec_b not in settings.codecs or answered.srtp_suites[0] not in set(SrtpSuite):
        return None
    return codec_a, codec_b


def about(legs: Legs) -> dict[str, Any]:
    """The fields that every message of the run has."""
    return clear(legs.run)


def keep(legs: Legs, now: int) -> Decision:
    """Remember the call, and look at it again soon."""
    run = legs.run
    expires = max(legs.give_up_at, legs.until) + LIFE_S
    return Decision(puts=(Put(Legs.key_for(run.caller, run.call), legs, expires),)) + watch(legs, now)


def watch(legs: Legs, now: int) -> Decision:
    """Look at the call again when something is due, and at least each WATCH_S while it is not over."""
    times = [legs.give_up_at]
    if legs.state is not LegsState.OVER:
        times.append(now + WATCH_S)
    if legs.repeat_at is not None:
        times.append(legs.repeat_at)
    return Decision(wakes=(_wake(legs, min(times)),))


def stay(legs: Legs, bridge: str) -> Decision:
    """This process looks whether the call under this bridge is still its own: whoever has taken its partition
    cannot close what is open here."""
    run = legs.run
    name = call_key(run.caller, run.call)
    alarm = StillBetween(run.caller, run.call, bridge)
    return Decision(wakes=(Wake(f"between {bridge}", name, None, alarm, _STAY_MS),))


def forget(legs: Legs) -> Decision:
    """It has been over for long enough."""
    key = Legs.key_for(legs.run.caller, legs.run.call)
    return Decision(puts=(Put(key, None),), wakes=(_wake(legs, None),))


def _wake(legs: Legs, at: int | None) -> Wake:
    run = legs.run
    name = call_key(run.caller, run.call)
    return Wake(f"legs {name}", name, at, LegsAlarm(run.caller, run.call))


def repeated(legs: Legs, now: int) -> Legs:
    """The call when what may be lost was sent once more."""
    repeats = legs.repeats + 1
    again_at = now + (REPEAT_S << repeats) if repeats < _REPEATS else None
    return msgspec.structs.replace(legs, repeats=repeats, repeat_at=again_at)


def to_cscf(message: OfRun) -> Decision:
    """On its way to one end, or both."""
    return Decision(sends=(Send(CSCF, call_key(message.caller, message.call), message),))


def no_legs(legs: Legs, code: RefusalCode) -> Decision:
    """Both ends hear that there will be no transcoder for this run."""
    return to_cscf(NoLegs(fork=legs.fork, code=code, **about(legs)))


def end(settings: TranscoderSettings, legs: Legs, lines: TranscoderLines, now: int) -> Decision:
    """The call is over here: its legs are closed, its lines free. What is remembered answers nothing."""
    over = msgspec.structs.replace(
        legs,
        state=LegsState.OVER,
        token_t=b"",
        notice_a=b"",
        notice_b=b"",
        repeat_at=None,
        give_up_at=now + _FORGET_S,
    )
    return keep(over, now) + Decision(
        puts=(put_lines(settings, freed(lines, legs.bridge), now),), media=close(legs.bridge)
    )


def close(bridge: str) -> tuple[CloseMedia, ...]:
    """Close both legs; what is not open is left alone."""
    return tuple(CloseMedia(f"{bridge} {side}") for side in (Role.CALLER, Role.CALLEE)) if bridge else ()


def take_lines(
    settings: TranscoderSettings, lines: TranscoderLines, bridge: str, until: int, now: int
) -> tuple[tuple[int, int], TranscoderLines] | None:
    """Two free lines of this process, and the lines with the bridge on them; None when too many are in use.
    until: when they are free again, though nobody says so."""
    users = list(lines.users or (None,) * len(settings.lines))
    free = [line for line, user in enumerate(users) if user is None or user[1] < now]
    if len(free) < 2:
        return None
    for line in free[:2]:
        users[line] = (bridge, until)
    return (free[0], free[1]), TranscoderLines(users=tuple(users))


def held(lines: TranscoderLines, bridge: str, until: int) -> TranscoderLines:
    """The lines, with those of this bridge in use until then."""
    return TranscoderLines(
        users=tuple((bridge, until) if user and user[0] == bridge else user for user in lines.users)
    )


def freed(lines: TranscoderLines, bridge: str) -> TranscoderLines:
    """The lines without this bridge."""
    return TranscoderLines(users=tuple(None if user and user[0] == bridge else user for user in lines.users))


def put_lines(settings: TranscoderSettings, lines: TranscoderLines, now: int) -> Put[TranscoderLines]:
    """Remember who has which line; no leg lasts as long as that."""
    return Put(TranscoderLines.key_for(settings.instance), lines, now + 2 * LIFE_S)
