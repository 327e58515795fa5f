"""The caller: A in the exchange.

1  A -> B    INVITE   C, n, ID-A, ID-B, KID-A, suite, offer, token_a
4  B -> A    200 OK   C, n, F, Nb, answer, grant_a, confirm_b
5  A -> B    ACK      C, n, F, confirm_a
   A -> KMS  SETTLED  C, n, ID-A, ID-B, KID-A, suite, sealed

Several devices may ring: the first valid 200 OK wins, a later one gets BYE. When none answers, a mailbox may:
agents/handset/leaving.py.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.decision import NOTHING, Decision, Put, Send
from agents.handset.ue_call import (
    GIVE_UP_S,
    REPEAT_S,
    Terms,
    about,
    contact_of,
    end,
    keep,
    needs_transcoder,
    open_media,
    own_holder,
    report,
    session_of,
    take_line,
    to_cscf,
    transcript_of,
    up_without_media,
    with_grant,
    with_token,
)
from protocol.checks import Check, Refused
from protocol.description import (
    BodyMalformed,
    Description,
    Flow,
    NothingInCommon,
    accept_answer,
    accept_transcoded_answer,
    read_description,
)
from protocol.limits import RENEW_S, RING_S
from protocol.names import Permit, Role, Run
from protocol.sealing import Random
from protocol.sharding import call_key
from storage.ue_records import CallState, Handset, Lines, UeCall
from topics.catalogue import KMS, REPORTS
from topics.messages import (
    Ack,
    Bye,
    Cancel,
    Cancelled,
    Decline,
    DeclineReason,
    Dial,
    Invite,
    OfRun,
    Ok,
    Report,
    ReportEvent,
    Ringing,
    Settled,
    SettledOk,
)

DIALLED_KEPT: Final = 64


def dial(
    terms: Terms, dial: Dial, handset: Handset, lines: Lines | None, now: int, random: Random
) -> Decision:
    """A new call, unless this wish was dealt with, or there is no key or no free line."""
    if any(request == dial.request for request, _ in handset.dialled):
        return NOTHING
    call_id = random(16)
    session = session_of(handset.impi, handset.identity, call_id)
    line = take_line(lines, session, len(terms.settings.lines))
    problem = None
    if handset.key is None or not handset.key.attached:
        problem = DeclineReason.NO_KEY
    elif line is None:
        problem = DeclineReason.BUSY
    if problem is not None or handset.key is None or line is None:
        refused = Report(
            event=ReportEvent.ENDED,
            device=handset.impi,
            at=now,
            caller=handset.identity,
            callee=dial.callee,
            request=dial.request,
            reason=problem,
        )
        return Decision(sends=(Send(REPORTS, handset.impi, refused),))
    settings = terms.settings
    run = Run(call=call_id, n=0, caller=handset.identity, callee=dial.callee, suite=settings.suite)
    nonce = random(16)
    offer = Description(tuple(settings.srtp_suites), settings.codecs, Flow.SENDRECV).octets
    call = UeCall(
        session=session,
        device=handset.impi,
        role=Role.CALLER,
        run=run,
        state=CallState.CALLING,
        line=line[0],
        started=now,
        own_key_id=handset.key.key_id,
        own_key=handset.key.key,
        peer_key_id="",
        token=b"",
        nonce=nonce,
        offer=offer,
        token_a=b"",
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
        request=dial.request,
        sound=dial.sound,
    )
    call = with_token(terms, call, now, random)
    dialled = (*handset.dialled, (dial.request, session))[-DIALLED_KEPT:]
    return (
        keep(call, now)
        + Decision(
            puts=(
                Put(Handset.key_for(handset.impi), msgspec.structs.replace(handset, dialled=dialled)),
                Put(Lines.key(), line[1]),
            )
        )
        + invite(terms, call)
        + report(call, ReportEvent.CALLING, now)
    )


def take(
    terms: Terms, call: UeCall, lines: Lines | None, message: OfRun, now: int, random: Random
) -> Decision:
    """A message of the exchange for the caller, in a state that expects it."""
    match message:
        case Ringing():
            called = msgspec.structs.replace(
                call, state=CallState.CALLED, give_up_at=max(call.give_up_at, call.started + RING_S)
            )
            return keep(called, now) + report(called, ReportEvent.RINGING, now)
        case Ok() if call.state in {CallState.CALLING, CallState.CALLED}:
            return _answered(terms, call, message, now, random)
        case Ok() if message.fork != call.fork:
            return _too_late(terms, call, message, now)
        case Ok() if call.state is CallState.UP:
            return ack(terms, call)
        case SettledOk():
            hanging_up = call.state is CallState.HANGING_UP  # BYE is still repeated
            quiet = call.repeat_at if hanging_up else max(call.give_up_at, call.repeat_at)
            return keep(msgspec.structs.replace(call, settled=b"", repeat_at=quiet), now)
        case Decline():
            return end(call, lines, message.reason, now)
        case Cancelled():
            return end(call, lines, "cancelled", now)
        case _:
            return NOTHING


def repeat(terms: Terms, call: UeCall) -> Decision:
    """What the caller sends again, since it was not answered."""
    match call.state:
        case CallState.CALLING | CallState.CALLED:
            return invite(terms, call)
        case CallState.CANCELLING:
            return to_cscf(call, Cancel(**about(call)))
        case CallState.UP | CallState.LEAVING | CallState.ENDED if call.settled:
            return tell_settled(terms, call)
        case _:
            return NOTHING


def cancel(call: UeCall, now: int, reason: str) -> Decision:
    """The caller no longer wants the call that is not up yet."""
    cancelling = msgspec.structs.replace(
        call,
        state=CallState.CANCELLING,
        reason=reason,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    return keep(cancelling, now) + to_cscf(call, Cancel(**about(call)))


def _answered(terms: Terms, call: UeCall, ok: Ok, now: int, random: Random) -> Decision:
    """The 200 OK: up, when grant, answer and confirmation hold. One that does not changes nothing."""
    try:
        answered = verified(terms, call, ok, now)
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    up = msgspec.structs.replace(
        answered,
        state=CallState.UP,
        media_open=not needs_transcoder(answered),
        settled=settlement(terms, answered, random),
        repeat_at=now + REPEAT_S,
        give_up_at=answered.ends,
        renew_at=0 if terms.profile.lab_only else renew_at(answered, now),  # the ten steps renew nothing
    )
    up = up_without_media(up, now)
    return (
        keep(up, now)
        + ack(terms, up)
        + tell_settled(terms, up)
        + (open_media(up, now) if up.media_open else NOTHING)
        + report(up, ReportEvent.UP, now)
    )


def renew_at(call: UeCall, now: int) -> int:
    """When a caller that has K now asks for the next one: in time, if also the callee's clock is fast."""
    return call.ends - min(RENEW_S, (call.ends - now) // 2)


def verified(terms: Terms, call: UeCall, ok: Ok, now: int) -> UeCall:
    """The call as this 200 OK would have it. Raises Refused(OR-20 to OR-25)."""
    grant = terms.profile.open_grant(
        own_holder(call), call.run, ok.grant_a, token=call.token, nonce=call.nonce, fork=ok.fork, now=now
    )  # OR-20 to OR-24
    _accept(terms, call, ok.answer)
    answered = msgspec.structs.replace(
        with_grant(call, grant, now),
        answer=ok.answer,
        grant_a=ok.grant_a,
        nonce_b=ok.nonce_b,
        peer_media=ok.media,
    )
    terms.profile.verify_confirm(grant.key, Role.CALLEE, transcript_of(answered), ok.confirm_b)  # OR-25
    return answered


def _too_late(terms: Terms, call: UeCall, ok: Ok, now: int) -> Decision:
    """A valid 200 OK of another device, when one has been taken or the call is over: BYE, under the K of that
    fork, which is not kept."""
    try:
        late = verified(terms, call, ok, now)
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    assert late.key is not None
    proof = terms.profile.bye(late.key, Role.CALLER, late.run, late.fork)
    return to_cscf(call, Bye(fork=late.fork, by=Role.CALLER, proof=proof, **about(call)))


def settlement(terms: Terms, call: UeCall, random: Random) -> bytes:
    """The sealed part of SETTLED: whose answer this call has taken, a device's or the mailbox's."""
    return terms.profile.seal_settled(
        own_holder(call),
        call.run,
        token_a=call.token,
        nonce=call.nonce,
        fork=call.fork or None,
        random=random,
    )


def _accept(terms: Terms, call: UeCall, answer: bytes) -> None:
    """Raises Refused(OR-24) if it is no answer to our offer, nor one for a transcoder that is permitted."""
    offer = read_description(call.offer)
    try:
        accept_answer(offer, answer)
    except (BodyMalformed, NothingInCommon):
        if Permit.TRANSCODE not in terms.settings.permits or terms.profile.lab_only:  # OR-24
            raise Refused(Check.OR_24) from None
    else:
        return
    try:
        accept_transcoded_answer(offer, answer)
    except (BodyMalformed, NothingInCommon):  # OR-24
        raise Refused(Check.OR_24) from None


def invite(terms: Terms, call: UeCall) -> Decision:
    """The INVITE, the same octets each time."""
    message = Invite(
        caller_key=call.own_key_id,
        suite=call.run.suite,
        offer=call.offer,
        token_a=call.token,
        media=terms.settings.lines[call.line],
        sender=contact_of(call, terms),
        **about(call),
    )
    return to_cscf(call, message)


def ack(terms: Terms, call: UeCall) -> Decision:
    """The ACK, the same octets each time."""
    assert call.key is not None
    confirm_a = terms.profile.confirm(call.key, Role.CALLER, transcript_of(call))
    return to_cscf(call, Ack(fork=call.fork, confirm_a=confirm_a, **about(call)))


def tell_settled(terms: Terms, call: UeCall) -> Decision:
    """SETTLED on its way to the KMS."""
    settled = Settled(
        caller_key=call.own_key_id,
        suite=call.run.suite,
        sealed=call.settled,
        sender=contact_of(call, terms),
        **about(call),
    )
    return Decision(sends=(Send(KMS, call_key(call.run.caller, call.run.call), settled),))
