"""The callee's side of deferred delivery: one message on its way from a mailbox to the user's ear, or away.

    7  B -> KMS  FETCH      C, n, ID-A, ID-B, KID-A, KID-B, suite, token_f
    8  KMS -> B             grant_f                                           or REFUSAL
    9  B -> V    RETRIEVE   C, n, ID-A, ID-B, the part that is awaited
       V -> B               some parts of the stored packets, from that one on
       B -> V    COLLECTED  ID-A, C, n, proof

Deleted is what was heard to the end that its sender gave it, or what the user wants deleted. A caller who
takes back a message that she has left sends COLLECTED with the proof that she kept. What a mailbox loses,
repeats or sends out of order is asked for again; what does not verify changes nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.alarms import CollectAlarm
from agents.decision import NOTHING, Decision, Input, Put
from agents.handset.inbox import dealt_with, find, find_left, gone, report
from agents.handset.ue_call import GIVE_UP_S, REPEAT_S, Terms, mailbox_answer, session_of
from agents.handset.ue_message import (
    ask_deletion,
    ask_key,
    ask_parts,
    enter,
    fail,
    finish,
    forget,
    keep,
    leg_of,
    told,
    verified,
)
from media.leg import CloseStored, OpenStored, StoredHeard, TakeStored
from protocol.checks import RefusalCode, Refused
from protocol.deferred import proof_of, seal_fetch
from protocol.evidence import FetchToken, Holder
from protocol.limits import SKEW_S, STORED_WINDOW
from protocol.names import Role, Run
from protocol.sealing import Random
from protocol.secret import Secret
from storage.ue_records import (
    Collecting,
    CollectingState,
    Handset,
    HandsetKey,
    Inbox,
    LeftMessage,
    Outbox,
    WaitingMessage,
)
from topics.messages import (
    CollectedOk,
    DeclineReason,
    DeleteMessage,
    FetchResponse,
    MailboxRefusal,
    OfRun,
    PlayMessage,
    Refusal,
    ReportEvent,
    Stored,
)

_REPEAT_DOUBLINGS: Final = 3  # 2, 4, 8, 16, 16 ... seconds
_LATER: Final = frozenset({RefusalCode.BUSY, RefusalCode.TOO_MANY})  # a repeat may be answered

EXPECTED: Final[dict[CollectingState, frozenset[type]]] = {  # OR-26: all else changes nothing
    CollectingState.FETCHING: frozenset({CollectAlarm, FetchResponse, Refusal}),
    CollectingState.RETRIEVING: frozenset({CollectAlarm, Stored, MailboxRefusal}),
    CollectingState.CLOSING: frozenset({CollectAlarm, StoredHeard}),
    CollectingState.DELETING: frozenset({CollectAlarm, CollectedOk, MailboxRefusal}),
    CollectingState.DONE: frozenset({CollectAlarm}),
}


def begin(
    terms: Terms,
    wish: PlayMessage | DeleteMessage,
    handset: Handset,
    before: Collecting | None,
    inbox: Inbox | None,
    outbox: Outbox | None,
    now: int,
    random: Random,
) -> Decision:
    """The user wants this message. before: what was last done about it."""
    if before is not None and before.request == wish.request:
        return NOTHING
    if before is not None and before.state is not CollectingState.DONE:
        return _no(handset, wish, RefusalCode.BUSY, now)
    message = find(inbox, wish.caller, wish.call, now)
    left = find_left(outbox, wish.call, now)
    if isinstance(wish, DeleteMessage) and wish.caller == handset.identity and left is not None:
        return _take_back(terms, wish, handset, left, now)
    if message is None:
        return _no(handset, wish, RefusalCode.NOT_FOUND, now)
    if handset.key is None or not handset.key.attached:
        return _no(handset, wish, DeclineReason.NO_KEY, now)
    return _ask_for_key(terms, wish, handset, handset.key, message, now, random)


def take(
    terms: Terms,
    collecting: Collecting,
    message: Input,
    inbox: Inbox | None,
    outbox: Outbox | None,
    now: int,
) -> Decision:
    """A message, an alarm or a media event about it."""
    if type(message) not in EXPECTED[collecting.state]:  # OR-26
        return NOTHING
    run = collecting.run
    if isinstance(message, OfRun) and (message.run, message.callee) != (run.n, run.callee):
        return NOTHING  # OR-22: another run's
    match message:
        case CollectAlarm():
            return _look_again(terms, collecting, now)
        case FetchResponse():
            return _fetched(terms, collecting, inbox, message, now)
        case Refusal():
            return _refused(terms, collecting, message, now)
        case Stored():
            return _retrieved(terms, collecting, message, now)
        case StoredHeard():
            return _heard(terms, collecting, inbox, message, now)
        case CollectedOk():
            return _deleted(collecting, inbox, outbox, now)
        case MailboxRefusal() if message.code not in _LATER:
            return fail(collecting, message.code, now)
        case _:
            return NOTHING


def _ask_for_key(
    terms: Terms,
    wish: PlayMessage | DeleteMessage,
    handset: Handset,
    key: HandsetKey,
    message: WaitingMessage,
    now: int,
    random: Random,
) -> Decision:
    """FETCH. Its suite is this device's own choice, not the call's."""
    run = Run(call=wish.call, n=0, caller=wish.caller, callee=handset.identity, suite=terms.settings.suite)
    nonce = random(16)
    holder = Holder(Role.CALLEE, key.key_id, key.key)
    token = seal_fetch(holder, run, FetchToken(*run.clear, nonce, now), random=random)
    fetching = Collecting(
        session=session_of(handset.impi, wish.caller, wish.call),
        device=handset.impi,
        state=CollectingState.FETCHING,
        run=run,
        message=message,
        own_key_id=key.key_id,
        own_key=key.key,
        token=token,
        nonce=nonce,
        request=wish.request,
        play=isinstance(wish, PlayMessage),
        keep=isinstance(wish, PlayMessage) and wish.keep,
        started=now,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    return keep(fetching) + ask_key(terms, fetching)


def _take_back(terms: Terms, wish: DeleteMessage, handset: Handset, left: LeftMessage, now: int) -> Decision:
    """COLLECTED with the proof that was kept when the message was left: no key is needed for it."""
    deleting = Collecting(
        session=session_of(handset.impi, wish.caller, wish.call),
        device=handset.impi,
        state=CollectingState.DELETING,
        run=Run(call=wish.call, n=0, caller=wish.caller, callee=left.callee, suite=terms.settings.suite),
        message=None,
        request=wish.request,
        play=False,
        keep=False,
        started=now,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
        proof=left.proof,
        left_at=left.left_at,
        until=left.until,
    )
    return keep(deleting) + ask_deletion(terms, deleting)


def _fetched(
    terms: Terms, fetching: Collecting, inbox: Inbox | None, response: FetchResponse, now: int
) -> Decision:
    """grant_f: the message is what the mailbox has told, and K is there. One that does not verify changes
    nothing."""
    try:
        grant = verified(fetching, response, now)
        told_of = fetching.message
        assert told_of is not None
        chosen = mailbox_answer(told_of.offer, told_of.answer) if fetching.play else None  # OR-24
    except Refused as refused:
        return told(fetching, ReportEvent.REFUSED, now, check=refused.check, reason=refused.code)
    known = msgspec.structs.replace(
        fetching,
        proof=Secret(proof_of(grant.key, fetching.run)),
        left_at=grant.not_before + SKEW_S,
        until=grant.not_after,
    )
    if chosen is None:
        return _delete(terms, known, inbox, now)
    settings = terms.settings
    if chosen.srtp_suites[0] not in settings.srtp_suites or chosen.codecs[0] not in settings.codecs:
        return fail(known, DeclineReason.NOTHING_IN_COMMON, now)
    retrieving = msgspec.structs.replace(known, key=grant.key)
    opened = Decision(media=(OpenStored(leg_of(retrieving, grant, chosen)),))
    return opened + _await_part(terms, retrieving, now, ask=True)


def _refused(terms: Terms, fetching: Collecting, refusal: Refusal, now: int) -> Decision:
    """A refusal that the KMS sealed for our token is the end of it; any other is a hint."""
    if refusal.sealed is None:
        return NOTHING
    assert fetching.own_key is not None
    holder = Holder(Role.CALLEE, fetching.own_key_id, fetching.own_key)
    try:
        code = terms.profile.open_refusal(
            holder, fetching.run, refusal.sealed, token=fetching.token, nonce=fetching.nonce
        )  # OR-20, OR-21
    except Refused as refused:
        return told(fetching, ReportEvent.REFUSED, now, check=refused.check, reason=refused.code)
    return NOTHING if code in _LATER else fail(fetching, code, now)


def _retrieved(terms: Terms, retrieving: Collecting, stored: Stored, now: int) -> Decision:
    """A part, if it is the next one. A mailbox is asked for more when it has sent all that it sends for one
    question."""
    if stored.part != retrieving.part:
        return NOTHING
    if now > retrieving.until:  # OR-28
        return fail(retrieving, RefusalCode.EXPIRED, now)
    onward = msgspec.structs.replace(retrieving, part=retrieving.part + 1)
    taken = Decision(media=(TakeStored(onward.session, stored.packets),))
    return taken + _await_part(terms, onward, now, ask=onward.part >= onward.asked + STORED_WINDOW)


def _await_part(terms: Terms, retrieving: Collecting, now: int, *, ask: bool) -> Decision:
    """The next part; when all have come, the message is heard."""
    assert retrieving.message is not None
    if retrieving.part >= retrieving.message.parts:
        closing = enter(retrieving, CollectingState.CLOSING, now)
        return keep(closing) + Decision(media=(CloseStored(closing.session),))
    asked = retrieving.part if ask else retrieving.asked
    awaiting = msgspec.structs.replace(enter(retrieving, CollectingState.RETRIEVING, now), asked=asked)
    return keep(awaiting) + (ask_parts(terms, awaiting) if ask else NOTHING)


def _heard(terms: Terms, closing: Collecting, inbox: Inbox | None, heard: StoredHeard, now: int) -> Decision:
    """The user has heard it: a whole message is deleted, another stays where it is."""
    said = told(closing, ReportEvent.HEARD, now, whole=heard.whole, packets=heard.packets)
    if heard.whole and not closing.keep:
        return said + _delete(terms, closing, inbox, now)
    return said + finish(closing, now)


def _delete(terms: Terms, collecting: Collecting, inbox: Inbox | None, now: int) -> Decision:
    """COLLECTED. From here on the message is not new to this device, whether or not the mailbox obeys."""
    deleting = msgspec.structs.replace(enter(collecting, CollectingState.DELETING, now), key=None)
    run = deleting.run
    known = dealt_with(inbox, run.caller, run.call, deleting.until, now)
    remembered = Decision(puts=(Put(Inbox.key_for(deleting.device), known),))
    return keep(deleting) + remembered + ask_deletion(terms, deleting)


def _deleted(deleting: Collecting, inbox: Inbox | None, outbox: Outbox | None, now: int) -> Decision:
    """The mailbox no longer has it."""
    run, device = deleting.run, deleting.device
    if deleting.message is not None:
        forgotten = Decision(puts=(Put(Inbox.key_for(device), gone(inbox, run.caller, run.call)),))
    else:
        kept = tuple(each for each in (outbox or Outbox()).left if each.call != run.call)
        forgotten = Decision(puts=(Put(Outbox.key_for(device), Outbox(left=kept)),))
    return forgotten + told(deleting, ReportEvent.COLLECTED, now) + finish(deleting, now)


def _look_again(terms: Terms, collecting: Collecting, now: int) -> Decision:
    """A CollectAlarm: what was not answered is repeated, what has lasted too long is over."""
    if now >= collecting.give_up_at:
        if collecting.state is CollectingState.DONE:
            return forget(collecting)
        return fail(collecting, DeclineReason.NO_ANSWER, now)
    if now < collecting.repeat_at:
        return keep(collecting)
    repeats = collecting.repeats + 1
    again = msgspec.structs.replace(
        collecting,
        asked=collecting.part,
        repeats=repeats,
        repeat_at=now + (REPEAT_S << min(repeats, _REPEAT_DOUBLINGS)),
    )
    return keep(again) + _repeat(terms, again)


def _repeat(terms: Terms, collecting: Collecting) -> Decision:
    match collecting.state:
        case CollectingState.FETCHING:
            return ask_key(terms, collecting)
        case CollectingState.RETRIEVING:
            return ask_parts(terms, collecting)
        case CollectingState.CLOSING:
            return Decision(media=(CloseStored(collecting.session),))
        case CollectingState.DELETING:
            return ask_deletion(terms, collecting)
        case CollectingState.DONE:
            return NOTHING


def _no(handset: Handset, wish: PlayMessage | DeleteMessage, reason: str, now: int) -> Decision:
    """Of a wish that leads nowhere."""
    return report(
        handset.impi,
        ReportEvent.FAILED,
        now,
        caller=wish.caller,
        call=wish.call,
        request=wish.request,
        reason=reason,
    )
