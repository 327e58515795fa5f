"""One device in one conference: what it sends, keeps, tells, and has media do.

What follows on what stands in `agents/handset/attending.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agents.alarms import AttendanceAlarm
from agents.decision import Decision, Put, Send, Wake
from agents.handset.ue_call import FORGET_S, MEDIA_LINE, Terms
from media.leg import CloseMedia, Leg
from protocol.checks import Refused
from protocol.conference import open_epoch_grant, seal_leave
from protocol.description import SrtpSuite, read_description
from protocol.evidence import Departure, EpochGrant, Holder
from protocol.limits import LIFE_S
from protocol.names import Role
from protocol.sealing import Random
from protocol.transport import Statistics
from storage.attendance_records import Attendance, Attendances, AttendanceState
from storage.ue_records import Lines
from topics.catalogue import CSCF, REPORTS
from topics.messages import Contact, InUse, Join, Joined, Leave, Rekey, Report, ReportEvent, Wire, clear

LEFT: Final = "left"  # why it is over: its user has left


@dataclass(frozen=True, slots=True)
class Kept:
    """What the host remembers besides the handset: its device's conferences, and who uses the lines."""

    attendances: Attendances | None
    lines: Lines | None

    def find(self, focus: str, group: bytes) -> Attendance | None:
        """The attendance of this conference."""
        known = self.attendances.known if self.attendances else ()
        return next((each for each in known if (each.focus, each.group) == (focus, group)), None)

    def of_session(self, session: str) -> Attendance | None:
        """The attendance whose media, or alarm, has this name."""
        known = self.attendances.known if self.attendances else ()
        return next((each for each in known if each.session == session), None)


def keep(kept: Kept, attendance: Attendance) -> Decision:
    """Remember it, and look at it again when something is to be repeated or given up."""
    at = min(attendance.repeat_at, attendance.give_up_at)
    name = f"attendance {attendance.session}"
    return Decision(
        puts=(_put(kept, attendance, attendance),),
        wakes=(Wake(name, "", at, AttendanceAlarm(attendance.session)),),
    )


def forget(kept: Kept, attendance: Attendance) -> Decision:
    """It has answered repeats for long enough."""
    return Decision(
        puts=(_put(kept, attendance, None),), wakes=(Wake(f"attendance {attendance.session}", "", None),)
    )


def _put(kept: Kept, before: Attendance, after: Attendance | None) -> Put[Attendances]:
    """One for each conference: a new attendance takes the place of one that is over."""
    known = kept.attendances.known if kept.attendances else ()
    others = tuple(each for each in known if (each.focus, each.group) != (before.focus, before.group))
    each = others if after is None else (*others, after)
    return Put(Attendances.key_for(before.device), Attendances(known=each) if each else None)


def free_line(kept: Kept, attendance: Attendance) -> Decision:
    """No media from here on: its session is closed, its line is another's."""
    sessions = (kept.lines or Lines()).sessions
    freed = tuple(None if user == attendance.session else user for user in sessions)
    return Decision(puts=(Put(Lines.key(), Lines(sessions=freed)),), media=(CloseMedia(attendance.session),))


def out(kept: Kept, attendance: Attendance, reason: str, now: int) -> Decision:
    """Over at this end: K_e is destroyed, media closed, the line free, the world told."""
    over = msgspec.structs.replace(
        attendance,
        state=AttendanceState.OUT,
        reason=reason,
        key=None,
        repeat_at=now + FORGET_S,
        give_up_at=now + FORGET_S,
    )
    silent = free_line(kept, over) if attendance.state is not AttendanceState.LEAVING else Decision()
    return keep(kept, over) + silent + told(over, ReportEvent.LEFT_CONFERENCE, now, reason=reason)


def own_holder(attendance: Attendance) -> Holder:
    """This member with the key under which it sealed its token."""
    return Holder(Role.MEMBER, attendance.own_key_id, attendance.own_key)


def opened(attendance: Attendance, message: Joined | Rekey, now: int) -> EpochGrant:
    """grant_i, if it is of a later epoch than the last one taken. Raises Refused(OR-20 to OR-23) or
    (OR-29)."""
    return open_epoch_grant(
        own_holder(attendance),
        attendance.run.suite,
        message.grant,
        group=attendance.group,
        epoch=message.epoch,
        focus=attendance.focus,
        member=attendance.run.caller,
        token_g=attendance.token,
        nonce=attendance.nonce,
        epoch_taken=attendance.epoch,
        now=now,
    )  # OR-20 to OR-23, OR-29


