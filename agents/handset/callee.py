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
    chosen_of,
    contact_of,
    end,
    keep,
    open_media,
    own_holder,
    report,
    session_of,
    take_line,
    to_cscf,
    transcript_of,
    with_grant,
)
from protocol.checks import Check, RefusalCode, Refused
from protocol.description import BodyMalformed, NothingInCommon, answer_to, read_description
from protocol.encoding import digest
from protocol.evidence import Token
from protocol.limits import RING_S
from protocol.names import Role
from protocol.sealing import Random
from protocol.sharding import call_key
from storage.ue_records import CallState, Handset, Lines, UeCall
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
    settings, run = terms.settings, run_of(invite, invite.suite)
    session = session_of(handset.impi, invite.caller, invite.call)
    if handset.key is None or not handset.key.attached or invite.run != 0:
        return _decline(terms, invite, handset, DeclineReason.NO_KEY)
    try:
        if invite.callee != handset.identity or invite.caller == invite.callee:
            raise NothingInCommon
        if run.suite not in settings.suites:
            raise NothingInCommon
        offer = read_description(invite.offer)
        answer = answer_to(offer, settings.srtp_suites, settings.codecs)
    except (BodyMalformed, NothingInCommon):
        return _decline(terms, invite, handset, DeclineReason.NOTHING_IN_COMMON)
    line = take_line(lines, session, len(settings.lines))
    if line is None:
        return _decline(terms, invite, handset, DeclineReason.BUSY)
    nonce = random(16)
    call = UeCall(
        session=session,
        device=handset.impi,
        role=Role.CALLEE,
        run=run,
        state=CallState.ASKING,
        line=line[0],
        started=now,
        own_key_id=handset.key.key_id,
        own_key=handset.key.key,
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
    token = Token(*run.clear, nonce, now, settings.permits, digest(invite.offer))
    token_b = terms.profile.seal_token(own_holder(call), run, token, binds=invite.token_a, random=random)
    call = msgspec.structs.replace(call, token=token_b)
    return keep(call, now) + Decision(puts=(Put(Lines.key(), line[1]),)) + _request(terms, call)


def take(terms: Terms, call: UeCall, lines: Lines | None, message: OfRun, now: int) -> Decision:
    """A message of the exchange for the callee, in a state that expects it."""
    match message:
        case Invite():
            return _again(terms, call)
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
            return _request(terms, call)
        case CallState.ANSWERED:
            return _ok(terms, call)
        case _:
            return NOTHING


def answer(terms: Terms, call: UeCall, now: int) -> Decision:
    """The user takes the call: 200 OK, and media from here on."""
    answered = msgspec.structs.replace(
        call,
        state=CallState.ANSWERED,
        media_open=True,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    return keep(answered, now) + _ok(terms, answered) + open_media(answered, chosen_of(answered))


def decline(terms: Terms, call: UeCall, lines: Lines | None, reason: DeclineReason, now: int) -> Decision:
    """The call will not come up at this end."""
    return end(call, lines, reason, now) + _declined(terms, call, reason)


def _granted(terms: Terms, call: UeCall, lines: Lines | None, response: KeyResponse, now: int) -> Decision:
    """The first valid RESPONSE of the run: the user is called. One that is not changes nothing."""
    try:
        grant = terms.profile.open_grant(
            own_holder(call),
            call.run,
            response.grant_b,
            token=call.token,
            nonce=call.nonce,
            fork=response.fork,
            now=now,
        )  # OR-20 to OR-24
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    wait_s = terms.settings.answer_after_s
    alerting = msgspec.structs.replace(
        with_grant(call, grant),
        state=CallState.ALERTING,
        grant_a=response.grant_a,
        repeat_at=now + (RING_S if wait_s is None else wait_s),
        give_up_at=now + RING_S,
    )
    if wait_s is None:
        return decline(terms, alerting, lines, DeclineReason.DECLINED, now)
    if wait_s == 0:
        return answer(terms, alerting, now)
    ringing = Ringing(sender=contact_of(call, terms), **about(call))
    return keep(alerting, now) + to_cscf(call, ringing) + report(alerting, ReportEvent.RINGING, now)


def _refused(terms: Terms, call: UeCall, lines: Lines | None, refusal: Refusal, now: int) -> Decision:
    """A refusal that the KMS sealed for our token ends the call; any other is a hint, and the run waits."""
    if refusal.sealed is None:
        return NOTHING
    try:
        code = terms.profile.open_refusal(
            own_holder(call), call.run, refusal.sealed, token=call.token, nonce=call.nonce
        )  # OR-20, OR-21
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    if code in {RefusalCode.BUSY, RefusalCode.TOO_MANY}:  # it may be granted to a repeat
        return NOTHING
    return decline(terms, call, lines, DeclineReason.NO_KEY, now)


def _confirmed(terms: Terms, call: UeCall, ack: Ack, now: int) -> Decision:
    """confirm_a: the caller holds the same K and saw the same exchange."""
    assert call.key is not None
    try:
        if ack.fork != call.fork:  # OR-22
            raise Refused(Check.OR_22)
        terms.profile.verify_confirm(call.key, Role.CALLER, transcript_of(call), ack.confirm_a)  # OR-25
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    ends = now + call.lifetime_s
    up = msgspec.structs.replace(call, state=CallState.UP, repeat_at=ends, give_up_at=ends)
    return keep(up, now) + report(up, ReportEvent.CONFIRMED, now)


def _again(terms: Terms, call: UeCall) -> Decision:
    """The INVITE once more: the same answer as before."""
    match call.state:
        case CallState.ASKING:
            return to_cscf(call, Trying(sender=contact_of(call, terms), **about(call)))
        case CallState.ALERTING:
            return to_cscf(call, Ringing(sender=contact_of(call, terms), **about(call)))
        case CallState.ANSWERED:
            return _ok(terms, call)
        case CallState.ENDED if call.reason in set(DeclineReason):
            return _declined(terms, call, DeclineReason(call.reason))
        case _:
            return NOTHING


def _request(terms: Terms, call: UeCall) -> Decision:
    request = KeyRequest(
        caller_key=call.peer_key_id,
        callee_key=call.own_key_id,
        suite=call.run.suite,
        token_a=call.token_a,
        token_b=call.token,
        sender=contact_of(call, terms),
        **about(call),
    )
    return Decision(sends=(Send(KMS, call_key(call.run.caller, call.run.call), request),))


def _ok(terms: Terms, call: UeCall) -> Decision:
    """The 200 OK, the same octets each time."""
    assert call.key is not None
    confirm_b = terms.profile.confirm(call.key, Role.CALLEE, transcript_of(call))
    ok = Ok(
        fork=call.fork,
        nonce_b=call.nonce_b,
        answer=call.answer,
        grant_a=call.grant_a,
        confirm_b=confirm_b,
        media=terms.settings.lines[call.line],
        sender=contact_of(call, terms),
        **about(call),
    )
    return to_cscf(call, ok)


def _declined(terms: Terms, call: UeCall, reason: DeclineReason) -> Decision:
    return to_cscf(call, Decline(reason=reason, sender=contact_of(call, terms), **about(call)))


def _cancelled(terms: Terms, call: UeCall) -> Decision:
    return to_cscf(call, Cancelled(sender=contact_of(call, terms), **about(call)))


def _decline(terms: Terms, invite: Invite, handset: Handset, reason: DeclineReason) -> Decision:
    """Of a call that this device does not take up, and so keeps no record of."""
    contact = Contact(terms.settings.host, handset.impi)
    message = Decline(reason=reason, sender=contact, **named(invite))
    return Decision(sends=(Send(CSCF, call_key(invite.caller, invite.call), message),))
