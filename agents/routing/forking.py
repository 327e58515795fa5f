"""The branches of a call: it rings at every device of the callee, and the caller decides which one takes it.

    A -> CSCF -> each B   INVITE
    each B -> CSCF        TRYING                the KMS has not answered yet
    each B -> CSCF -> A   RINGING, 200 OK       all of them: call control cannot tell which one is valid
    A -> CSCF -> one B    ACK                   F names the device that has won
         CSCF -> others   CANCEL                repeated until CANCELLED or DECLINE comes
    A -> CSCF -> a B      BYE                   under the K of its own F, to one that was too late

Whose message it is says `from` in what a device sends; what names F goes to the device whose 200 OK had it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.decision import NOTHING, Decision
from agents.routing import diverting
from agents.routing.ways import (
    OPEN,
    about,
    branch_named,
    branch_of,
    cancel,
    keep,
    open_branches,
    over,
    say_cancel,
    say_cancelled,
    say_declined,
    to_branch,
    to_caller,
    to_mailbox,
    wait,
    with_branch,
)
from protocol.names import Role
from storage.cscf_records import Branch, BranchState, Route, RouteState
from topics.messages import (
    Ack,
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    Decline,
    DeclineReason,
    Invite,
    MailboxOk,
    Notice,
    OfRun,
    Ok,
    Ringing,
    Trying,
)

_CONFIRM_S: Final = 32  # for an ACK: as long as the two ends repeat
_RANK: Final = (
    DeclineReason.DECLINED,
    DeclineReason.BUSY,
    DeclineReason.NO_ANSWER,
    DeclineReason.NOTHING_IN_COMMON,
    DeclineReason.NO_KEY,
    DeclineReason.NOT_REGISTERED,
)
"""Of several devices' reasons the first of these tells the caller most."""


def invite_again(route: Route, invite: Invite) -> Decision:
    """The INVITE once more: to the devices that may still answer, or the answer that the caller has had."""
    match route.state:
        case RouteState.DECLINED:
            return say_declined(route)
        case RouteState.CANCELLED:
            return say_cancelled(route)
        case RouteState.DIVERTED | RouteState.LEAVING:
            return diverting.hand_over(route)
        case RouteState.CALLING | RouteState.TAKEN:
            return sum((to_branch(branch, invite) for branch in open_branches(route)), NOTHING)


def take(route: Route, message: OfRun, now: int) -> Decision:
    """A message of the first run of a call that is known."""
    match message:
        case Ack():
            return _acknowledged(route, message, now)
        case Cancel():
            return _cancelled(route, message, now)
        case Bye() | ByeOk():
            return _hang_up(route, message, now)
        case MailboxOk() | Decline(sender=None):
            return diverting.take(route, message, now)
        case Trying() | Ringing() | Ok() | Decline() | Cancelled():
            branch = branch_of(route, message.sender)
            return NOTHING if branch is None else _of_branch(route, branch, message, now)
        case _:
            return NOTHING


def take_later_run(route: Route, message: OfRun, now: int) -> Decision:
    """A message of a renewal: between the caller and the device that has won, and nobody else."""
    winner = branch_named(route, route.winner)
    if winner is None:
        return NOTHING
    match message:
        case Invite() | Cancel():
            return to_branch(winner, message)
        case Ringing() | Ok() | Decline() | Cancelled():
            return to_caller(route, message) if branch_of(route, message.sender) == winner else NOTHING
        case Ack() if message.fork == route.winner:  # the call goes on: the route is remembered as long again
            return keep(route, now) + to_branch(winner, message)
        case Bye() | ByeOk() if message.fork == route.winner:
            return to_caller(route, message) if message.by is Role.CALLEE else to_branch(winner, message)
        case _:
            return NOTHING


def notify(route: Route, notice: Notice) -> Decision:
    """A notice of any run, for the caller or for the device that F names: who cannot open it ignores it."""
    if notice.whom is Role.CALLER:
        return to_caller(route, notice)
    branch = branch_named(route, notice.fork)
    return NOTHING if branch is None else to_branch(branch, notice)


def no_answer(route: Route, now: int) -> Decision:
    """A NoAnswer alarm: what is waited for has had its time."""
    if route.state not in {RouteState.CALLING, RouteState.DIVERTED}:
        return NOTHING
    if now < route.answer_by:
        return wait(route)
    if route.state is RouteState.DIVERTED:
        return diverting.no_answer(route, now)
    reason = _best_reason(route)
    stopped, told = cancel(route, now)
    return told + diverting.conclude(stopped, reason, now)


def _of_branch(
    route: Route, branch: Branch, message: Trying | Ringing | Ok | Decline | Cancelled, now: int
) -> Decision:
    match message:
        case Trying():
            return _tries(route, branch, now)
        case Ringing():
            return _ringing(route, branch, message, now)
        case Ok():
            return _answered(route, branch, message, now)
        case Decline():
            return _declined(route, branch, message, now)
        case Cancelled() if branch.state is BranchState.CANCELLING:
            stopped, told = over(route, branch)
            return keep(stopped, now) + told
        case Cancelled():
            return NOTHING


def _tries(route: Route, branch: Branch, now: int) -> Decision:
    """A device that is there gives the call its full time."""
    if branch.state not in OPEN:
        return say_cancel(route, branch)
    return _put_off(route, route.ring_until, now) if route.answer_by < route.ring_until else NOTHING


def _ringing(route: Route, branch: Branch, ringing: Ringing, now: int) -> Decision:
    """The first of all gives the call its full time; one that was to stop, or is too late, is told again."""
    if branch.state not in OPEN:
        return say_cancel(route, branch)
    told = to_caller(route, ringing)
    if branch.state is not BranchState.INVITED:
        return told
    rings = with_branch(route, msgspec.structs.replace(branch, state=BranchState.RINGING))
    return _put_off(rings, rings.ring_until, now) + told


