"""How a call ends at either end: BYE, the user's wish, silence, the key's lifetime, and patience.

A <-> B   BYE     C, n, F, MAC(KDF(K, enc("bye", role), 32), enc(C, n, F))      answered by BYE-OK
A  -> V   BYE     C, n               a mailbox has no K: its BYE-OK says how many packets it has stored
"""

from __future__ import annotations

import msgspec

from agents.decision import NOTHING, Decision, Put
from agents.handset import callee, caller, renewing
from agents.handset.ue_call import (
    GIVE_UP_S,
    REPEAT_S,
    Terms,
    about,
    end,
    forget,
    forget_renewal,
    keep,
    other_role,
    repeat_s,
    report,
    to_cscf,
    waits_for_leg,
    waits_to_renew,
)
from media.leg import CloseMedia, MediaClosed
from protocol.checks import Check, Refused
from protocol.names import Role
from protocol.sealing import Random
from protocol.secret import Secret
from storage.ue_records import CallState, Handset, Lines, Outbox, UeCall
from topics.messages import Bye, ByeOk, DeclineReason, OfRun, ReportEvent, named

_SET_UP_BY_CALLER = {CallState.CALLING, CallState.CALLED}
_SET_UP_BY_CALLEE = {CallState.ASKING, CallState.ALERTING}
_UP = {CallState.ANSWERED, CallState.UP, CallState.LEAVING}


def hang_up(terms: Terms, call: UeCall, lines: Lines | None, reason: str, now: int) -> Decision:
    """This end ends the call, whatever its state."""
    if call.state in _SET_UP_BY_CALLER:
        return caller.cancel(call, now, reason)
    if call.state in _SET_UP_BY_CALLEE:
        return callee.decline(terms, call, lines, DeclineReason.DECLINED, now)
    if call.state not in _UP:
        return NOTHING
    hanging = msgspec.structs.replace(
        call,
        state=CallState.HANGING_UP,
        reason=reason,
        renewing=0,
        repeats=0,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    told = _bye(terms, hanging) + Decision(media=(CloseMedia(call.session),))
    return keep(hanging, now) + forget_renewal(call) + told


def is_of(call: UeCall, message: OfRun) -> bool:
    """Whether this is a message of the call as it is; a BYE may be of the run before, or of the next."""
    others = [n for n, _ in call.byes] if isinstance(message, Bye) else []
    return message.callee == call.run.callee and message.run in (call.run.n, *others)


def take_bye(terms: Terms, call: UeCall, lines: Lines | None, bye: Bye, now: int) -> Decision:
    """BYE of the other end: over, if it holds K, or that of the run before or to come. Once over, its repeat
    gets the same BYE-OK."""
    if bye.by is Role.MAILBOX:  # a mailbox proves nothing, and can end nothing but the message it is left
        taken = call.state is CallState.LEAVING
        return hang_up(terms, call, lines, bye.reason or "mailbox", now) if taken else NOTHING
    ok = to_cscf(call, ByeOk(fork=bye.fork, by=call.role, **named(bye)))
    if call.state is CallState.ENDED:
        return ok
    other = other_role(call)
    try:
        if bye.by is not other or bye.fork != call.fork or bye.proof is None:  # OR-22
            raise Refused(Check.OR_22)
        _verify(terms, call, other, bye.run, bye.proof)  # OR-25
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    return end(call, lines, "bye", now) + ok


def _verify(terms: Terms, call: UeCall, other: Role, n: int, proof: bytes) -> None:
    """Raises Refused(OR-25)."""
    if n == call.run.n:
        assert call.key is not None
        terms.profile.verify_bye(call.key, other, call.run, call.fork, proof)  # OR-25
    elif dict(call.byes).get(n) != Secret(proof):  # OR-25
        raise Refused(Check.OR_25)


def take_bye_ok(call: UeCall, lines: Lines | None, outbox: Outbox | None, ok: ByeOk, now: int) -> Decision:
    """The other end knows that the call is over; a mailbox, what it has stored of the message."""
    if (ok.fork, ok.by) != (call.fork or None, Role.MAILBOX if call.mailbox else other_role(call)):
        return NOTHING  # OR-22: of another device of the callee
    told = NOTHING
    if call.mailbox and ok.kept:
        told = report(call, ReportEvent.LEFT, now, packets=ok.kept)
    elif call.mailbox and ok.kept == 0:
        left = tuple(each for each in (outbox or Outbox()).left if each.call != call.run.call)
        told = Decision(puts=(Put(Outbox.key_for(call.device), Outbox(left=left)),))
    return told + end(call, lines, call.reason, now)


def media_closed(terms: Terms, call: UeCall, lines: Lines | None, closed: MediaClosed, now: int) -> Decision:
    """The engine has closed the session: its statistics are the call's report."""
    silent = msgspec.structs.replace(call, media_open=False)
    if closed.expired and call.state in _UP:
        told = hang_up(terms, silent, lines, "expired", now)
    else:
        told = keep(silent, now)
    reported = report(silent, ReportEvent.MEDIA, now, statistics=closed.statistics)
    return told + reported


def look_again(
    terms: Terms, call: UeCall, handset: Handset, lines: Lines | None, now: int, random: Random
) -> Decision:
    """A CallAlarm: what has lasted too long ends, a key that ends soon is renewed, what was not answered is
    repeated."""
    if now >= call.give_up_at:
        return _give_up(terms, call, lines, now)
    if waits_for_leg(call) and now >= call.leg_by:
        return hang_up(terms, call, lines, "silent" if call.media_open else "no-transcoder", now)
    if waits_to_renew(call) and now >= call.renew_at:
        return renewing.begin(terms, call, handset, now, random)
    if now < call.repeat_at:
        return keep(call, now)
    if call.state is CallState.ALERTING:
        return callee.answer(terms, call, now)
    again = msgspec.structs.replace(
        call,
        repeats=call.repeats + 1,
        repeat_at=now + repeat_s(call.repeats + 1),
    )
    return keep(again, now) + _repeat(terms, call)


def _repeat(terms: Terms, call: UeCall) -> Decision:
    if call.state is CallState.HANGING_UP:
        return _bye(terms, call) + (caller.tell_settled(terms, call) if call.settled else NOTHING)
    return caller.repeat(terms, call) if call.role is Role.CALLER else callee.repeat(terms, call)


def _give_up(terms: Terms, call: UeCall, lines: Lines | None, now: int) -> Decision:
    match call.state:
        case CallState.ENDED:
            return forget(call)
        case CallState.CALLING | CallState.CALLED:
            return caller.cancel(call, now, "no-answer")
        case CallState.ASKING:
            return callee.decline(terms, call, lines, DeclineReason.NO_KEY, now)
        case CallState.ALERTING:
            return callee.decline(terms, call, lines, DeclineReason.NO_ANSWER, now)
        case CallState.UP:
            return hang_up(terms, call, lines, "expired", now)
        case CallState.LEAVING:
            return hang_up(terms, call, lines, "too-long", now)
        case CallState.ANSWERED:
            return hang_up(terms, call, lines, "not-confirmed", now)
        case CallState.CANCELLING | CallState.HANGING_UP:
            return end(call, lines, call.reason, now)


def _bye(terms: Terms, call: UeCall) -> Decision:
    if call.mailbox:
        return to_cscf(call, Bye(fork=None, by=call.role, proof=None, **about(call)))
    assert call.key is not None
    proof = terms.profile.bye(call.key, call.role, call.run, call.fork)
    return to_cscf(call, Bye(fork=call.fork, by=call.role, proof=proof, **about(call)))
