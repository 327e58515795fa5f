"""The caller's side of deferred delivery: a mailbox answers, and the user leaves a message.

    4  V -> A    200 OK   answer, grant_m             no confirmation: V does not hold K
    5  A -> V    SRTP under K
       A -> KMS  SETTLED  F nil: A took the mailbox
       A -> V    COLLECTED ID-A, C, n, proof          if she takes her message back: `collecting.py`

The user is told that a mailbox has answered, and until when it keeps the message.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.decision import Decision, Put
from agents.handset import caller
from agents.handset.ue_call import REPEAT_S, Terms, keep, mailbox_answer, open_media, own_holder, report
from protocol.checks import Check, Refused
from protocol.deferred import open_mailbox_grant, proof_of
from protocol.names import Permit
from protocol.sealing import Random
from protocol.secret import Secret
from storage.ue_records import CallState, LeftMessage, Outbox, UeCall
from topics.messages import MailboxOk, ReportEvent

_LEFT_KEPT: Final = 100
_LEAVING_S: Final = 240  # a mailbox says so when it takes no more; if that is lost, this end stops by itself


def answered(
    terms: Terms, call: UeCall, outbox: Outbox | None, ok: MailboxOk, now: int, random: Random
) -> Decision:
    """The 200 OK of a mailbox. One that does not verify, or is not wanted, changes nothing."""
    try:
        if Permit.DEFERRED not in terms.settings.permits or terms.profile.lab_only:  # OR-24
            raise Refused(Check.OR_24)
        grant = open_mailbox_grant(
            own_holder(call),
            call.run,
            ok.grant_m,
            token_a=call.token,
            nonce=call.nonce,
            mailbox=ok.mailbox,
            answer=ok.answer,
            now=now,
        )  # OR-20 to OR-24
        mailbox_answer(call.offer, ok.answer)
    except Refused as refused:
        return report(call, ReportEvent.REFUSED, now, refused=refused)
    lifetime_s = min(grant.not_after - grant.now, grant.not_after - now)
    taken = msgspec.structs.replace(
        call,
        state=CallState.LEAVING,
        mailbox=ok.mailbox,
        answer=ok.answer,
        key=grant.key,
        lifetime_s=lifetime_s,
        ends=now + lifetime_s,
        peer_media=ok.media,
        media_open=True,
        repeat_at=now + REPEAT_S,
        give_up_at=now + min(_LEAVING_S, lifetime_s),
    )
    taken = msgspec.structs.replace(taken, settled=caller.settlement(terms, taken, random))
    proof = Secret(proof_of(grant.key, call.run))
    left = LeftMessage(
        callee=call.run.callee, call=call.run.call, proof=proof, left_at=now, until=grant.not_after
    )
    kept = tuple(each for each in (outbox or Outbox()).left if each.until >= now)
    return (
        keep(taken, now)
        + Decision(puts=(Put(Outbox.key_for(call.device), Outbox(left=(*kept, left)[-_LEFT_KEPT:])),))
        + caller.tell_settled(terms, taken)
        + open_media(taken, now)
        + report(taken, ReportEvent.MAILBOX, now, reason=ok.diverted, until=grant.not_after)
    )
