"""The two legs while they flow: opened under their leg keys, told of to both ends, and closed.

    3  KMS -> T          grant_t, notice_a, notice_b
    4  T -> CSCF -> A, B NOTICE, with the address of its leg and the codec that is spoken there

An end shows by its media that it has the notice. Until then it may be lost, and is repeated a few times, the
same octets; a device that has taken it minds no repeat.
"""

from __future__ import annotations

import msgspec

from agents.decision import NOTHING, Decision
from agents.legs.transcoded_call import (
    REPEAT_S,
    TranscoderSettings,
    about,
    codecs_of,
    held,
    holder,
    keep,
    put_lines,
    repeated,
    session_of,
    to_cscf,
)
from media.leg import Leg, OpenMedia, RenewMedia
from protocol.checks import Refused
from protocol.description import Flow, SrtpSuite, read_description
from protocol.evidence import LegGrant
from protocol.limits import LIFE_S, SKEW_S
from protocol.names import NoticeKind, Role
from protocol.transcoding import open_leg_grant
from storage.transcoder_records import Legs, LegsState, TranscoderLines
from topics.messages import Notice, ReleaseResponse

_MEDIA_LINE = 0  # one audio line
_TURNED = {Flow.SENDONLY: Flow.RECVONLY, Flow.RECVONLY: Flow.SENDONLY, Flow.SENDRECV: Flow.SENDRECV}


def granted(
    settings: TranscoderSettings, legs: Legs, lines: TranscoderLines, response: ReleaseResponse, now: int
) -> Decision:
    """grant_t: media on both legs, and a notice to both ends. One that does not verify changes nothing.

    Legs that are open already go on under the new keys: each speaks under its own once its end does.
    """
    try:
        grant = open_leg_grant(
            holder(settings),
            legs.run,
            legs.fork,
            settings.identity,
            response.grant_t,
            token_t=legs.token_t,
            nonce=legs.nonce,
            now=now,
        )  # OR-20 to OR-23
    except Refused:
        return NOTHING
    if legs.state is LegsState.RUNNING:  # a repeat of what was dealt with
        return Decision(media=_media(settings, legs, grant, legs.until - now)) + say_notices(settings, legs)
    until = min(grant.not_after, now + grant.not_after - grant.now)  # by whichever clock ends first
    running = msgspec.structs.replace(
        legs,
        state=LegsState.RUNNING,
        notice_a=response.notice_a,
        notice_b=response.notice_b,
        until=until,
        repeats=0,
        repeat_at=now + REPEAT_S,
        give_up_at=until,
    )
    in_use = put_lines(settings, held(lines, legs.bridge, until + SKEW_S), now)
    return (
        keep(running, now)
        + Decision(puts=(in_use,), media=_media(settings, legs, grant, until - now))
        + say_notices(settings, running)
    )


def tell_again(settings: TranscoderSettings, legs: Legs, now: int) -> Decision:
    """The notices once more."""
    return keep(repeated(legs, now), now) + say_notices(settings, legs)


def say_notices(settings: TranscoderSettings, legs: Legs) -> Decision:
    """Both notices, the same octets each time."""
    codecs = codecs_of(settings, legs.offer, legs.answer)
    assert codecs is not None  # nothing else is asked for
    told = NOTHING
    sides = (Role.CALLER, Role.CALLEE)
    for whom, codec, line, sealed in zip(
        sides, codecs, legs.lines, (legs.notice_a, legs.notice_b), strict=True
    ):
        told += to_cscf(
            Notice(
                fork=legs.fork,
                transcoder=settings.identity,
                kind=NoticeKind.LEG,
                whom=whom,
                sealed=sealed,
                media=settings.lines[line],
                codec=codec,
                **about(legs),
            )
        )
    return told


def _media(
    settings: TranscoderSettings, legs: Legs, grant: LegGrant, lifetime_s: int
) -> tuple[OpenMedia | RenewMedia, ...]:
    """Towards A this is the answering side, towards B the offering one."""
    codecs = codecs_of(settings, legs.offer, legs.answer)
    assert codecs is not None
    assert legs.media_a is not None
    assert legs.media_b is not None
    chosen, run = read_description(legs.answer), legs.run
    made: list[OpenMedia | RenewMedia] = []
    for side, root, codec, line, remote, address, flow in (
        (Role.CALLER, grant.leg_a, codecs[0], legs.lines[0], run.caller, legs.media_a, chosen.flow),
        (Role.CALLEE, grant.leg_b, codecs[1], legs.lines[1], run.callee, legs.media_b, _TURNED[chosen.flow]),
    ):
        leg = Leg(
            session=session_of(legs, side),
            line=line,
            root=root,
            suite=SrtpSuite(chosen.srtp_suites[0]),
            codec=codec,
            local=settings.identity,
            remote=remote,
            remote_address=address,
            media_line=_MEDIA_LINE,
            n=run.n,
            flow=flow,
            lifetime_s=min(LIFE_S, lifetime_s),
            bridge=legs.bridge,
        )
        made.append(OpenMedia(leg) if legs.state is LegsState.ASKING else RenewMedia(leg))
    return tuple(made)
