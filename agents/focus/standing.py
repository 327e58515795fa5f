"""How a conference stands: it begins, is looked after, taken over by another process, and shown.

Whoever has the partition of G looks at it every few seconds. If the process that mixed it is gone, this one
goes on in the same epoch: on its own lines, and every member is told where.
"""

from __future__ import annotations

from typing import Final

from agents.focus import members
from agents.focus.changing import REFRESH, REFRESH_S, ask, ask_again
from agents.focus.ending import end
from agents.focus.turn import FocusSettings, Turn, remaining_s
from protocol.checks import RefusalCode
from protocol.limits import EPOCH_S
from protocol.sealing import Random
from storage.focus_records import Attendee, AttendeeState, ChangeKind, Conference, ConferenceState
from topics.messages import ConferenceEvent, CreateConference

ABSENT: Final = "absent"
ALL_SILENT: Final = "nobody-answers"
EMPTY: Final = "empty"
EXPIRED: Final = "expired"  # the KMS has not answered for long


def begin(settings: FocusSettings, message: CreateConference, now: int) -> Conference:
    """A conference that nobody is in yet."""
    return Conference(
        focus=message.focus,
        group=message.group,
        state=ConferenceState.OPEN,
        instance=settings.instance,
        since=now,
    )


def created(turn: Turn, request: bytes) -> None:
    """Tell so; also once more."""
    turn.report(ConferenceEvent.CREATED, request=request, instance=turn.conference.instance)


def look_after(turn: Turn, random: Random) -> None:
    """The heartbeat of a conference that this process mixes: repeat, ask, refresh, end."""
    conference, now = turn.conference, turn.now
    turn.heartbeat()
    if conference.key is not None and remaining_s(conference, now) <= 0:
        turn.change(key=None)
    began = conference.not_after if conference.members and conference.epoch else conference.since
    if now >= began + turn.settings.empty_s:
        end(turn, EXPIRED if conference.members else EMPTY)
        return
    for attendee in conference.members:
        if _is_kept_waiting(turn, attendee):
            turn.refuse_join(attendee, RefusalCode.BUSY)
        elif _is_absent(turn, attendee):
            members.put_out(turn, attendee, ABSENT, barred=False)
    if conference.asked:
        ask_again(turn)
        return
    inside = list(filter(_is_in, turn.conference.members))
    if inside and now >= conference.refresh_at:
        silent = all(each.in_use != conference.epoch for each in inside)
        if silent and now >= conference.heard_at + EPOCH_S - REFRESH_S:
            end(turn, ALL_SILENT)
            return
        turn.want(REFRESH)
    ask(turn, random)


def take_over(turn: Turn) -> None:
    """The process that mixed it is gone, or has lost the partition. Who has no line here waits for one. The
    epoch serves until another one comes, which is asked for at once: an SSRC drawn here may be one that was
    used under this key before."""
    turn.change(instance=turn.settings.instance, heard_at=turn.now)
    for attendee in turn.conference.members:
        if attendee.state is AttendeeState.GOING:
            continue
        line = turn.take_line(turn.session(attendee))
        taken = turn.alter(attendee, line=line, in_use=0, awaited=turn.now)
        if _is_in(taken):
            turn.renew(taken, 0.0, 0.0)  # a leg that this process has from before may have an earlier key
            turn.look_at(taken.identity, turn.now)
    if turn.conference.key is not None and any(map(_is_in, turn.conference.members)):
        turn.want(REFRESH)
    turn.heartbeat()
    turn.watch()
    turn.report(ConferenceEvent.TAKEN_OVER, roster=turn.conference.roster, instance=turn.settings.instance)


def show(turn: Turn, request: bytes) -> None:
    """As it stands."""
    conference = turn.conference
    turn.report(
        ConferenceEvent.STANDS,
        roster=conference.roster,
        in_use=tuple(
            sorted({each.identity for each in conference.members if each.in_use == conference.epoch > 0})
        ),
        speakers=tuple(each for each in conference.speakers if each in conference.roster),
        instance=conference.instance,
        not_after=conference.not_after or None,
        request=request,
    )


def _is_in(attendee: Attendee) -> bool:
    return attendee.state is AttendeeState.IN


def _is_absent(turn: Turn, attendee: Attendee) -> bool:
    """It is in, and has not said for an epoch's length that it has taken the last one: it is gone, and nobody
    has heard its leave."""
    behind = _is_in(attendee) and attendee.in_use != turn.conference.epoch
    return behind and turn.now >= attendee.awaited + EPOCH_S


def _is_kept_waiting(turn: Turn, attendee: Attendee) -> bool:
    """It has asked long ago, and the KMS has not been: it will have given up."""
    if attendee.state is not AttendeeState.ASKING or turn.now < attendee.since + turn.settings.join_s:
        return False
    name = (ChangeKind.JOIN, attendee.identity, attendee.call)
    return any((each.kind, each.member, each.call) == name for each in turn.conference.queue)
