"""How a message begins: the mailbox answers an INVITE that no device took, if the KMS grants it.

    1  CSCF -> V    INVITE    C, n, ID-A, ID-B, KID-A, suite, offer, token_a, why it was diverted
    2  V -> KMS     DEPOSIT   C, n, ID-A, ID-B, ID-V, KID-A, KID-V, suite, token_a, token_v
    3  KMS -> V               grant_m, receipt_v                      or REFUSAL
    4  V -> CSCF    200 OK    answer, grant_m                         or DECLINE

A line is taken only once the KMS has said yes: an INVITE that proves nothing holds none.
"""

from __future__ import annotations

import msgspec

from agents.decision import NOTHING, Decision, Put, Send
from agents.mailbox.stored_message import (
    GIVE_UP_S,
    REPEAT_S,
    VoicemailSettings,
    about,
    decline,
    end,
    held_now,
    hold,
    keep,
    own_session,
    put_mailbox,
    to_cscf,
)
from media.leg import SILENT_S, OpenRecording
from protocol.checks import RefusalCode, Refused
from protocol.deferred import open_receipt, seal_mailbox_token
from protocol.description import BodyMalformed, NothingInCommon, mailbox_answer_to, read_description
from protocol.encoding import digest
from protocol.evidence import Holder, MailboxToken
from protocol.limits import LIFE_S
from protocol.names import Role
from protocol.profile import HARDENED
from protocol.sealing import Random
from protocol.sharding import call_key
from storage.voicemail_records import MailboxOf, MessageState, RecorderLines, StoredMessage
from topics.catalogue import KMS
from topics.messages import (
    DeclineReason,
    Deposit,
    DepositResponse,
    Invite,
    MailboxOk,
    Refusal,
    named,
    run_of,
)


