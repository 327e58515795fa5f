"""What a mailbox hands out, and what it deletes.

    6  V -> B    MESSAGE WAITING  ID-A, C, n, offer, answer      when it is left, when B registers or asks
    9  B -> V    RETRIEVE         ID-A, ID-B, C, n, from this part on
       V -> B                     the stored packets
       B -> V    COLLECTED        ID-A, C, n, proof              also from A, who takes her message back

RETRIEVE is not proven: it is answered to a device that is registered for ID-B, at a limited rate; another
would get ciphertext, sizes and times. COLLECTED is proven, by whoever holds K.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.alarms import ForgetParts
from agents.decision import NOTHING, Decision, Keys, Put, Records, Wake, to_device
from agents.mailbox.stored_message import VoicemailSettings, end, own_session, put_mailbox, session_of
from protocol.checks import RefusalCode, Refused
from protocol.deferred import verify_proof
from protocol.limits import FORKS_MAX, STORED_WINDOW
from storage.voicemail_records import (
    Announcement,
    Announcements,
    MailboxOf,
    MessageState,
    Part,
    Reachable,
    StoredMessage,
)
from topics.messages import (
    Collected,
    CollectedOk,
    Contact,
    Mailbox,
    MailboxRefusal,
    MailboxSays,
    Present,
    Retrieve,
    Stored,
    Waiting,
    named,
)

_REGISTERED_S_MAX: Final = 86_400  # no registration lasts longer
_FORGOTTEN_AT_ONCE: Final = 32  # parts; the rest a second later


def present(
    settings: VoicemailSettings,
    mailbox: MailboxOf,
    announcements: Announcements,
    message: Present,
    now: int,
) -> Decision:
    """A device is registered: it hears what waits, at the rate at which it could ask. Or it no longer is."""
    others = tuple(each for each in _reachable(mailbox, now) if each.device != message.device.device)
    if message.not_after <= now:
        gone = msgspec.structs.replace(mailbox, devices=others)
        return Decision(puts=(put_mailbox(message.identity, gone, now),)) if gone != mailbox else NOTHING
    until = min(message.not_after, now + _REGISTERED_S_MAX)
    own = Reachable(host=message.device.host, device=message.device.device, not_after=until)
    known = msgspec.structs.replace(mailbox, devices=(*others, own)[-FORKS_MAX:])
    refused, counted = _admit(settings, message.identity, known, message.device, now)
    if refused is not None:
        return Decision(puts=(put_mailbox(message.identity, known, now),))
    return counted + _waiting(message.identity, announcements, message.device, now)


def announce_again(
    message: StoredMessage, mailbox: MailboxOf, announcements: Announcements, now: int
) -> Decision:
    """MESSAGE WAITING once more: the process may have died before it had sent the first."""
    name = (message.run.caller, message.run.call)
    own = tuple(each for each in announcements.waiting if (each.caller, each.call) == name)
    return _waiting_everywhere(message.run.callee, mailbox, own, now)


def announce(
    settings: VoicemailSettings,
    message: StoredMessage,
    mailbox: MailboxOf,
    announcements: Announcements,
    now: int,
) -> Decision:
    """A message was left: every device that is registered hears of it."""
    run = message.run
    announcement = Announcement(
        caller=run.caller,
        caller_key=message.caller_key,
        call=run.call,
        mailbox=settings.identity,
        offer=message.offer,
        answer=message.answer,
        packets=message.packets,
        parts=message.parts,
        left_at=now,
        not_after=message.not_after,
    )
    waiting = (*_without(announcements, message, now), announcement)
    remembered = Decision(puts=(_put(run.callee, waiting, now),))
    return remembered + _waiting_everywhere(run.callee, mailbox, (announcement,), now)


def tell(
    settings: VoicemailSettings,
    mailbox: MailboxOf,
    announcements: Announcements,
    question: Mailbox,
    now: int,
) -> Decision:
    """What is there? To a device that may know: each message, then how many that were."""
    admitted, counted = _admit(settings, question.identity, mailbox, question.sender, now)
    told = (
        NOTHING
        if admitted
        else _waiting(question.identity, announcements, question.sender, now, request=question.request)
    )
    says = MailboxSays(
        identity=question.identity,
        request=question.request,
        messages=len(told.sends),
        code=admitted,
        to=question.sender.device,
    )
    return counted + told + Decision(sends=(to_device(question.sender, says),))


def parts_of(caller: str, callee: str, call: bytes, first: int, end: int) -> Keys:
    """The keys of the parts from the first to before the last."""
    return tuple(Part.key_for(caller, callee, call, part) for part in range(first, end))


def retrieve(
    settings: VoicemailSettings,
    message: StoredMessage | None,
    mailbox: MailboxOf,
    request: Retrieve,
    records: Records,
    now: int,
) -> Decision:
    """Some parts of a message, as they were stored."""
    refused, counted = _admit(settings, request.callee, mailbox, request.sender, now)
    if refused is None and not _is_there(message, request.part, now):
        refused = RefusalCode.NOT_FOUND
    if refused is not None:
        return counted + _refuse(request, refused)
    decision = counted
    for part in range(request.part, request.part + STORED_WINDOW):
        stored = records.get(Part.key_for(request.caller, request.callee, request.call, part))
        if stored is not None:
            answer = Stored(part=part, packets=stored.packets, to=request.sender.device, **named(request))
            decision += Decision(sends=(to_device(request.sender, answer),))
    return decision


def collected(
    message: StoredMessage | None,
    mailbox: MailboxOf,
    announcements: Announcements,
    request: Collected,
    now: int,
) -> Decision:
    """Who shows that he holds K has the message deleted. One that is not there is gone already."""
    done = CollectedOk(to=request.sender.device, **named(request))
    gone = Decision(sends=(to_device(request.sender, done),))
    if message is None or message.state is MessageState.ENDED:
        return gone
    try:
        verify_proof(message.proof_hash, request.proof)  # OR-30
    except Refused as refused:
        return _refuse(request, refused.code)
    if message.state is not MessageState.LEFT:  # packets may still come
        return _refuse(request, RefusalCode.BUSY)
    return delete(message, mailbox, announcements, now) + gone


def delete(message: StoredMessage, mailbox: MailboxOf, announcements: Announcements, now: int) -> Decision:
    """The message, its entry and its announcement are gone; its parts follow by an alarm."""
    run = message.run
    forget = ForgetParts(run.caller, run.callee, run.call, 0, message.parts)
    return end(msgspec.structs.replace(message, farewell=""), mailbox, now) + Decision(
        puts=(_put(run.callee, _without(announcements, message, now), now),),
        wakes=(Wake(f"forget {own_session(message)}", run.callee, now, forget),),
    )


def forgotten_now(alarm: ForgetParts) -> Keys:
    """The parts that this alarm deletes."""
    end_now = min(alarm.end, alarm.first + _FORGOTTEN_AT_ONCE)
    return parts_of(alarm.caller, alarm.callee, alarm.call, alarm.first, end_now)


def forget_parts(alarm: ForgetParts, now: int) -> Decision:
    """Some parts of a message that is gone; the next ones are for the next alarm."""
    keys = forgotten_now(alarm)
    first = alarm.first + len(keys)
    rest = ForgetParts(alarm.caller, alarm.callee, alarm.call, first, alarm.end)
    about = f"forget {session_of(alarm.caller, alarm.callee, alarm.call)}"
    return Decision(
        puts=tuple(Put(key, None) for key in keys),
        wakes=(Wake(about, alarm.callee, now, rest),) if first < alarm.end else (),
    )


def _admit(
    settings: VoicemailSettings, callee: str, mailbox: MailboxOf, device: Contact, now: int
) -> tuple[RefusalCode | None, Decision]:
    """Why this device is told nothing, None if it is told; with the counter, of who is admitted."""
    known = [Contact(each.host, each.device) for each in _reachable(mailbox, now)]
    if device not in known:
        return RefusalCode.DENIED, NOTHING
    second, asked = mailbox.asked
    asked = asked if second == now else 0
    if asked >= settings.requests_per_s:
        return RefusalCode.BUSY, NOTHING
    counted = msgspec.structs.replace(mailbox, asked=(now, asked + 1))
    return None, Decision(puts=(put_mailbox(callee, counted, now),))


def _is_there(message: StoredMessage | None, part: int, now: int) -> bool:
    return (
        message is not None
        and message.state is MessageState.LEFT
        and now <= message.not_after
        and part < message.parts
    )


def _reachable(mailbox: MailboxOf, now: int) -> tuple[Reachable, ...]:
    return tuple(each for each in mailbox.devices if each.not_after >= now)


def _waiting_everywhere(
    callee: str, mailbox: MailboxOf, waiting: tuple[Announcement, ...], now: int
) -> Decision:
    """MESSAGE WAITING for every device that is registered."""
    devices = (Contact(each.host, each.device) for each in _reachable(mailbox, now))
    announcements = Announcements(waiting=waiting)
    return sum((_waiting(callee, announcements, device, now) for device in devices), NOTHING)


def _waiting(
    callee: str,
    announcements: Announcements,
    device: Contact,
    now: int,
    *,
    request: bytes | None = None,
) -> Decision:
    """MESSAGE WAITING of each, for one device. request: of the question that it answers."""
    sends = [
        to_device(
            device,
            Waiting(
                call=each.call,
                run=0,
                caller=each.caller,
                callee=callee,
                mailbox=each.mailbox,
                caller_key=each.caller_key,
                offer=each.offer,
                answer=each.answer,
                packets=each.packets,
                parts=each.parts,
                left_at=each.left_at,
                not_after=each.not_after,
                request=request,
                to=device.device,
            ),
        )
        for each in announcements.waiting
        if each.not_after >= now
    ]
    return Decision(sends=tuple(sends))


def _without(announcements: Announcements, message: StoredMessage, now: int) -> tuple[Announcement, ...]:
    name = (message.run.caller, message.run.call)
    live = (each for each in announcements.waiting if each.not_after >= now)
    return tuple(each for each in live if (each.caller, each.call) != name)


def _put(callee: str, waiting: tuple[Announcement, ...], now: int) -> Put[Announcements]:
    """Remember what waits; nothing: no record."""
    expires = max((each.not_after for each in waiting), default=now)
    return Put(Announcements.key_for(callee), Announcements(waiting=waiting) if waiting else None, expires)


def _refuse(request: Retrieve | Collected, code: RefusalCode) -> Decision:
    refusal = MailboxRefusal(code=code, to=request.sender.device, **named(request))
    return Decision(sends=(to_device(request.sender, refusal),))
