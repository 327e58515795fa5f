"""Notices of the KMS to one end of a call (section 7): a transcoder is there, or a key is not good any more.

    T   -> CSCF -> A, B   NOTICE   leg      use L_x towards the transcoder at this address
    KMS -> CSCF -> A, B   NOTICE   renew    the leg stops, A renews
                                   end      the run ends
    T   -> CSCF -> A, B   NO-LEGS  a hint: nobody will come between

What is sealed rules; the address and the codec of a leg are the network's word, as addresses are everywhere.
Between two ends that share no codec no media goes under K: each waits for a leg, and not for long.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.decision import NOTHING, Decision
from agents.handset import hanging_up, renewing
from agents.handset.ue_call import (
    GIVE_UP_S,
    Terms,
    keep,
    leg_of,
    needs_transcoder,
    own_holder,
    report,
)
from media.leg import CloseMedia, OpenMedia, RenewMedia
from protocol.checks import Check, RefusalCode, Refused
from protocol.description import read_description
from protocol.evidence import Notice as NoticeBody
from protocol.names import NoticeKind, Role
from protocol.sealing import Random
from protocol.transcoding import leg_key, open_notice
from storage.ue_records import CallState, Handset, Lines, UeCall
from topics.messages import NoLegs, Notice, ReportEvent

TAKEOVER_S: Final = 20  # a leg that is silent waits so long for another instance of the transcoder


def take(
    terms: Terms,
    call: UeCall,
    handset: Handset,
    lines: Lines | None,
    notice: Notice,
    now: int,
    random: Random,
) -> Decision:
    """A notice. One that is not valid, or not allowed now, changes nothing; nor does a repeat of the last."""
    if terms.profile.lab_only:  # the ten steps have none
        return NOTHING
    try:
        opened = _opened(call, notice)
        if opened.serial == call.notice_serial:
            return NOTHING
        _allow(call, notice, opened)
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    taken = msgspec.structs.replace(call, notice_serial=opened.serial)
    match opened.kind:
        case NoticeKind.LEG:
            return _use_leg(taken, notice, now)
        case NoticeKind.RENEW:
            return _stop_leg(terms, taken, handset, now, random)
        case NoticeKind.END:
            return hanging_up.hang_up(terms, taken, lines, "revoked", now)


def of_renewal(
    terms: Terms, call: UeCall, renewal: UeCall | None, lines: Lines | None, notice: Notice, now: int
) -> Decision:
    """A notice of the run that is to take this one's place: its key was destroyed. The other end may speak
    under it already, and the KMS goes on from no run that has ended: so the call ends as well."""
    if renewal is None:
        return NOTHING
    try:
        opened = _opened(msgspec.structs.replace(renewal, fork=call.fork), notice)
        if opened.kind is not NoticeKind.END:  # OR-27: nothing flows under it yet
            raise Refused(Check.OR_27, RefusalCode.NOT_PERMITTED)
    except Refused as refused:
        return report(renewal, ReportEvent.REFUSED, now, refused=refused)
    return hanging_up.hang_up(terms, call, lines, "revoked", now)


def no_legs(terms: Terms, call: UeCall, lines: Lines | None, message: NoLegs, now: int) -> Decision:
    """There will be no transcoder: a call without media ends."""
    if call.media_open or message.fork != call.fork or not needs_transcoder(call):
        return NOTHING
    return hanging_up.hang_up(terms, call, lines, "no-transcoder", now)


def silent(terms: Terms, call: UeCall, lines: Lines | None, now: int) -> Decision:
    """Nothing authentic has come for a while: the peer is gone, or the transcoder between; another instance
    of it may send a notice soon."""
    if call.transcoder and call.state is CallState.UP:
        return keep(msgspec.structs.replace(call, leg_by=now + TAKEOVER_S), now)
    return hanging_up.hang_up(terms, call, lines, "silent", now)


def _opened(call: UeCall, notice: Notice) -> NoticeBody:
    """What is sealed in it; of the last serial taken, or a later one. Raises Refused(OR-27)."""
    return open_notice(
        own_holder(call),
        call.run,
        _own_identity(call),
        notice.sealed,
        fork=call.fork or None,
        transcoder=notice.transcoder,
        nonce=call.nonce,
        serial_taken=call.notice_serial - 1,
    )  # OR-27


def _allow(call: UeCall, notice: Notice, opened: NoticeBody) -> None:
    """Whether this kind has a meaning now. Raises Refused(OR-27)."""
    match opened.kind:
        case NoticeKind.LEG:
            described = read_description(call.offer if call.role is Role.CALLER else call.answer)
            allowed = (
                call.state is CallState.UP
                and needs_transcoder(call)
                and opened.transcoder is not None
                and notice.media is not None
                and notice.codec in described.codecs
            )
        case NoticeKind.RENEW:
            allowed = call.state is CallState.UP and needs_transcoder(call)
        case NoticeKind.END:
            allowed = True
    if not allowed:  # OR-27
        raise Refused(Check.OR_27, RefusalCode.NOT_PERMITTED)


def _use_leg(call: UeCall, notice: Notice, now: int) -> Decision:
    """Media under the leg key; or on under another one, or at another address, when it flows already."""
    assert call.key is not None
    assert notice.transcoder is not None
    assert notice.media is not None
    assert notice.codec is not None
    leg = msgspec.structs.replace(
        leg_of(call, now),
        root=leg_key(call.key, call.run, call.fork, notice.transcoder, _own_identity(call)),
        codec=notice.codec,
        remote=notice.transcoder,
        remote_address=notice.media,
    )
    talking = msgspec.structs.replace(call, transcoder=notice.transcoder, media_open=True, leg_by=0)
    media = RenewMedia(leg, speak_within_s=0) if call.media_open else OpenMedia(leg)
    told = report(talking, ReportEvent.TRANSCODED, now)
    return keep(talking, now) + Decision(media=(media,)) + told


def _stop_leg(terms: Terms, call: UeCall, handset: Handset, now: int, random: Random) -> Decision:
    """The leg key is not good any more: silence, until the caller has renewed and a new leg is there."""
    quiet = msgspec.structs.replace(call, media_open=False, leg_by=now + GIVE_UP_S)
    asked = renewing.begin(terms, quiet, handset, now, random)
    return asked + Decision(media=(CloseMedia(call.session),))


def _own_identity(call: UeCall) -> str:
    return call.run.caller if call.role is Role.CALLER else call.run.callee