def _answered(route: Route, branch: Branch, ok: Ok, now: int) -> Decision:
    """A 200 OK is for the caller to judge, and its BYE for one that is too late. Only where call control has
    given the devices up, and the caller might not know it yet, the device is told again to stop."""
    if route.state in {RouteState.DECLINED, RouteState.DIVERTED, RouteState.LEAVING}:
        return say_cancel(route, branch)
    told = to_caller(route, ok)
    answers = route.state is RouteState.CALLING and branch.state is not BranchState.ANSWERED
    state = BranchState.ANSWERED if answers else branch.state
    named = branch.fork if _is_claimed(route, branch, ok.fork) else ok.fork
    if (state, named) == (branch.state, branch.fork):
        return told
    answered = with_branch(route, msgspec.structs.replace(branch, state=state, fork=named))
    return told + (_put_off(answered, now + _CONFIRM_S, now) if answers else keep(answered, now))


def _is_claimed(route: Route, branch: Branch, fork: bytes) -> bool:
    """F names one device for good: not two, and the one that has won by no other name."""
    other = branch_named(route, fork)
    return other not in {None, branch} or (branch.fork is not None and branch.fork == route.winner)


def _put_off(route: Route, at: int, now: int) -> Decision:
    """Keep the route, and do not give it up before then."""
    if at <= route.answer_by:
        return keep(route, now)
    waiting = msgspec.structs.replace(route, answer_by=at)
    return keep(waiting, now) + wait(waiting)


def _declined(route: Route, branch: Branch, decline: Decline, now: int) -> Decision:
    """The caller hears of it when no device is left, unless there is a mailbox."""
    if branch.fork == route.winner is not None:
        return NOTHING
    if branch.state is BranchState.OVER:
        return diverting.say_again(route)
    ended, told = over(route, branch, declined=decline.reason)
    if ended.state is not RouteState.CALLING or open_branches(ended):
        return keep(ended, now) + told
    return told + diverting.conclude(ended, _best_reason(ended), now)


def _best_reason(route: Route) -> DeclineReason:
    """Of all branches; one that has not declined has not answered."""
    reasons = {DeclineReason(branch.declined or DeclineReason.NO_ANSWER) for branch in route.branches}
    return next((reason for reason in _RANK if reason in reasons), DeclineReason.NO_ANSWER)


def _acknowledged(route: Route, ack: Ack, now: int) -> Decision:
    """F has won; also where call control has just given the devices up, and perhaps asked the mailbox."""
    winner = branch_named(route, ack.fork)
    if winner is None:
        return NOTHING
    told = to_branch(winner, ack)
    match route.state:
        case RouteState.CALLING | RouteState.DECLINED:
            return _taken(route, winner, now) + told
        case RouteState.DIVERTED:
            return _taken(route, winner, now) + told + to_mailbox(route, Cancel(**about(route)))
        case RouteState.TAKEN if route.diverted:
            return told + to_mailbox(route, Cancel(**about(route)))
        case RouteState.TAKEN | RouteState.LEAVING | RouteState.CANCELLED:
            return told


def _taken(route: Route, winner: Branch, now: int) -> Decision:
    """The caller has taken this device's answer: the others stop."""
    up = msgspec.structs.replace(winner, state=BranchState.ANSWERED)
    taken, told = cancel(with_branch(route, up), now, but=up)
    taken = msgspec.structs.replace(taken, state=RouteState.TAKEN, winner=up.fork, invite=b"")
    return keep(taken, now) + wait(taken, over=True) + told


def _cancelled(route: Route, message: Cancel, now: int) -> Decision:
    """The caller's CANCEL is answered at once; call control sees to the devices."""
    told = say_cancelled(route)
    if route.diverted:
        told += to_mailbox(route, message)
    match route.state:
        case RouteState.CALLING | RouteState.DIVERTED | RouteState.LEAVING:
            stopped, cancelled = cancel(route, now)
            stopped = msgspec.structs.replace(stopped, state=RouteState.CANCELLED, invite=b"")
            return keep(stopped, now) + wait(stopped, over=True) + told + cancelled
        case RouteState.TAKEN:  # not by a caller that has taken an answer
            return told + sum((say_cancel(route, branch) for branch in open_branches(route)), NOTHING)
        case RouteState.DECLINED | RouteState.CANCELLED:
            return told


def _hang_up(route: Route, message: Bye | ByeOk, now: int) -> Decision:
    """To the device that F names, to the mailbox, or to the caller."""
    branch = branch_named(route, message.fork)
    match message.by:
        case Role.CALLER if message.fork is None:
            return to_mailbox(route, message) if route.diverted and isinstance(message, Bye) else NOTHING
        case Role.CALLER:
            return NOTHING if branch is None else _caller_hangs_up(route, branch, message, now)
        case Role.MAILBOX:
            return to_caller(route, message) if route.diverted else NOTHING
        case Role.CALLEE if isinstance(message, Bye) and route.winner not in {None, message.fork}:
            # It has lost, and the caller waits for no BYE of it.
            answer = ByeOk(fork=message.fork, by=Role.CALLER, **about(route))
            return NOTHING if branch is None else to_branch(branch, answer)
        case Role.CALLEE:
            return to_caller(route, message)
        case _:
            return NOTHING


def _caller_hangs_up(route: Route, branch: Branch, message: Bye | ByeOk, now: int) -> Decision:
    """A caller that knows K of the only answer there is has taken it, though its ACK was lost."""
    told = to_branch(branch, message)
    answered = [each for each in route.branches if each.state is BranchState.ANSWERED]
    if route.state is RouteState.CALLING and answered == [branch]:
        return _taken(route, branch, now) + told
    return told