def ask(
    settings: VoicemailSettings,
    invite: Invite,
    mailbox: MailboxOf,
    lines: RecorderLines,
    now: int,
    random: Random,
) -> Decision:
    """An INVITE for a message that is not known: ask the KMS, or decline."""
    if invite.diverted is None:  # not for a mailbox
        return NOTHING
    problem = _problem(settings, invite, mailbox, lines, now)
    if problem is not None:
        return decline(named(invite), problem)
    try:
        answer = mailbox_answer_to(read_description(invite.offer)).octets
    except (BodyMalformed, NothingInCommon):
        return decline(named(invite), DeclineReason.NOTHING_IN_COMMON)
    run, nonce = run_of(invite, invite.suite), random(16)
    token = MailboxToken(
        *run.clear,
        mailbox=settings.identity,
        nonce=nonce,
        time=now,
        keep_s=settings.keep_s,
        offer_hash=digest(invite.offer),
        answer_hash=digest(answer),
    )
    message = StoredMessage(
        run=run,
        state=MessageState.ASKING,
        caller_key=invite.caller_key,
        token_a=invite.token_a,
        token_v=seal_mailbox_token(_holder(settings), run, token, token_a=invite.token_a, random=random),
        nonce=nonce,
        offer=invite.offer,
        answer=answer,
        diverted=invite.diverted,
        started=now,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    holding = hold(message, mailbox, now + 2 * GIVE_UP_S, now)
    return (
        keep(message)
        + Decision(puts=(put_mailbox(run.callee, holding, now),))
        + say_deposit(settings, message)
    )


def granted(
    settings: VoicemailSettings,
    message: StoredMessage,
    mailbox: MailboxOf,
    lines: RecorderLines,
    response: DepositResponse,
    now: int,
) -> Decision:
    """receipt_v: answer the caller, and record. One that does not verify changes nothing."""
    if message.state is MessageState.RECORDING:
        return _granted_again(settings, message, lines)
    try:
        receipt = open_receipt(
            _holder(settings),
            message.run,
            settings.identity,
            response.receipt_v,
            token_v=message.token_v,
            nonce=message.nonce,
            now=now,
        )  # OR-20 to OR-23
    except Refused:
        return NOTHING
    line = _free_line(settings, lines)
    if line is None:
        return give_up(message, mailbox, DeclineReason.BUSY, now)
    recording = msgspec.structs.replace(
        message,
        state=MessageState.RECORDING,
        token_a=b"",
        token_v=b"",
        grant_m=response.grant_m,
        proof_hash=receipt.proof_hash,
        not_after=receipt.not_after,
        instance=settings.instance,
        media=settings.lines[line],
        opened=now,
        repeats=0,
        repeat_at=None,
        give_up_at=now + SILENT_S,
    )
    session = own_session(recording)
    sessions = _sessions(settings, lines)
    taken = RecorderLines(sessions=(*sessions[:line], session, *sessions[line + 1 :]))
    return (
        keep(recording)
        + Decision(
            puts=(
                put_mailbox(message.run.callee, hold(recording, mailbox, receipt.not_after, now), now),
                put_lines(settings, taken, now),
            ),
            media=(OpenRecording(session, line),),
        )
        + say_ok(settings, recording)
    )


def refused(
    settings: VoicemailSettings, message: StoredMessage, mailbox: MailboxOf, refusal: Refusal, now: int
) -> Decision:
    """A sealed refusal ends it; any other is a hint: the KMS is asked again."""
    if refusal.sealed is None:
        return NOTHING
    try:
        code = HARDENED.open_refusal(
            _holder(settings), message.run, refusal.sealed, token=message.token_v, nonce=message.nonce
        )  # OR-20, OR-21
    except Refused:
        return NOTHING
    if code in {RefusalCode.BUSY, RefusalCode.TOO_MANY}:  # it may be granted to a repeat
        return NOTHING
    not_permitted = code is RefusalCode.NOT_PERMITTED
    reason = DeclineReason.NOT_PERMITTED if not_permitted else DeclineReason.NO_KEY
    return give_up(message, mailbox, reason, now)


def give_up(message: StoredMessage, mailbox: MailboxOf, reason: DeclineReason, now: int) -> Decision:
    """Nothing will be left; a repeat of the INVITE hears the same."""
    return end(message, mailbox, now, declined=reason) + decline(about(message), reason)


def invited_again(settings: VoicemailSettings, message: StoredMessage) -> Decision:
    """The INVITE once more gets the answer that it had."""
    if message.state is MessageState.RECORDING:
        return say_ok(settings, message)
    return decline(about(message), DeclineReason(message.declined)) if message.declined else NOTHING


def say_deposit(settings: VoicemailSettings, message: StoredMessage) -> Decision:
    """The question to the KMS, the same octets each time."""
    deposit = Deposit(
        mailbox=settings.identity,
        caller_key=message.caller_key,
        mailbox_key=settings.key_id,
        suite=message.run.suite,
        token_a=message.token_a,
        token_v=message.token_v,
        **about(message),
    )
    return Decision(sends=(Send(KMS, call_key(message.run.caller, message.run.call), deposit),))


def say_ok(settings: VoicemailSettings, message: StoredMessage) -> Decision:
    """The mailbox's 200 OK, the same octets each time."""
    assert message.media is not None
    return to_cscf(
        MailboxOk(
            mailbox=settings.identity,
            answer=message.answer,
            grant_m=message.grant_m,
            media=message.media,
            diverted=DeclineReason(message.diverted),
            **about(message),
        )
    )


def put_lines(settings: VoicemailSettings, lines: RecorderLines, now: int) -> Put[RecorderLines]:
    """Remember who has which line; no message lasts as long as that."""
    return Put(RecorderLines.key_for(settings.instance), lines, now + LIFE_S + settings.message_s)


def _problem(
    settings: VoicemailSettings, invite: Invite, mailbox: MailboxOf, lines: RecorderLines, now: int
) -> DeclineReason | None:
    """Why no message is taken."""
    held = held_now(mailbox, now)
    of_caller = sum(each.caller == invite.caller for each in held)
    if invite.run != 0:  # a later key of a call that this mailbox has never had
        return DeclineReason.NO_KEY
    if len(held) >= settings.messages_max or of_caller >= settings.from_one_max:
        return DeclineReason.TOO_MANY
    if sum(each.octets for each in held) >= settings.octets_max:
        return DeclineReason.MAILBOX_FULL
    if _free_line(settings, lines) is None:
        return DeclineReason.BUSY
    return None


def _granted_again(settings: VoicemailSettings, message: StoredMessage, lines: RecorderLines) -> Decision:
    """A repeat of what was dealt with, perhaps by a loop that did not come to tell the recorder."""
    again = say_ok(settings, message)
    session = own_session(message)
    if message.parts or session not in lines.sessions:
        return again
    return again + Decision(media=(OpenRecording(session, lines.sessions.index(session)),))


def _free_line(settings: VoicemailSettings, lines: RecorderLines) -> int | None:
    return next((line for line, user in enumerate(_sessions(settings, lines)) if user is None), None)


def _sessions(settings: VoicemailSettings, lines: RecorderLines) -> tuple[str | None, ...]:
    return lines.sessions or (None,) * len(settings.lines)


def _holder(settings: VoicemailSettings) -> Holder:
    return Holder(Role.MAILBOX, settings.key_id, settings.key)
