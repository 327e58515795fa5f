"""The end of a conference: everybody is put out, K_e destroyed, and no epoch begun any more."""

from __future__ import annotations

from agents.focus.turn import Turn
from protocol.checks import RefusalCode
from storage.focus_records import AttendeeState, ConferenceState
from topics.messages import ConferenceEvent


def end(turn: Turn, reason: str, *, request: bytes | None = None) -> None:
    """What is remembered of it tells who comes late. request: of the operator who wanted it."""
    for attendee in turn.conference.members:
        match attendee.state:
            case AttendeeState.ASKING:
                turn.refuse_join(attendee, RefusalCode.EXPIRED)
            case AttendeeState.IN:
                turn.drop(attendee)
                turn.put_out(attendee, "ended")
            case AttendeeState.GOING:
                turn.drop(attendee)
    turn.close_own()
    turn.change(
        state=ConferenceState.ENDED,
        key=None,
        roster=(),
        not_after=0,
        queue=(),
        asked=(),
        taken=None,
        reason=reason,
        forget_at=turn.now + turn.settings.told_s,
    )
    turn.last_look()
    turn.report(ConferenceEvent.ENDED, reason=reason, request=request)
