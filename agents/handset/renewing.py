"""A call's next key, before the one that it has is over (section 10): the exchange once more, between the
caller and the device that has answered.

    A -> B   INVITE     n' > n         B -> KMS  REQUEST   KMS -> B  RESPONSE
    B -> A   200 OK                    answered at once: nothing rings, no line is taken
    A -> B   ACK                       no SETTLED: the KMS settles it as it grants

Until then it is a record of its own beside the call's, in the same states, with what `caller.py` and
`callee.py` say. When the caller has verified the 200 OK, or the callee the ACK, it takes the call's place.
What fails is tried again with another n', and leaves the call as it is.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.alarms import CallAlarm
from agents.decision import NOTHING, Decision, Input
from agents.handset import callee, caller
from agents.handset.call_states import EXPECTED
from agents.handset.ue_call import (
    GIVE_UP_S,
    REPEAT_S,
    Terms,
    forget_renewal,
    keep,
    leg_of,
    needs_transcoder,
    other_role,
    renewal_of,
    repeat_s,
    report,
    up_without_media,
    with_token,
)
from media.leg import RenewMedia
from protocol.checks import Check, Refused
from protocol.names import Role
from protocol.sealing import Random
from protocol.secret import Secret
from storage.ue_records import CallState, Handset, UeCall
from topics.messages import (
    Ack,
    Decline,
    DeclineReason,
    Invite,
    KeyResponse,
    Notice,
    OfRun,
    Ok,
    Refusal,
    ReportEvent,
)

_BYES_KEPT: Final = 3
AGAIN_S: Final = 10  # after a refusal, or while there is no key of one's own


def concerns(call: UeCall, message: Input) -> bool:
    """Whether this is for the renewal of a call, and not for the call itself."""
    match message:
        case CallAlarm():
            return message.session == renewal_of(call.session)
        case Invite() if call.role is Role.CALLEE and call.state is CallState.UP:
            return message.run != call.run.n
        case Invite() | Ok() | Ack() | Decline() | KeyResponse() | Refusal() | Notice():
            return message.run == call.renewing != 0
        case _:
            return False


def begin(terms: Terms, call: UeCall, handset: Handset, now: int, random: Random) -> Decision:
    """The caller asks for the next key now, unless it does already. The call is kept in any case."""
    if call.role is not Role.CALLER or call.state is not CallState.UP or call.renewing or call.mailbox:
        return keep(call, now)
    if handset.key is None or not handset.key.attached:
        return keep(msgspec.structs.replace(call, renew_at=now + AGAIN_S), now)
    n = call.highest + 1
    asked = UeCall(
        session=renewal_of(call.session),
        device=call.device,
        role=Role.CALLER,
        run=msgspec.structs.replace(call.run, n=n),
        state=CallState.CALLING,
        line=call.line,
        started=now,
        own_key_id=handset.key.key_id,
        own_key=handset.key.key,
        peer_key_id="",
        token=b"",
        nonce=random(16),
        offer=call.offer,
        token_a=b"",
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
        request=call.request,
        sound=call.sound,
    )
    asked = with_token(terms, asked, now, random)
    waits = msgspec.structs.replace(call, renewing=n, highest=n)
    return keep(waits, now) + keep(asked, now) + caller.invite(terms, asked)


def take(
    terms: Terms,
    call: UeCall,
    renewal: UeCall | None,
    handset: Handset,
    message: Input,
    now: int,
    random: Random,
) -> Decision:
    """What concerns the renewal of this call. renewal: as far as it has come, if it has begun."""
    if isinstance(message, OfRun) and message.callee != call.run.callee:  # OR-22
        return NOTHING
    if isinstance(message, Invite) and message.run != call.renewing:
        return _asked(terms, call, message, handset, now, random)
    if renewal is None or type(message) not in EXPECTED[renewal.role, renewal.state]:  # OR-26
        return NOTHING
    match message:
        case CallAlarm():
            return _look_again(terms, call, renewal, now)
        case Ok():
            return _answered(terms, call, renewal, message, now)
        case Decline():
            return _failed(call, now, again_at=now + AGAIN_S)
        case Invite():
            return callee.again(terms, renewal)
        case KeyResponse():
            return _granted(terms, call, renewal, message, now)
        case Refusal():
            return _refused(terms, call, renewal, message, now)
        case Ack():
            return _confirmed(terms, call, renewal, message, now)
        case _:
            return NOTHING


def _look_again(terms: Terms, call: UeCall, renewal: UeCall, now: int) -> Decision:
    if now >= renewal.give_up_at:
        return _failed(call, now, again_at=now)
    if now < renewal.repeat_at:
        return keep(renewal, now)
    repeats = renewal.repeats + 1
    again = msgspec.structs.replace(renewal, repeats=repeats, repeat_at=now + repeat_s(repeats))
    if renewal.role is Role.CALLER:
        return keep(again, now) + caller.repeat(terms, renewal)
    return keep(again, now) + callee.repeat(terms, renewal)


def _failed(call: UeCall, now: int, *, again_at: int) -> Decision:
    """The call goes on as it is; its caller will try again, with another n'."""
    renew_at = again_at if call.role is Role.CALLER else 0
    left = msgspec.structs.replace(call, renewing=0, renew_at=renew_at)
    return keep(left, now) + forget_renewal(call)


