"""One message in a mailbox: what its handlers have in common to keep it, answer for it and end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agents.alarms import MessageAlarm
from agents.decision import Decision, Put, Send, Wake
from protocol.limits import KEEP_S_MAX, SEEN_S, SKEW_S
from protocol.secret import Secret
from protocol.sharding import call_key
from protocol.transport import MediaAddress
from storage.voicemail_records import Held, MailboxOf, MessageState, StoredMessage
from topics.catalogue import CSCF
from topics.messages import Decline, DeclineReason, OfRun, clear

REPEAT_S: Final = 2  # what is not answered is sent again after so long, then after 4, 8 and 16 s
GIVE_UP_S: Final = 32  # and no longer than this
_REPEATS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class VoicemailSettings:
    """Who this mailbox is, and how much it takes."""

    identity: str
    """ID-V."""
    key_id: str
    """KID-V, whose owner is a mailbox to the KMS."""
    key: Secret
    """K_V, 32 octets. It is in no record."""
    instance: str
    """A name of this process that no other has had: whose recorder has a message."""
    lines: tuple[MediaAddress, ...]
    """The addresses of this process's recorder: as many messages at a time."""
    keep_s: int = KEEP_S_MAX
    """How long a message is to be kept; the KMS's policy may allow less."""
    message_s: int = 180
    """The longest message."""
    message_octets: int = 2 * 2**20
    """Of one message's packets: 180 s at 50 a second of 188 octets take 1.7 MB."""
    messages_max: int = 50
    """Messages in one user's mailbox."""
    from_one_max: int = 10
    """Of these, messages of one caller."""
    octets_max: int = 8 * 2**20
    """Of all packets in one user's mailbox; the message that passes it is cut there."""
    requests_per_s: int = 50
    """Questions and requests for packets of one user's devices; one request is answered by 8 s of sound."""


def session_of(caller: str, callee: str, call: bytes) -> str:
    """The name of a message at a recorder: ID-B, a space (no identity has one), and the call."""
    return f"{callee} {call_key(caller, call)}"


def call_of(session: str) -> tuple[str, str, bytes]:
    """ID-A, ID-B and C in a session's name."""
    callee, _, named = session.partition(" ")
    caller, _, call = named.rpartition("/")
    return caller, callee, bytes.fromhex(call)


def own_session(message: StoredMessage) -> str:
    """The name of this message at its recorder."""
    return session_of(message.run.caller, message.run.callee, message.run.call)


def about(message: StoredMessage) -> dict[str, Any]:
    """The fields that every message of the call has."""
    return clear(message.run)


def write(message: StoredMessage) -> Put[StoredMessage]:
    """Remember the message as it is, and wake for it when that was to be before."""
    run = message.run
    expires = max(message.not_after, message.give_up_at, _forget_at(message))
    return Put(StoredMessage.key_for(run.caller, run.callee, run.call), message, expires)


def keep(message: StoredMessage) -> Decision:
    """Remember the message, and look at it again when something is to be repeated or given up."""
    times = (message.give_up_at, message.repeat_at)
    return Decision(puts=(write(message),), wakes=(wake(message, min(at for at in times if at is not None)),))


def wake(message: StoredMessage, at: int | None) -> Wake:
    """Look at the message then; None: no more."""
    run = message.run
    alarm = MessageAlarm(run.caller, run.callee, run.call)
    return Wake(f"message {own_session(message)}", run.callee, at, alarm)


def repeated(message: StoredMessage, now: int) -> StoredMessage:
    """The message when what it waits for was sent once more."""
    repeats = message.repeats + 1
    again_at = now + (REPEAT_S << repeats) if repeats < _REPEATS else None
    return msgspec.structs.replace(message, repeats=repeats, repeat_at=again_at)


def forget(message: StoredMessage) -> Decision:
    """The message has answered repeats for long enough."""
    run = message.run
    key = StoredMessage.key_for(run.caller, run.callee, run.call)
    return Decision(puts=(Put(key, None),), wakes=(wake(message, None),))


def to_cscf(message: OfRun) -> Decision:
    """On its way to the caller."""
    return Decision(sends=(Send(CSCF, call_key(message.caller, message.call), message),))


def decline(of_call: Mapping[str, Any], reason: DeclineReason) -> Decision:
    """No message is left, and why. of_call: C, n, ID-A, ID-B as `clear` or `named` have them."""
    return to_cscf(Decline(reason=reason, **of_call))


def end(message: StoredMessage, mailbox: MailboxOf, now: int, *, declined: str = "") -> Decision:
    """Nothing is there of the message any more. What is remembered of it answers repeats, and lets no INVITE
    begin it anew for as long as the KMS could accept its token. declined: what the caller hears."""
    ended = msgspec.structs.replace(
        message,
        state=MessageState.ENDED,
        declined=declined,
        token_a=b"",
        token_v=b"",
        grant_m=b"",
        proof_hash=b"",
        not_after=0,
        repeats=0,
        repeat_at=now + REPEAT_S if message.farewell else None,
        give_up_at=max(_forget_at(message), now + GIVE_UP_S),
    )
    released = msgspec.structs.replace(mailbox, held=_others(message, mailbox, now))
    return keep(ended) + Decision(puts=(put_mailbox(message.run.callee, released, now),))


def hold(message: StoredMessage, mailbox: MailboxOf, until: int, now: int) -> MailboxOf:
    """The mailbox with this message in it, as long as it is now."""
    run = message.run
    held = Held(caller=run.caller, call=run.call, octets=message.octets, not_after=until)
    return msgspec.structs.replace(mailbox, held=(*_others(message, mailbox, now), held))


def put_mailbox(callee: str, mailbox: MailboxOf, now: int) -> Put[MailboxOf]:
    """Remember the mailbox, as long as there is something in it."""
    ends = [each.not_after for each in mailbox.held] + [each.not_after for each in mailbox.devices]
    return Put(MailboxOf.key_for(callee), mailbox, max(ends, default=now))


def held_now(mailbox: MailboxOf, now: int) -> tuple[Held, ...]:
    """What counts."""
    return tuple(each for each in mailbox.held if each.not_after >= now)


def _others(message: StoredMessage, mailbox: MailboxOf, now: int) -> tuple[Held, ...]:
    name = (message.run.caller, message.run.call)
    return tuple(each for each in held_now(mailbox, now) if (each.caller, each.call) != name)


def _forget_at(message: StoredMessage) -> int:
    """A token that may still be accepted is still remembered; the KMS's clock may differ."""
    return message.started + SEEN_S + SKEW_S
