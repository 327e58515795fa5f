"""A member of a conference: i of section 8.

    1  i -> C   JOIN      C, G, ID-C, ID-i, KID-i, suite, offer, token_g
    4  C -> i   JOINED    C, G, ID-C, ID-i, e, grant_i, answer
       C -> i   REKEY     C, G, ID-C, ID-i, e, grant_i             another epoch, or the same one once more
       i -> C   IN-USE    C, G, ID-C, ID-i, e
       i -> C   LEAVE     C, G, ID-C, ID-i, KID-i, e, sealed       answered by LEAVE-OK
       C -> i   PUT-OUT   JOIN-REFUSED                             hints: they end, they never weaken

What a member says goes by way of call control. It takes an epoch by its grant alone, and only one that is
later than its last; where the focus listens is not protected, as no transport address is. Once it has left,
or was put out, it has no K_e, and takes none: an epoch that still comes is answered by a LEAVE. Whose key id
has ended while it was in joins anew under the one that its handset has by then, for the same wish.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.alarms import AttendanceAlarm
from agents.decision import NOTHING, Decision, Input, Put, Send, Wake
from agents.handset import registration
from agents.handset.caller import DIALLED_KEPT
from agents.handset.ue_attendance import (
    LEFT,
    Kept,
    forget,
    free_line,
    keep,
    leg_of,
    opened,
    out,
    own_holder,
    say_in_use,
    say_join,
    say_leave,
    told,
    with_epoch,
    with_leave,
)
from agents.handset.ue_call import GIVE_UP_S, REPEAT_S, Terms, repeat_s, session_of, take_line
from media.leg import CloseMedia, MediaClosed, MediaSilent, MoveMedia, OpenMedia, RenewMedia
from protocol.checks import Check, RefusalCode, Refused
from protocol.conference import seal_member_token
from protocol.description import (
    BodyMalformed,
    Description,
    Flow,
    NothingInCommon,
    accept_answer,
    read_description,
)
from protocol.encoding import digest
from protocol.evidence import MemberToken
from protocol.limits import OVERLAP_S
from protocol.names import Permit, Run
from protocol.sealing import Random
from storage.attendance_records import Attendance, AttendanceState
from storage.ue_records import Handset, HandsetKey, Lines
from topics.catalogue import REPORTS
from topics.messages import (
    DeclineReason,
    JoinConference,
    Joined,
    JoinRefused,
    LeaveConference,
    LeaveOk,
    PutOut,
    Rekey,
    Report,
    ReportEvent,
)

NOT_IN: Final = "not-in"  # who wants to leave is not there
KEY_ENDED: Final = "key-ended"  # a focus's word for one whose key id has ended
_UNKNOWN: Final = frozenset({"absent", NOT_IN})  # the focus has not heard of it for long, or does not know it
_OF_FOCUS: Final = (Joined, Rekey, JoinRefused, LeaveOk, PutOut)
_LATER: Final = frozenset({RefusalCode.BUSY})  # a repeat may be answered

EXPECTED: Final[dict[AttendanceState, frozenset[type]]] = {  # OR-26: all else changes nothing
    AttendanceState.JOINING: frozenset({AttendanceAlarm, LeaveConference, Joined, JoinRefused, PutOut}),
    AttendanceState.IN: frozenset(
        {AttendanceAlarm, LeaveConference, Joined, Rekey, PutOut, MediaClosed, MediaSilent}
    ),
    AttendanceState.LEAVING: frozenset({AttendanceAlarm, LeaveOk, PutOut, MediaClosed}),
    AttendanceState.OUT: frozenset({AttendanceAlarm, Joined, Rekey, MediaClosed}),
}


def join(
    terms: Terms, wish: JoinConference, handset: Handset, kept: Kept, now: int, random: Random
) -> Decision:
    """The user wants to be in: asks, unless this wish was dealt with, or the device is there already, or has
    no key or no free line."""
    if any(request == wish.request for request, _ in handset.dialled):
        return NOTHING
    before = kept.find(wish.focus, wish.group)
    if before is not None and before.state is AttendanceState.IN:
        return told(before, ReportEvent.JOINED, now, request=wish.request)
    call = random(16)
    session = session_of(handset.impi, handset.identity, call)
    line = take_line(kept.lines, session, len(terms.settings.lines))
    if terms.profile.lab_only:  # the literal profile has no conferences
        return _no(handset, wish, RefusalCode.UNSUPPORTED, now)
    if handset.key is None or not handset.key.attached:
        return _no(handset, wish, DeclineReason.NO_KEY, now)
    if line is None or (before is not None and before.state is not AttendanceState.OUT):
        return _no(handset, wish, DeclineReason.BUSY, now)
    joining = _asking(terms, wish, handset, handset.key, session, call, now, random)
    joining = msgspec.structs.replace(joining, line=line[0], epoch=before.epoch if before else 0)
    dialled = (*handset.dialled, (wish.request, session))[-DIALLED_KEPT:]
    known = msgspec.structs.replace(handset, dialled=dialled)
    remembered = Decision(puts=(Put(Handset.key_for(handset.impi), known), Put(Lines.key(), line[1])))
    return (
        keep(kept, joining) + remembered + say_join(terms, joining) + told(joining, ReportEvent.JOINING, now)
    )


def leave(
    terms: Terms, wish: LeaveConference, handset: Handset, kept: Kept, now: int, random: Random
) -> Decision:
    """The user wants to be out: media ends at once, whenever the focus hears of it. What is told from here on
    carries this wish's request."""
    attendance = kept.find(wish.focus, wish.group)
    if attendance is None or attendance.state is AttendanceState.OUT:
        return _no(handset, wish, NOT_IN, now)
    if type(wish) not in EXPECTED[attendance.state]:  # OR-26
        return NOTHING
    leaving = msgspec.structs.replace(attendance, request=wish.request)
    if attendance.state is AttendanceState.JOINING:
        return out(kept, leaving, LEFT, now)  # a JOINED that still comes is answered by a LEAVE
    leaving = msgspec.structs.replace(
        with_leave(leaving, leaving.epoch, random),
        state=AttendanceState.LEAVING,
        key=None,
        repeats=0,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
    )
    return keep(kept, leaving) + free_line(kept, leaving) + say_leave(terms, leaving)