def _takes_place(terms: Terms, call: UeCall, renewal: UeCall, now: int) -> UeCall:
    """The call under its next key. The other end may not know yet that this one goes on under it: its BYE of
    the run before counts as well, and all that is kept for that is the proof that it would have."""
    assert call.key is not None
    proof = Secret(terms.profile.bye(call.key, other_role(call), call.run, call.fork))
    up = msgspec.structs.replace(
        renewal,
        session=call.session,
        state=CallState.UP,
        started=call.started,
        repeats=0,
        repeat_at=renewal.ends,
        give_up_at=renewal.ends,
        renew_at=caller.renew_at(renewal, now) if call.role is Role.CALLER else 0,
        renewing=0,
        highest=max(call.highest, renewal.run.n),
        byes=((call.run.n, proof),),
        transcoder=call.transcoder,
        media_open=call.media_open or not needs_transcoder(renewal),
        leg_by=call.leg_by if needs_transcoder(renewal) else 0,  # a transcoder that was lost still is
    )
    return up_without_media(up, now)


def _media(call: UeCall, renewal: UeCall, now: int, *, speak_within_s: float | None) -> Decision:
    """Media goes on under the next key. Where a transcoder is between the two ends, it goes on under the old
    leg key until there is a notice for the next."""
    if needs_transcoder(renewal):
        return NOTHING
    leg = leg_of(msgspec.structs.replace(renewal, session=call.session), now)
    return Decision(media=(RenewMedia(leg, speak_within_s=speak_within_s),))


# The caller.


def _answered(terms: Terms, call: UeCall, renewal: UeCall, ok: Ok, now: int) -> Decision:
    """The 200 OK. One that does not verify, or is another device's, changes nothing."""
    try:
        if ok.fork != call.fork:  # OR-22: of the device that has the call
            raise Refused(Check.OR_22)
        if renewal.run.n <= call.run.n:  # OR-29
            raise Refused(Check.OR_29)
        verified = caller.verified(terms, renewal, ok, now)  # OR-20 to OR-25
    except Refused as refused:
        return report(renewal, ReportEvent.REFUSED, now, refused=refused)
    up = _takes_place(terms, call, verified, now)
    return (
        keep(up, now)
        + forget_renewal(call)
        + caller.ack(terms, up)
        + _media(call, verified, now, speak_within_s=0)
        + report(up, ReportEvent.RENEWED, now)
    )


# The callee.


def _asked(
    terms: Terms, call: UeCall, invite: Invite, handset: Handset, now: int, random: Random
) -> Decision:
    """An INVITE of a later run. Until the KMS has granted it, it counts for nothing, and another may come."""
    if invite.run <= call.highest:  # OR-29
        return NOTHING
    answer = callee.answer_for(terms, invite, handset)
    if handset.key is None or not handset.key.attached:
        return callee.decline_unheard(terms, invite, handset, DeclineReason.NO_KEY)
    if answer is None:
        return callee.decline_unheard(terms, invite, handset, DeclineReason.NOTHING_IN_COMMON)
    session = renewal_of(call.session)
    asks = callee.asking(terms, invite, handset.key, session, call.line, answer, now, random)
    waits = msgspec.structs.replace(call, renewing=invite.run)
    return keep(waits, now) + keep(asks, now) + callee.request(terms, asks)


def _granted(terms: Terms, call: UeCall, renewal: UeCall, response: KeyResponse, now: int) -> Decision:
    """The first valid RESPONSE: 200 OK at once. What is said goes under K' when the caller is heard there."""
    try:
        if response.fork != call.fork:  # OR-22
            raise Refused(Check.OR_22)
        granted = callee.granted(terms, renewal, response, now)  # OR-20 to OR-24
    except Refused as refused:
        return report(renewal, ReportEvent.REFUSED, now, refused=refused)
    assert granted.key is not None
    answered = msgspec.structs.replace(
        granted,
        state=CallState.ANSWERED,
        repeats=0,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    proof = Secret(terms.profile.bye(granted.key, Role.CALLER, granted.run, granted.fork))
    byes = (*call.byes, (granted.run.n, proof))[-_BYES_KEPT:]
    waits = msgspec.structs.replace(call, highest=granted.run.n, byes=byes)
    return (
        keep(waits, now)
        + keep(answered, now)
        + callee.ok(terms, answered)
        + _media(call, answered, now, speak_within_s=None)
    )


def _refused(terms: Terms, call: UeCall, renewal: UeCall, refusal: Refusal, now: int) -> Decision:
    try:
        over = callee.is_final(terms, renewal, refusal)
    except Refused as refused:
        return report(renewal, ReportEvent.REFUSED, now, refused=refused)
    if not over:
        return NOTHING
    return _failed(call, now, again_at=0) + callee.say_declined(terms, renewal, DeclineReason.NO_KEY)


def _confirmed(terms: Terms, call: UeCall, renewal: UeCall, ack: Ack, now: int) -> Decision:
    """The ACK: the caller goes on under the next key, and so does this end."""
    try:
        callee.verify_ack(terms, renewal, ack)  # OR-22, OR-25
    except Refused as refused:
        return report(renewal, ReportEvent.REFUSED, now, refused=refused)
    up = _takes_place(terms, call, renewal, now)
    return keep(up, now) + forget_renewal(call) + report(up, ReportEvent.RENEWED, now)
