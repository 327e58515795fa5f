"""What a device knows of its user's mailbox: what the mailbox tells it, and what it has dealt with.

    6  V -> B    MESSAGE WAITING  C, n, ID-A, ID-B, ID-V, KID-A, offer, answer
       B -> V    MAILBOX          ID-B       answered by a MESSAGE WAITING for each, then by how many

All that is the mailbox's word, and changes nothing but what the user may ask for: what is true of a message
shows when its key is fetched (`collecting.py`). A message that was collected is not shown as new again,
whatever a mailbox says, for as long as its key can be fetched.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agents.decision import NOTHING, Decision, Put, Send
from agents.handset.ue_call import Terms
from protocol.limits import KEEP_S_MAX, SKEW_S
from protocol.sharding import call_key
from storage.ue_records import Handset, Inbox, LeftMessage, Outbox, WaitingMessage
from topics.catalogue import CSCF, REPORTS
from topics.messages import Contact, ListMessages, Mailbox, MailboxSays, Report, ReportEvent, Waiting

_LISTING: Final = frozenset({ReportEvent.WAITING, ReportEvent.LEFT, ReportEvent.LISTED})
PARTS_MAX: Final = 3_600  # an hour; a mailbox takes minutes, a part is a second or, of large packets, less
_WAITING_MAX: Final = 100  # a mailbox has half as many; the oldest goes
_COLLECTED_MAX: Final = 1_000  # more than a mailbox hands out while their keys live; what ends first goes


def waiting(terms: Terms, handset: Handset, inbox: Inbox | None, message: Waiting, now: int) -> Decision:
    """A message waits: the user is told, unless it was collected. One that the mailbox still has after it was
    told to delete it is in an answer to the user's question only, as `collected`."""
    inbox = inbox or Inbox()
    ours = (message.run, message.callee) == (0, handset.identity) and message.caller != handset.identity
    if not ours or terms.profile.lab_only:  # OR-22
        return NOTHING
    if now > message.not_after or message.parts > PARTS_MAX:
        return NOTHING
    dealt_with = any((message.caller, message.call) == each[:2] for each in inbox.collected)
    if dealt_with and (message.request is None or find(inbox, message.caller, message.call, now) is None):
        return NOTHING
    told = WaitingMessage(
        caller=message.caller,
        caller_key=message.caller_key,
        call=message.call,
        mailbox=message.mailbox,
        offer=message.offer,
        answer=message.answer,
        packets=message.packets,
        parts=message.parts,
        left_at=message.left_at,
        until=min(message.not_after, now + KEEP_S_MAX),
    )
    if told in inbox.waiting and message.request is None:  # said before, and known
        return NOTHING
    return _remembered(handset, inbox, told, now) + report(
        handset.impi,
        ReportEvent.WAITING,
        now,
        caller=message.caller,
        callee=message.callee,
        call=message.call,
        run=message.run,
        request=message.request,
        left_at=told.left_at,
        until=told.until,
        packets=told.packets,
        reason="collected" if dealt_with else None,
    )


def list_messages(
    terms: Terms, handset: Handset, outbox: Outbox | None, wish: ListMessages, now: int
) -> Decision:
    """The user asks: what this device has left elsewhere is told now, the rest is for the mailbox to say."""
    question = Mailbox(
        identity=handset.identity,
        request=wish.request,
        sender=Contact(terms.settings.host, handset.impi),
    )
    decision = Decision(sends=(Send(CSCF, handset.identity, question),))
    for left in (outbox or Outbox()).left:
        if left.until >= now:
            decision += report(
                handset.impi,
                ReportEvent.LEFT,
                now,
                caller=handset.identity,
                callee=left.callee,
                call=left.call,
                run=0,
                request=wish.request,
                left_at=left.left_at,
                until=left.until,
            )
    return decision


def listed(handset: Handset, says: MailboxSays, now: int) -> Decision:
    """The mailbox has told of so many messages, or says why it tells nothing."""
    if says.identity != handset.identity:  # OR-22
        return NOTHING
    return report(
        handset.impi,
        ReportEvent.LISTED,
        now,
        callee=handset.identity,
        request=says.request,
        packets=says.messages,
        reason=says.code,
    )


def find(inbox: Inbox | None, caller: str, call: bytes, now: int) -> WaitingMessage | None:
    """The message, as the mailbox has told of it."""
    known = (each for each in (inbox or Inbox()).waiting if each.until >= now)
    return next((each for each in known if (each.caller, each.call) == (caller, call)), None)


def find_left(outbox: Outbox | None, call: bytes, now: int) -> LeftMessage | None:
    """The message that this device has left in this call."""
    known = (each for each in (outbox or Outbox()).left if each.until >= now)
    return next((each for each in known if each.call == call), None)


def dealt_with(inbox: Inbox | None, caller: str, call: bytes, until: int, now: int) -> Inbox:
    """The inbox, in which this message is never new again. until: when its key ends, as the KMS says."""
    inbox = inbox or Inbox()
    others = (each for each in inbox.collected if each[:2] != (caller, call) and each[2] + SKEW_S >= now)
    collected = sorted((*others, (caller, call, until)), key=lambda each: each[2])
    return msgspec.structs.replace(inbox, collected=tuple(collected[-_COLLECTED_MAX:]))


def gone(inbox: Inbox | None, caller: str, call: bytes) -> Inbox:
    """The inbox without a message that the mailbox no longer has."""
    inbox = inbox or Inbox()
    kept = tuple(each for each in inbox.waiting if (each.caller, each.call) != (caller, call))
    return msgspec.structs.replace(inbox, waiting=kept)


def report(device: str, event: ReportEvent, now: int, **fields: Any) -> Decision:  # noqa: ANN401
    """Tell the world. fields: of Report. What answers one question stays in its order: it is sent under the
    device's name, not under that of each call."""
    told = Report(event=event, device=device, at=now, **fields)
    listing = event in _LISTING or told.caller is None or told.call is None
    about = device if listing else call_key(told.caller or "", told.call or b"")
    return Decision(sends=(Send(REPORTS, about, told),))


def _remembered(handset: Handset, inbox: Inbox, told: WaitingMessage, now: int) -> Decision:
    """Written when there is something new in it only: a mailbox says the same each time that B registers."""
    if told in inbox.waiting:
        return NOTHING
    others = (each for each in gone(inbox, told.caller, told.call).waiting if each.until >= now)
    waiting = (*others, told)[-_WAITING_MAX:]
    changed = msgspec.structs.replace(inbox, waiting=waiting)
    return Decision(puts=(Put(Inbox.key_for(handset.impi), changed),))