def take(
    terms: Terms,
    attendance: Attendance,
    handset: Handset,
    kept: Kept,
    message: Input,
    now: int,
    random: Random,
) -> Decision:
    """A message, an alarm or a media event about it."""
    if type(message) not in EXPECTED[attendance.state]:  # OR-26
        return NOTHING
    ours = (attendance.run.call, attendance.run.caller)
    if isinstance(message, _OF_FOCUS) and (message.call, message.member) != ours:
        return NOTHING  # OR-22: another attendance's
    match message:
        case AttendanceAlarm():
            return _look_again(terms, attendance, kept, now)
        case Joined() if attendance.state is AttendanceState.JOINING:
            return _joined(terms, attendance, kept, message, now)
        case Joined() | Rekey() if attendance.state is AttendanceState.OUT:
            return _too_late(terms, attendance, kept, message, now, random)
        case Joined() | Rekey() if message.epoch == attendance.epoch:
            return _once_more(terms, attendance, kept, message)
        case Joined() | Rekey():
            return _rekeyed(terms, attendance, kept, message, now)
        case JoinRefused() if message.code not in _LATER:
            denied = message.code is RefusalCode.DENIED  # the KMS may not hold our key
            again = registration.attach_again(terms.settings, handset, now, random) if denied else NOTHING
            return out(kept, attendance, message.code, now) + again
        case PutOut() if _goes_on(attendance, handset, message.reason, now):
            return _join_anew(terms, attendance, handset, kept, now, random)
        case PutOut():
            leaving = attendance.state is AttendanceState.LEAVING
            return out(kept, attendance, LEFT if leaving else (message.reason or "put-out"), now)
        case LeaveOk():
            return out(kept, attendance, LEFT, now)
        case MediaClosed():
            return _media_closed(attendance, kept, message, now)
        case MediaSilent():
            return _silent(terms, attendance, kept, now)
        case _:
            return NOTHING