def with_epoch(attendance: Attendance, grant: EpochGrant, message: Joined | Rekey, now: int) -> Attendance:
    """In, with K_e for as long as both the KMS's instant and its remaining time allow."""
    lifetime_s = min(LIFE_S, grant.not_after - grant.now, grant.not_after - now)
    return msgspec.structs.replace(
        attendance,
        state=AttendanceState.IN,
        epoch=grant.epoch,
        key=grant.key,
        roster=grant.roster,
        lifetime_s=lifetime_s,
        focus_media=message.media,
        repeats=0,
        repeat_at=now + lifetime_s,
        give_up_at=now + lifetime_s,
    )


def leg_of(attendance: Attendance) -> Leg:
    """Media under K_e, between this member and a focus that mixes: what it sends is the sum of the others. A
    focus that only forwards, which section 8 allows, has no media here: nothing would take its packets apart
    by who has sent them."""
    assert attendance.key is not None
    assert attendance.focus_media is not None
    chosen = read_description(attendance.answer)
    return Leg(
        session=attendance.session,
        line=attendance.line,
        root=attendance.key,
        suite=SrtpSuite(chosen.srtp_suites[0]),
        codec=chosen.codecs[0],
        local=attendance.run.caller,
        remote=attendance.focus,
        remote_address=attendance.focus_media,
        media_line=MEDIA_LINE,
        n=attendance.epoch,
        flow=chosen.flow,
        lifetime_s=attendance.lifetime_s,
        sound=attendance.sound,
        group=attendance.group,
    )


def say_join(terms: Terms, attendance: Attendance) -> Decision:
    """JOIN, the same octets each time."""
    message = Join(
        run=attendance.run.n,
        member_key=attendance.own_key_id,
        suite=attendance.run.suite,
        offer=attendance.offer,
        token_g=attendance.token,
        media=terms.settings.lines[attendance.line],
        sender=_sender(terms, attendance),
        **_about(attendance),
    )
    return _to_focus(attendance, message)


def say_in_use(terms: Terms, attendance: Attendance) -> Decision:
    """IN-USE, of the epoch that it sends under."""
    message = InUse(epoch=attendance.epoch, sender=_sender(terms, attendance), **_about(attendance))
    return _to_focus(attendance, message)


def with_leave(attendance: Attendance, epoch: int, random: Random) -> Attendance:
    """With its leave sealed: epoch is the last one that it took."""
    member, suite = attendance.run.caller, attendance.run.suite
    departure = Departure(attendance.nonce, epoch)
    sealed = seal_leave(own_holder(attendance), suite, attendance.group, member, departure, random=random)
    return msgspec.structs.replace(attendance, epoch=epoch, leave=sealed)


def say_leave(terms: Terms, attendance: Attendance) -> Decision:
    """LEAVE, the same octets each time."""
    message = Leave(
        member_key=attendance.own_key_id,
        epoch=attendance.epoch,
        sealed=attendance.leave,
        sender=_sender(terms, attendance),
        **_about(attendance),
    )
    return _to_focus(attendance, message)


def told(
    attendance: Attendance,
    event: ReportEvent,
    now: int,
    *,
    request: bytes | None = None,
    refused: Refused | None = None,
    reason: str | None = None,
    statistics: Statistics | None = None,
) -> Decision:
    """Tell the world how it stands. request: of another wish than the one to join."""
    inside = event in {ReportEvent.JOINED, ReportEvent.EPOCH}
    message = Report(
        event=event,
        device=attendance.device,
        at=now,
        request=request or attendance.request,
        check=refused.check if refused else None,
        reason=refused.code if refused else reason,
        statistics=statistics,
        group=attendance.group,
        epoch=attendance.epoch if inside else None,
        roster=attendance.roster if inside else (),
        **clear(attendance.run),
    )
    return Decision(sends=(Send(REPORTS, attendance.group.hex(), message),))


def _about(attendance: Attendance) -> dict[str, Any]:
    """The fields that every message of it has."""
    return {
        "group": attendance.group,
        "focus": attendance.focus,
        "call": attendance.run.call,
        "member": attendance.run.caller,
    }


def _to_focus(attendance: Attendance, message: Wire) -> Decision:
    """By way of call control, to the instance that knows where this identity's devices are."""
    return Decision(sends=(Send(CSCF, attendance.run.caller, message),))


def _sender(terms: Terms, attendance: Attendance) -> Contact:
    return Contact(terms.settings.host, attendance.device)
