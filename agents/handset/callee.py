"""The callee: B in the exchange.

    1  A   -> B    INVITE    C, n, ID-A, ID-B, KID-A, suite, offer, token_a
    2  B   -> KMS  REQUEST   C, n, ID-A, ID-B, KID-A, KID-B, suite, token_a, token_b
    3  KMS -> B    RESPONSE  C, n, F, grant_a, grant_b          or REFUSAL
    4  B   -> A    200 OK    C, n, F, Nb, answer, grant_a, confirm_b
    5  A   -> B    ACK       C, n, F, confirm_a

The user is called only after the KMS has granted K: a replayed INVITE rings nowhere.
"""

from __future__ import annotations

import msgspec

from agents.decision import NOTHING, Decision, Put, Send
from agents.handset.ue_call import (
    GIVE_UP_S,
    REPEAT_S,
    Terms,
    about,
    contact_of,
    device_of,
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
from protocol.checks import Check, RefusalCode, Refused
from protocol.description import (
    BodyMalformed,
    Description,
    NothingInCommon,
    answer_to,
    read_description,
    transcoded_answer_to,
)
from protocol.limits import RING_S
from protocol.names import Permit, Role
from protocol.sealing import Random
from protocol.sharding import call_key
from storage.ue_records import CallState, Handset, HandsetKey, Lines, UeCall
from topics.catalogue import CSCF, KMS
from topics.messages import (
    Ack,
    Cancel,
    Cancelled,
    Contact,
    Decline,
    DeclineReason,
    Invite,
    KeyRequest,
    KeyResponse,
    OfRun,
    Ok,
    Refusal,
    ReportEvent,
    Ringing,
    Trying,
    named,
    run_of,
)


def ring(
    terms: Terms, invite: Invite, handset: Handset, lines: Lines | None, now: int, random: Random
) -> Decision:
    """An INVITE for a call that this device does not know yet: ask the KMS, or decline."""
    settings = terms.settings
    session = session_of(handset.impi, invite.caller, invite.call)
    if handset.key is None or not handset.key.attached or invite.run != 0:
        return decline_unheard(terms, invite, handset, DeclineReason.NO_KEY)
    answer = answer_for(terms, invite, handset)
    if answer is None:
        return decline_unheard(terms, invite, handset, DeclineReason.NOTHING_IN_COMMON)
    line = take_line(lines, session, len(settings.lines))
    if line is None:
        return decline_unheard(terms, invite, handset, DeclineReason.BUSY)
    asks = asking(terms, invite, handset.key, session, line[0], answer, now, random)
    return keep(asks, now) + Decision(puts=(Put(Lines.key(), line[1]),)) + request(terms, asks)


def answer_for(terms: Terms, invite: Invite, handset: Handset) -> Description | None:
    """What this device would answer; None: there is nothing in common, or the call is not for it."""
    if invite.callee != handset.identity or invite.caller == invite.callee:
        return None
    if invite.suite not in terms.settings.suites:
        return None
    try:
        return _answer(terms, read_description(invite.offer))
    except (BodyMalformed, NothingInCommon):
        return None


def asking(
    terms: Terms,
    invite: Invite,
    key: HandsetKey,
    session: str,
    line: int,
    answer: Description,
    now: int,
    random: Random,
) -> UeCall:
    """The run of this INVITE, for which the KMS is to be asked."""
    nonce = random(16)
    call = UeCall(
        session=session,
        device=device_of(session),
        role=Role.CALLEE,
        run=run_of(invite, invite.suite),
        state=CallState.ASKING,
        line=line,
        started=now,
        own_key_id=key.key_id,
        own_key=key.key,
        peer_key_id=invite.caller_key,
        token=b"",
        nonce=nonce,
        offer=invite.offer,
        answer=answer.octets,
        token_a=invite.token_a,
        nonce_b=nonce,
        peer_media=invite.media,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    return with_token(terms, call, now, random)


def take(terms: Terms, call: UeCall, lines: Lines | None, message: OfRun, now: int) -> Decision:
    """A message of the exchange for the callee, in a state that expects it."""
    match message:
        case Invite():
            return again(terms, call)
        case KeyResponse():
            return _granted(terms, call, lines, message, now)
        case Refusal():
            return _refused(terms, call, lines, message, now)
        case Ack():
            return _confirmed(terms, call, message, now)
        case Cancel() if call.state is CallState.ENDED:
            return _cancelled(terms, call)
        case Cancel():
            return end(call, lines, "cancelled", now) + _cancelled(terms, call)
        case _:
            return NOTHING


def repeat(terms: Terms, call: UeCall) -> Decision:
    """What the callee sends again, since it was not answered."""
    match call.state:
        case CallState.ASKING:
            return request(terms, call)
        case CallState.ANSWERED:
            return ok(terms, call)
        case _:
            return NOTHING


def answer(terms: Terms, call: UeCall, now: int) -> Decision:
    """The user takes the call: 200 OK, and media from here on, if none need come between."""
    answered = msgspec.structs.replace(
        call,
        state=CallState.ANSWERED,
        media_open=not needs_transcoder(call),
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    media = open_media(answered, now) if answered.media_open else NOTHING
    return keep(answered, now) + ok(terms, answered) + media


def decline(terms: Terms, call: UeCall, lines: Lines | None, reason: DeclineReason, now: int) -> Decision:
    """The call will not come up at this end."""
    return end(call, lines, reason, now) + say_declined(terms, call, reason)


def _granted(terms: Terms, call: UeCall, lines: Lines | None, response: KeyResponse, now: int) -> Decision:
    """The first valid RESPONSE of the run: the user is called. One that is not changes nothing."""
    try:
        call = granted(terms, call, response, now)
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    wait_s = terms.settings.answer_after_s
    alerting = msgspec.structs.replace(
        call,
        state=CallState.ALERTING,
        repeat_at=now + (RING_S if wait_s is None else wait_s),
        give_up_at=now + RING_S,
    )
    if wait_s is None:
        return decline(terms, alerting, lines, DeclineReason.DECLINED, now)
    if wait_s == 0:
        return answer(terms, alerting, now)
    ringing = Ringing(sender=contact_of(call, terms), **about(call))
    return keep(alerting, now) + to_cscf(call, ringing) + report(alerting, ReportEvent.RINGING, now)


def granted(terms: Terms, call: UeCall, response: KeyResponse, now: int) -> UeCall:
    """The run with K of this RESPONSE. Raises Refused(OR-20 to OR-24)."""
    grant = terms.profile.open_grant(
        own_holder(call),
        call.run,
        response.grant_b,
        token=call.token,
        nonce=call.nonce,
        fork=response.fork,
        now=now,
    )  # OR-20 to OR-24
    return msgspec.structs.replace(with_grant(call, grant, now), grant_a=response.grant_a)


def _refused(terms: Terms, call: UeCall, lines: Lines | None, refusal: Refusal, now: int) -> Decision:
    """A refusal that the KMS sealed for our token ends the call; any other is a hint, and the run waits."""
    try:
        over = is_final(terms, call, refusal)
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    return decline(terms, call, lines, DeclineReason.NO_KEY, now) if over else NOTHING


def is_final(terms: Terms, call: UeCall, refusal: Refusal) -> bool:
    """Whether the KMS has sealed this refusal, and will not grant a repeat. Raises Refused(OR-20, OR-21)."""
    if refusal.sealed is None:
        return False
    code = terms.profile.open_refusal(
        own_holder(call), call.run, refusal.sealed, token=call.token, nonce=call.nonce
    )  # OR-20, OR-21
    return code not in {RefusalCode.BUSY, RefusalCode.TOO_MANY}


def _confirmed(terms: Terms, call: UeCall, ack: Ack, now: int) -> Decision:
    """confirm_a: up."""
    try:
        verify_ack(terms, call, ack)
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    up = msgspec.structs.replace(call, state=CallState.UP, repeat_at=call.ends, give_up_at=call.ends)
    up = up_without_media(up, now)
    return keep(up, now) + report(up, ReportEvent.CONFIRMED, now)


def verify_ack(terms: Terms, call: UeCall, ack: Ack) -> None:
    """The caller holds the same K and saw the same exchange. Raises Refused(OR-22, OR-25)."""
    assert call.key is not None
    if ack.fork != call.fork:  # OR-22
        raise Refused(Check.OR_22)
    terms.profile.verify_confirm(call.key, Role.CALLER, transcript_of(call), ack.confirm_a)  # OR-25


def again(terms: Terms, call: UeCall) -> Decision:
    """The INVITE once more: the same answer as before."""
    match call.state:
        case CallState.ASKING:
            return to_cscf(call, Trying(sender=contact_of(call, terms), **about(call)))
        case CallState.ALERTING:
            return to_cscf(call, Ringing(sender=contact_of(call, terms), **about(call)))
        case CallState.ANSWERED:
            return ok(terms, call)
        case CallState.ENDED if call.reason in set(DeclineReason):
            return say_declined(terms, call, DeclineReason(call.reason))
        case _:
            return NOTHING


def _answer(terms: Terms, offer: Description) -> Description:
    """A codec of the offer, or our own for a transcoder, if the user permits one. Raises NothingInCommon."""
    settings = terms.settings
    try:
        return answer_to(offer, settings.srtp_suites, settings.codecs)
    except NothingInCommon:
        if Permit.TRANSCODE not in settings.permits or terms.profile.lab_only:
            raise
        return transcoded_answer_to(offer, settings.srtp_suites, settings.codecs)


def request(terms: Terms, call: UeCall) -> Decision:
    """The REQUEST, the same octets each time."""
    message = KeyRequest(
        caller_key=call.peer_key_id,
        callee_key=call.own_key_id,
        suite=call.run.suite,
        token_a=call.token_a,
        token_b=call.token,
        sender=contact_of(call, terms),
        **about(call),
    )
    return Decision(sends=(Send(KMS, call_key(call.run.caller, call.run.call), message),))


def ok(terms: Terms, call: UeCall) -> Decision:
    """The 200 OK, the same octets each time."""
    assert call.key is not None
    confirm_b = terms.profile.confirm(call.key, Role.CALLEE, transcript_of(call))
    message = Ok(
        fork=call.fork,
        nonce_b=call.nonce_b,
        answer=call.answer,
        grant_a=call.grant_a,
        confirm_b=confirm_b,
        media=terms.settings.lines[call.line],
        sender=contact_of(call, terms),
        **about(call),
    )
    return to_cscf(call, message)


def say_declined(terms: Terms, call: UeCall, reason: DeclineReason) -> Decision:
    """Why this end takes no part."""
    return to_cscf(call, Decline(reason=reason, sender=contact_of(call, terms), **about(call)))


def _cancelled(terms: Terms, call: UeCall) -> Decision:
    return to_cscf(call, Cancelled(sender=contact_of(call, terms), **about(call)))


def decline_unheard(terms: Terms, invite: Invite, handset: Handset, reason: DeclineReason) -> Decision:
    """Of a call that this device does not take up, and so keeps no record of."""
    contact = Contact(terms.settings.host, handset.impi)
    message = Decline(reason=reason, sender=contact, **named(invite))
    return Decision(sends=(Send(CSCF, call_key(invite.caller, invite.call), message),))