def _asking(
    terms: Terms,
    wish: JoinConference,
    handset: Handset,
    key: HandsetKey,
    session: str,
    call: bytes,
    now: int,
    random: Random,
) -> Attendance:
    """With token_g sealed, which permits a conference, since the user wants one."""
    settings = terms.settings
    run = Run(call=call, n=0, caller=handset.identity, callee=wish.focus, suite=settings.suite)
    nonce = random(16)
    offer = Description(tuple(settings.srtp_suites), settings.codecs, Flow.SENDRECV).octets
    joining = Attendance(
        session=session,
        device=handset.impi,
        run=run,
        group=wish.group,
        state=AttendanceState.JOINING,
        line=0,
        request=wish.request,
        own_key_id=key.key_id,
        own_key=key.key,
        token=b"",
        nonce=nonce,
        offer=offer,
        repeat_at=now + REPEAT_S,
        give_up_at=now + GIVE_UP_S,
        sound=wish.sound,
    )
    permits = tuple(sorted({*settings.permits, Permit.CONFERENCE}))
    token = MemberToken(*run.clear, nonce, now, permits, digest(offer), wish.group)
    token_g = seal_member_token(own_holder(joining), run, token, random=random)
    return msgspec.structs.replace(joining, token=token_g)


def _joined(terms: Terms, joining: Attendance, kept: Kept, message: Joined, now: int) -> Decision:
    """The first epoch: in, when grant and answer hold. One that does not changes nothing."""
    try:
        grant = opened(joining, message, now)  # OR-20 to OR-23, OR-29
        _accept(joining, message.answer)
    except Refused as refused:
        return told(joining, ReportEvent.REFUSED, now, refused=refused)
    inside = msgspec.structs.replace(with_epoch(joining, grant, message, now), answer=message.answer)
    return (
        keep(kept, inside)
        + say_in_use(terms, inside)
        + Decision(media=(OpenMedia(leg_of(inside)),))
        + told(inside, ReportEvent.JOINED, now)
    )


def _accept(joining: Attendance, answer: bytes) -> None:
    """Raises Refused(OR-24) if it is no answer to our offer."""
    try:
        accept_answer(read_description(joining.offer), answer)
    except (BodyMalformed, NothingInCommon):  # OR-24
        raise Refused(Check.OR_24) from None


def _goes_on(attendance: Attendance, handset: Handset, reason: str, now: int) -> bool:
    """Whether it was put out for its key id alone, and has one that goes on. A hint that is not true costs a
    join."""
    key = handset.key
    if attendance.state is not AttendanceState.IN or key is None or not key.attached or now > key.not_after:
        return False
    return reason == KEY_ENDED or (reason in _UNKNOWN and key.key_id != attendance.own_key_id)


def _join_anew(
    terms: Terms, before: Attendance, handset: Handset, kept: Kept, now: int, random: Random
) -> Decision:
    """The same wish, by another call: with a fresh token, on a line of its own."""
    assert handset.key is not None
    wish = JoinConference(
        request=before.request, to=before.device, group=before.group, focus=before.focus, sound=before.sound
    )
    call = random(16)
    session = session_of(handset.impi, handset.identity, call)
    sessions = (kept.lines or Lines()).sessions
    lines = Lines(sessions=tuple(session if user == before.session else user for user in sessions))
    joining = _asking(terms, wish, handset, handset.key, session, call, now, random)
    joining = msgspec.structs.replace(joining, line=before.line, epoch=before.epoch)
    moved = Decision(
        puts=(Put(Lines.key(), lines),),
        wakes=(Wake(f"attendance {before.session}", "", None),),
        media=(CloseMedia(before.session),),
    )
    return keep(kept, joining) + moved + say_join(terms, joining) + told(joining, ReportEvent.JOINING, now)


def _rekeyed(terms: Terms, inside: Attendance, kept: Kept, message: Joined | Rekey, now: int) -> Decision:
    """Another epoch. Whoever has gone can read and say nothing from now on; where somebody has only come,
    what is on its way under the old key is heard too. With the same roster a device may have taken the place
    of another of its user's: the one before it is gone."""
    try:
        grant = opened(inside, message, now)  # OR-20 to OR-23, OR-29
    except Refused as refused:
        return told(inside, ReportEvent.REFUSED, now, refused=refused)
    only_come = set(inside.roster) < set(grant.roster)
    rekeyed = with_epoch(inside, grant, message, now)
    renewed = RenewMedia(leg_of(rekeyed), speak_within_s=0, overlap_s=float(OVERLAP_S) if only_come else 0.0)
    return (
        keep(kept, rekeyed)
        + say_in_use(terms, rekeyed)
        + Decision(media=(renewed,))
        + told(rekeyed, ReportEvent.EPOCH, now)
    )


