"""Deferred delivery at the KMS (section 6): K for a message that is left, and for who hears it.

    V   -> KMS  DEPOSIT           C, n, ID-A, ID-B, ID-V, KID-A, KID-V, suite, token_a, token_v
    KMS -> V    DEPOSIT-RESPONSE  grant_m, receipt_v         or REFUSAL
    B   -> KMS  FETCH             C, n, ID-A, ID-B, KID-A, KID-B, suite, token_f
    KMS -> B    FETCH-RESPONSE    grant_f                    or REFUSAL

K is drawn for a deposit only. A fetch is served what a deposit has left, never the key of a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from agents.decision import Decision, Send, to_device
from agents.granting.hearing import Hearing
from agents.granting.settling import keep, with_run
from agents.granting.uses import note_call
from protocol.checks import Check, RefusalCode, Refused
from protocol.deferred import (
    compare_deposit,
    compare_fetch,
    open_fetch,
    open_mailbox_token,
    proof_of,
    seal_fetch_grant,
    seal_mailbox_grant,
    seal_receipt,
)
from protocol.encoding import digest, enc
from protocol.evidence import FetchGrant, FetchToken, Holder, MailboxGrant, MailboxToken, Receipt, Token
from protocol.limits import KEEP_S_MAX, SKEW_S
from protocol.names import MASTER_KEY_OCTETS, Kind, Permit, Role, host_of
from protocol.sealing import Random
from protocol.secret import Secret
from storage.kms_records import AgreedRun, Agreement, Deposited, Subscriber
from topics.catalogue import VOICEMAIL
from topics.messages import Audit, AuditEvent, Deposit, DepositResponse, Fetch, FetchResponse, clear

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class _Judged:
    """A DEPOSIT that may be answered."""

    agreement: Agreement
    deposited: Deposited
    caller: Holder
    mailbox: Holder
    token_a: Token
    token_v: MailboxToken


def deposit(hearing: Hearing, message: Deposit, random: Random) -> Decision:
    """A mailbox asks for a key that it will not get itself."""
    try:
        judged = _judge(hearing, message, random)
    except Refused as refused:
        named = {"caller_key": message.caller_key, "key_id": message.mailbox_key, "mailbox": message.mailbox}
        return hearing.refuse(refused, random, to=VOICEMAIL, named=named)
    run, deposited = hearing.run, judged.deposited
    noted = Audit(
        id=digest(enc("deposited", *run.clear)),
        event=AuditEvent.DEPOSITED,
        at=deposited.granted,
        key_id=deposited.mailbox_key,
        caller_key=judged.caller.key_id,
        mailbox=deposited.mailbox,
        not_after=deposited.not_after,
        **clear(run),
    )
    response = _deposit_response(hearing, message, judged, random)
    kept = keep(run.caller, run.call, judged.agreement, hearing.now)
    in_use = note_call(hearing.records, run, (judged.caller.key_id,), deposited.not_after, hearing.now)
    return (
        kept
        + in_use
        + Decision(
            puts=hearing.rates.puts(),
            audit=(noted,),  # OR-16
            sends=(Send(VOICEMAIL, run.callee, response),),
        )
    )


def _judge(hearing: Hearing, message: Deposit, random: Random) -> _Judged:
    """The deposit that answers it. Raises Refused."""
    run, profile = hearing.run, hearing.profile
    with hearing.opening(f"mailbox {message.mailbox}"):
        mailbox, _ = hearing.holder(message.mailbox_key, message.mailbox, Role.MAILBOX)
        token_v = open_mailbox_token(
            mailbox, run, message.mailbox, message.token_v, token_a=message.token_a
        )  # OR-05
    hearing.opened(mailbox, token_v.nonce)
    if profile.lab_only:  # OR-14: the ten steps have no deferred delivery
        raise Refused(Check.OR_14, RefusalCode.NOT_PERMITTED)
    caller, device = hearing.holder(message.caller_key, run.caller, Role.CALLER)
    if len({run.caller, run.callee, message.mailbox}) < 3 or caller.key_id == mailbox.key_id:  # OR-08
        raise Refused(Check.OR_08)
    token_a = profile.open_token(caller, run, message.token_a, binds=None)  # OR-04
    hearing.count(caller)
    compare_deposit(run, message.mailbox, token_a, token_v, hearing.now)  # OR-06, OR-07, OR-09, OR-12
    if Permit.DEFERRED not in token_a.permits:  # OR-13
        raise Refused(Check.OR_13, RefusalCode.NOT_PERMITTED)
    days = hearing.settings.deferred_days_max
    if days == 0 or host_of(message.mailbox) != host_of(run.callee):  # OR-14
        raise Refused(Check.OR_14, RefusalCode.NOT_PERMITTED)

    hearing.site(token_a.time, token_v.time)
    agreement, agreed = hearing.agreed(caller, message.token_a, token_a, devices=(device, None))
    deposited = _deposited_for(agreed, message, hearing.now)
    if deposited is None:
        if agreed.settled is not None:  # OR-10
            raise Refused(Check.OR_10, RefusalCode.REPLAY)
        deposited = Deposited(
            mailbox=message.mailbox,
            mailbox_key=mailbox.key_id,
            token_v_hash=digest(message.token_v),
            offer_hash=token_v.offer_hash,
            answer_hash=token_v.answer_hash,
            key=Secret(random(MASTER_KEY_OCTETS)),
            granted=hearing.now,
            not_before=hearing.now - SKEW_S,
            not_after=hearing.now + min(token_v.keep_s, days * _DAY_S, KEEP_S_MAX),
        )
        agreed = msgspec.structs.replace(agreed, deposit=deposited)
    return _Judged(with_run(agreement, agreed), deposited, caller, mailbox, token_a, token_v)


def _deposited_for(agreed: AgreedRun, message: Deposit, now: int) -> Deposited | None:
    """What this very token_v has been given already; None for a run without a deposit. Raises Refused."""
    deposited = agreed.deposit
    if deposited is None:
        return None
    asked = (message.mailbox_key, digest(message.token_v))
    if (deposited.mailbox_key, deposited.token_v_hash) != asked:  # OR-10: one deposit for a run
        raise Refused(Check.OR_10, RefusalCode.REPLAY)
    if deposited.key is None or now > deposited.not_after:  # OR-10: ended, and never made anew
        raise Refused(Check.OR_10, RefusalCode.EXPIRED)
    return deposited


def _deposit_response(hearing: Hearing, message: Deposit, judged: _Judged, random: Random) -> DepositResponse:
    """grant_m for the caller, which has K; receipt_v for the mailbox, which has what proves K."""
    run, deposited = hearing.run, judged.deposited
    assert deposited.key is not None  # _deposited_for refuses what was destroyed
    grant = MailboxGrant(
        *run.clear,
        nonce=judged.token_a.nonce,
        key=deposited.key,
        now=hearing.now,
        not_before=deposited.not_before,
        not_after=deposited.not_after,
        kind=Kind.MAILBOX,
        mailbox=deposited.mailbox,
        answer_hash=deposited.answer_hash,
    )
    receipt = Receipt(
        *run.clear,
        mailbox=deposited.mailbox,
        nonce=judged.token_v.nonce,
        not_before=deposited.not_before,
        not_after=deposited.not_after,
        proof_hash=digest(proof_of(deposited.key, run)),
    )
    return DepositResponse(
        grant_m=seal_mailbox_grant(judged.caller, run, grant, token_a=message.token_a, random=random),
        receipt_v=seal_receipt(judged.mailbox, run, receipt, token_v=message.token_v, random=random),
        **clear(run),
    )


def fetch(hearing: Hearing, message: Fetch, random: Random) -> Decision:
    """A device of the callee asks for the key of a message. It may ask again, until the key ends."""
    try:
        callee, token_f, deposited = _stored_for(hearing, message)
    except Refused as refused:
        named = {"caller_key": message.caller_key, "callee_key": message.callee_key}
        return hearing.refuse(refused, random, to=message.sender, named=named)
    run = hearing.run
    assert deposited.key is not None  # _stored_for refuses what was destroyed
    grant = FetchGrant(
        *run.clear,
        nonce=token_f.nonce,
        key=deposited.key,
        now=hearing.now,
        not_before=deposited.not_before,
        not_after=deposited.not_after,
        kind=Kind.MAILBOX,
        mailbox=deposited.mailbox,
        offer_hash=deposited.offer_hash,
        answer_hash=deposited.answer_hash,
    )
    noted = Audit(
        id=digest(enc("fetched", *run.clear, digest(message.token_f))),
        event=AuditEvent.FETCHED,
        at=hearing.now,
        caller_key=message.caller_key,
        callee_key=callee.key_id,
        mailbox=deposited.mailbox,
        not_after=deposited.not_after,
        **clear(run),
    )
    response = FetchResponse(
        grant_f=seal_fetch_grant(callee, run, grant, token_f=message.token_f, random=random),
        to=message.sender.device,
        **clear(run),
    )
    return Decision(
        puts=hearing.rates.puts(),
        audit=(noted,),  # OR-16
        sends=(to_device(message.sender, response),),
    )


def _stored_for(hearing: Hearing, message: Fetch) -> tuple[Holder, FetchToken, Deposited]:
    """Who asks, and what was left for him in this call. Raises Refused."""
    run, now = hearing.run, hearing.now
    with hearing.opening(f"host {message.sender.host}"):
        callee, _ = hearing.holder(message.callee_key, run.callee, Role.CALLEE)
        token_f = open_fetch(callee, run, message.token_f)  # OR-05
    hearing.opened(callee, token_f.nonce)
    if run.caller == run.callee or message.caller_key == callee.key_id:  # OR-08
        raise Refused(Check.OR_08)
    compare_fetch(run, token_f, now)  # OR-07, OR-09
    hearing.site(token_f.time)
    agreement = hearing.records.get(Agreement.key_for(run.caller, run.call)) or Agreement()
    agreed = next((known for known in agreement.runs if known.n == run.n), None)
    if (
        agreed is None
        or agreed.deposit is None
        or (agreed.callee, agreed.caller_key) != (run.callee, message.caller_key)
    ):  # OR-15: nothing was left, or not for this callee, or by another key id
        raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
    caller = hearing.records.get(Subscriber.key_for(message.caller_key))
    revoked = caller is not None and (caller.revoked or caller.revoked_at >= agreed.deposit.granted)
    if revoked:  # OR-02: that its lifetime has ended would not matter
        raise Refused(Check.OR_02)
    if agreed.deposit.key is None or now > agreed.deposit.not_after:  # OR-15
        raise Refused(Check.OR_15, RefusalCode.EXPIRED)
    return callee, token_f, agreed.deposit
