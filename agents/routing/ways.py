"""The ways along a call's route: to the caller, to a device of the callee, to the mailbox. And the CANCEL
that call control repeats by itself."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agents.alarms import Cancelling, NoAnswer
from agents.decision import NOTHING, Decision, Put, Send, Wake, to_device
from protocol.limits import LIFE_S
from protocol.sharding import call_key
from storage.cscf_records import Branch, BranchState, Route
from topics.catalogue import VOICEMAIL
from topics.messages import Cancel, Cancelled, Contact, Decline, DeclineReason, OfRun

OPEN: Final = frozenset({BranchState.INVITED, BranchState.RINGING, BranchState.ANSWERED})
_REPEAT_S: Final = 2  # CANCEL is repeated after 2, 4, 8 and 16 s more
_REPEATS: Final = 4


def about(route: Route) -> dict[str, Any]:
    """C, n, ID-A, ID-B of what call control says itself, which is of the call's first run only."""
    return {"call": route.call, "run": 0, "caller": route.caller, "callee": route.callee}


def keep(route: Route, now: int) -> Decision:
    """Remember the call."""
    return Decision(puts=(Put(Route.key_for(route.caller, route.call), route, now + 2 * LIFE_S),))


def wait(route: Route, *, over: bool = False) -> Decision:
    """Look at the call again at answer_by. over: no longer."""
    name = call_key(route.caller, route.call)
    alarm = NoAnswer(route.caller, route.callee, route.call, 0)
    return Decision(wakes=(Wake(f"no-answer {name}", name, None if over else route.answer_by, alarm),))


def to_caller(route: Route, message: OfRun) -> Decision:
    """The message as the caller gets it."""
    return _to(Contact(*route.contact), message)


def to_branch(branch: Branch, message: OfRun) -> Decision:
    """The message as this device gets it."""
    return _to(Contact(branch.host, branch.device), message)


def to_mailbox(route: Route, message: OfRun) -> Decision:
    """The message as the mailbox gets it: all of one mailbox in one partition."""
    return Decision(sends=(Send(VOICEMAIL, route.callee, message),))


def _to(contact: Contact, message: OfRun) -> Decision:
    """For a device, and no longer from one."""
    changes = {"to": contact.device, **({"sender": None} if hasattr(message, "sender") else {})}
    return Decision(sends=(to_device(contact, msgspec.structs.replace(message, **changes)),))


def say_declined(route: Route) -> Decision:
    """Why the call will not come up."""
    return to_caller(route, Decline(reason=DeclineReason(route.declined), **about(route)))


def say_cancelled(route: Route) -> Decision:
    """The caller's CANCEL has been heard; the devices are call control's concern."""
    return to_caller(route, Cancelled(**about(route)))


def say_cancel(route: Route, branch: Branch) -> Decision:
    """This device is to stop."""
    return to_branch(branch, Cancel(**about(route)))


def open_branches(route: Route) -> tuple[Branch, ...]:
    """The devices that may still answer, or have."""
    return tuple(branch for branch in route.branches if branch.state in OPEN)


def branch_of(route: Route, contact: Contact | None) -> Branch | None:
    """The branch of this device; None for one that the call did not go to."""
    return next(
        (branch for branch in route.branches if contact == Contact(branch.host, branch.device)),
        None,
    )


def branch_named(route: Route, fork: bytes | None) -> Branch | None:
    """The branch whose 200 OK had this F."""
    return next((branch for branch in route.branches if fork is not None and branch.fork == fork), None)


def with_branch(route: Route, branch: Branch) -> Route:
    """The route with this device's branch as it is now."""
    return msgspec.structs.replace(
        route,
        branches=tuple(
            branch if (each.host, each.device) == (branch.host, branch.device) else each
            for each in route.branches
        ),
    )


def cancel(route: Route, now: int, *, but: Branch | None = None) -> tuple[Route, Decision]:
    """All devices that ring or have answered are to stop, but for one; CANCEL is repeated until they say that
    they did."""
    stopped = tuple(branch for branch in open_branches(route) if branch != but)
    if not stopped:
        return route, NOTHING
    branches = tuple(
        msgspec.structs.replace(branch, state=BranchState.CANCELLING) if branch in stopped else branch
        for branch in route.branches
    )
    told = sum((say_cancel(route, branch) for branch in stopped), NOTHING)
    cancelling = msgspec.structs.replace(route, branches=branches)
    return cancelling, told + _cancel_again(route, now + _REPEAT_S)


def repeat_cancel(route: Route, now: int) -> Decision:
    """A Cancelling alarm: once more to who has not answered, and not for ever."""
    silent = [branch for branch in route.branches if branch.state is BranchState.CANCELLING]
    if not silent or route.cancels >= _REPEATS:
        return NOTHING
    again = msgspec.structs.replace(route, cancels=route.cancels + 1)
    told = sum((say_cancel(route, branch) for branch in silent), NOTHING)
    if again.cancels < _REPEATS:
        told += _cancel_again(route, now + (_REPEAT_S << again.cancels))
    return keep(again, now) + told


def over(route: Route, branch: Branch, *, declined: str = "") -> tuple[Route, Decision]:
    """The device has stopped, or will not ring. CANCEL is repeated while any is waited for."""
    ended = msgspec.structs.replace(branch, state=BranchState.OVER, declined=declined)
    route = with_branch(route, ended)
    if not any(each.state is BranchState.CANCELLING for each in route.branches):
        return route, _cancel_again(route, None)
    return route, NOTHING


def _cancel_again(route: Route, at: int | None) -> Decision:
    name = call_key(route.caller, route.call)
    alarm = Cancelling(route.caller, route.callee, route.call, 0)
    return Decision(wakes=(Wake(f"cancelling {name}", name, at, alarm),))
