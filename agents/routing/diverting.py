"""Where a call goes that no device takes: to the callee's mailbox, if there is one, else back to the caller.

A -> CSCF -> V   INVITE, with the reason     when nobody is registered, none answers, all decline
V -> CSCF -> A   200 OK, DECLINE, BYE, BYE-OK
A -> CSCF -> V   CANCEL, BYE
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.decision import NOTHING, Decision
from agents.routing.ways import about, keep, say_declined, to_caller, to_mailbox, wait
from storage.cscf_records import Route, RouteState
from topics.codec import decode
from topics.messages import Cancel, Decline, DeclineReason, Invite, MailboxOk

_MAILBOX_S: Final = 30  # for the mailbox to answer


def conclude(route: Route, reason: DeclineReason, now: int) -> Decision:
    """No device takes the call."""
    if not route.invite:
        return _decline(route, reason, now)
    diverted = msgspec.structs.replace(
        route, state=RouteState.DIVERTED, diverted=reason, answer_by=now + _MAILBOX_S
    )
    return keep(diverted, now) + wait(diverted) + hand_over(diverted)


def hand_over(route: Route) -> Decision:
    """The INVITE for the mailbox, the same octets each time."""
    invite = decode(route.invite)
    assert isinstance(invite, Invite)
    reason = DeclineReason(route.diverted)
    return to_mailbox(route, msgspec.structs.replace(invite, diverted=reason, sender=None, to=None))


def say_again(route: Route) -> Decision:
    """A DECLINE once more, which may have led to this: the same follows as before."""
    match route.state:
        case RouteState.DECLINED:
            return say_declined(route)
        case RouteState.DIVERTED:
            return hand_over(route)
        case _:
            return NOTHING


def take(route: Route, message: MailboxOk | Decline, now: int) -> Decision:
    """What the mailbox says to the INVITE. One that answers when nobody waits for it any more is to stop."""
    if not route.diverted:
        return NOTHING
    match message:
        case MailboxOk() if route.state is RouteState.DIVERTED:
            answered = msgspec.structs.replace(route, state=RouteState.LEAVING)
            return keep(answered, now) + wait(answered, over=True) + to_caller(answered, message)
        case MailboxOk() if route.state is RouteState.LEAVING:
            return to_caller(route, message)
        case MailboxOk():
            return to_mailbox(route, Cancel(**about(route)))
        case Decline() if route.state is RouteState.DIVERTED:
            return _decline(route, message.reason, now)
        case Decline():
            return say_again(route)


def no_answer(route: Route, now: int) -> Decision:
    """The mailbox has had its time."""
    return _decline(route, DeclineReason.NO_ANSWER, now) + to_mailbox(route, Cancel(**about(route)))


def _decline(route: Route, reason: DeclineReason, now: int) -> Decision:
    declined = msgspec.structs.replace(route, state=RouteState.DECLINED, declined=reason, invite=b"")
    return keep(declined, now) + wait(declined, over=True) + say_declined(declined)