def _once_more(terms: Terms, inside: Attendance, kept: Kept, message: Joined | Rekey) -> Decision:
    """The epoch that was taken: the focus has not heard so, or listens elsewhere now. Its grant is not
    opened: it could say nothing new, and does not bind the address, which whoever can write here could change
    with the grant that he has seen."""
    if message.media == inside.focus_media:
        return say_in_use(terms, inside)
    moved = msgspec.structs.replace(inside, focus_media=message.media)
    media = (MoveMedia(inside.session, message.media),)
    return keep(kept, moved) + say_in_use(terms, moved) + Decision(media=media)


def _too_late(
    terms: Terms, over: Attendance, kept: Kept, message: Joined | Rekey, now: int, random: Random
) -> Decision:
    """The focus still counts this member in: it hears that it has left, after this very epoch, whose
    key is not kept."""
    if over.leave:
        return say_leave(terms, over)
    try:
        grant = opened(over, message, now)  # OR-20 to OR-23, OR-29
    except Refused:
        return NOTHING
    leaving = with_leave(over, grant.epoch, random)
    return keep(kept, leaving) + say_leave(terms, leaving)


def _media_closed(attendance: Attendance, kept: Kept, closed: MediaClosed, now: int) -> Decision:
    """The engine has closed the session; by itself, when K_e has ended and no other has come."""
    reported = told(attendance, ReportEvent.MEDIA, now, statistics=closed.statistics)
    if closed.expired and attendance.state is AttendanceState.IN:
        return reported + out(kept, attendance, "expired", now)
    return reported


def _silent(terms: Terms, attendance: Attendance, kept: Kept, now: int) -> Decision:
    """Nothing comes from the focus. It may be taken over just now; or this member was put out, has not heard
    so, and speaks under a key that others have who are gone. It says IN-USE until another epoch comes: a
    focus that does not count it in answers PUT-OUT."""
    asks = msgspec.structs.replace(attendance, repeats=0, repeat_at=now + REPEAT_S)
    silent = told(attendance, ReportEvent.MEDIA, now, reason="silent")
    return keep(kept, asks) + say_in_use(terms, asks) + silent


def _look_again(terms: Terms, attendance: Attendance, kept: Kept, now: int) -> Decision:
    """An AttendanceAlarm: what has lasted too long is over, what was not answered is repeated."""
    state = attendance.state
    if now >= attendance.give_up_at:
        match state:
            case AttendanceState.JOINING:
                return out(kept, attendance, DeclineReason.NO_ANSWER, now)
            case AttendanceState.IN:
                return out(kept, attendance, "expired", now)
            case AttendanceState.LEAVING:
                return out(kept, attendance, LEFT, now)
            case AttendanceState.OUT:
                return forget(kept, attendance)
    if now < attendance.repeat_at:
        return keep(kept, attendance)
    repeats = attendance.repeats + 1
    again = msgspec.structs.replace(
        attendance,
        repeats=repeats,
        repeat_at=now + repeat_s(repeats),
    )
    match state:
        case AttendanceState.JOINING:
            return keep(kept, again) + say_join(terms, again)
        case AttendanceState.IN:
            return keep(kept, again) + say_in_use(terms, again)
        case AttendanceState.LEAVING | AttendanceState.OUT:
            return keep(kept, again) + say_leave(terms, again)


def _no(handset: Handset, wish: JoinConference | LeaveConference, reason: str, now: int) -> Decision:
    """Of a wish that leads nowhere."""
    message = Report(
        event=ReportEvent.LEFT_CONFERENCE,
        device=handset.impi,
        at=now,
        request=wish.request,
        reason=reason,
        caller=handset.identity,
        callee=wish.focus,
        group=wish.group,
    )
    return Decision(sends=(Send(REPORTS, wish.group.hex(), message),))
