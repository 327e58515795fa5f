"""How a transcoder comes between two ends: call control says where, the KMS gives it two leg keys.

    1  CSCF -> T    INTERPOSE  C, n, F, ID-A, ID-B, offer, answer, both media addresses
    2  T -> KMS     RELEASE    C, n, F, ID-A, ID-B, ID-T, KID-T, suite, token_t
    3' KMS -> T     REFUSAL    `busy` before SETTLED: asked again
    4' T -> CSCF    NO-LEGS    for A and B

Lines are taken before the KMS is asked, so that nothing is released that could not be used. When none are
free the ends hear it at once: their call's partition is this process's, so that no other would help, and a
call without sound had better end. A KMS that does not answer for a later run is asked anew, with a fresh
token, while the legs of the run before flow.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.decision import NOTHING, Decision, Send
from agents.legs.transcoded_call import (
    GIVE_UP_S,
    REPEAT_S,
    TranscoderSettings,
    about,
    close,
    codecs_of,
    end,
    held,
    holder,
    keep,
    no_legs,
    put_lines,
    repeated,
    stay,
    take_lines,
    watch,
)
from protocol.checks import RefusalCode, Refused
from protocol.evidence import TranscoderToken
from protocol.limits import SKEW_S
from protocol.profile import HARDENED
from protocol.sealing import Random
from protocol.sharding import call_key
from protocol.transcoding import seal_transcoder_token
from storage.transcoder_records import Legs, LegsState, TranscoderLines
from topics.catalogue import KMS
from topics.messages import Interpose, Refusal, Release, run_of

_BUSY_S: Final = 1  # SETTLED is under way: asked again after so long
FLOWING: Final = frozenset({LegsState.RUNNING, LegsState.RENEWING})


def interposed(
    settings: TranscoderSettings,
    known: Legs | None,
    lines: TranscoderLines,
    message: Interpose,
    now: int,
    random: Random,
) -> Decision:
    """A run that needs a transcoder: ask the KMS, or say that there will be none."""
    if known is not None and message.run <= known.run.n:  # it is seen to, or was
        return NOTHING
    own = known is not None and known.instance == settings.instance and known.state is not LegsState.OVER
    fresh = Legs(run=run_of(message, settings.suite), fork=message.fork, state=LegsState.ASKING, give_up_at=0)
    legs = msgspec.structs.replace(
        known if own and known is not None else fresh,
        run=fresh.run,
        fork=fresh.fork,
        offer=message.offer,
        answer=message.answer,
        media_a=message.media_a,
        media_b=message.media_b,
    )
    if codecs_of(settings, message.offer, message.answer) is None:
        return end(settings, legs, lines, now) + no_legs(legs, RefusalCode.UNSUPPORTED)
    if own:
        state = LegsState.RENEWING if legs.state in FLOWING else LegsState.ASKING
        kept = held(lines, legs.bridge, max(legs.until + SKEW_S, now + 2 * GIVE_UP_S))
        keeping = Decision(puts=(put_lines(settings, kept, now),))
        return keeping + ask(settings, msgspec.structs.replace(legs, state=state), now, random)
    asked = _with_lines(settings, legs, lines, now, random)
    return asked or end(settings, legs, lines, now) + no_legs(legs, RefusalCode.BUSY)


def taken_over(
    settings: TranscoderSettings, legs: Legs, lines: TranscoderLines, now: int, random: Random
) -> Decision:
    """Another instance had this call, and its partition is this one's now: the same on own lines. Where none
    are free it waits for some: the call is under way, and its ends may still be patient."""
    taken = _with_lines(settings, legs, lines, now, random)
    return taken or watch(msgspec.structs.replace(legs, repeat_at=None), now)


def ask_again(settings: TranscoderSettings, legs: Legs, now: int) -> Decision:
    """No answer has come."""
    return keep(repeated(legs, now), now) + _say_release(settings, legs)


def refused(
    settings: TranscoderSettings, legs: Legs, lines: TranscoderLines, refusal: Refusal, now: int
) -> Decision:
    """A sealed refusal ends it, but for one that says to come again; any other is a hint."""
    if refusal.sealed is None:
        return NOTHING
    try:
        code = HARDENED.open_refusal(
            holder(settings), legs.run, refusal.sealed, token=legs.token_t, nonce=legs.nonce
        )  # OR-20, OR-21
    except Refused:
        return NOTHING
    if code in {RefusalCode.BUSY, RefusalCode.TOO_MANY}:
        return keep(msgspec.structs.replace(legs, repeat_at=now + _BUSY_S), now)
    return give_up(settings, legs, lines, code, now)


def give_up(
    settings: TranscoderSettings, legs: Legs, lines: TranscoderLines, code: RefusalCode, now: int
) -> Decision:
    """There are no leg keys for this run. Legs under those of the run before go on until they end."""
    if legs.state is LegsState.RENEWING and now < legs.until:
        back = msgspec.structs.replace(
            legs, state=LegsState.RUNNING, token_t=b"", repeat_at=None, give_up_at=legs.until
        )
        return keep(back, now) + no_legs(legs, code)
    return end(settings, legs, lines, now) + no_legs(legs, code)


def _with_lines(
    settings: TranscoderSettings, legs: Legs, lines: TranscoderLines, now: int, random: Random
) -> Decision | None:
    """Ask, with lines of this process taken; None when there are none."""
    bridge = f"{call_key(legs.run.caller, legs.run.call)} {random(8).hex()}"
    taken = take_lines(settings, lines, bridge, now + 2 * GIVE_UP_S, now)
    if taken is None:
        return None
    before = legs.bridge if legs.instance == settings.instance else ""
    asking = msgspec.structs.replace(
        legs,
        state=LegsState.ASKING,
        instance=settings.instance,
        bridge=bridge,
        lines=taken[0],
        until=0,
    )
    taking = Decision(puts=(put_lines(settings, taken[1], now),), media=close(before))
    return taking + stay(asking, bridge) + ask(settings, asking, now, random)


def ask(settings: TranscoderSettings, legs: Legs, now: int, random: Random) -> Decision:
    """RELEASE with a fresh token."""
    run, nonce = legs.run, random(16)
    token = TranscoderToken(
        call=run.call,
        n=run.n,
        fork=legs.fork,
        caller=run.caller,
        callee=run.callee,
        transcoder=settings.identity,
        nonce=nonce,
        time=now,
    )
    asking = msgspec.structs.replace(
        legs,
        token_t=seal_transcoder_token(holder(settings), run, token, random=random),
        nonce=nonce,
        repeats=0,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    return keep(asking, now) + _say_release(settings, asking)


def _say_release(settings: TranscoderSettings, legs: Legs) -> Decision:
    """The question to the KMS, the same octets each time."""
    release = Release(
        fork=legs.fork,
        transcoder=settings.identity,
        transcoder_key=settings.key_id,
        suite=legs.run.suite,
        token_t=legs.token_t,
        **about(legs),
    )
    return Decision(sends=(Send(KMS, call_key(legs.run.caller, legs.run.call), release),))
