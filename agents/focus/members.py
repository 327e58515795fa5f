"""Members of a conference, as its focus sees them: they come, take each epoch, and go.

    1  i -> C   JOIN      C, G, ID-C, ID-i, KID-i, suite, offer, token_g
    4  C -> i   JOINED    C, G, ID-C, ID-i, e, grant_i, answer        or JOIN-REFUSED
       C -> i   REKEY     C, G, ID-C, ID-i, e, grant_i                repeated until IN-USE comes
       i -> C   IN-USE    C, G, ID-C, ID-i, e
       i -> C   LEAVE     C, G, ID-C, ID-i, KID-i, e, sealed          LEAVE-OK

A focus opens none of their seals. It believes a message for what it costs: one that comes from another device
than the one that has joined by this C changes nothing.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agents.decision import Put
from agents.focus.changing import removal, request_of
from agents.focus.turn import REPEAT_S, Turn, again_after_s, contact_of
from protocol.checks import RefusalCode
from protocol.description import BodyMalformed, NothingInCommon, answer_to, read_description
from protocol.encoding import digest
from protocol.limits import LIFE_S
from storage.focus_records import Attendee, AttendeeState, ChangeKind, Handed, Wanted
from topics.messages import (
    ConferenceEvent,
    GroupGrant,
    InUse,
    Join,
    Joined,
    JoinRefused,
    Leave,
    LeaveOk,
    PutOut,
    Rekey,
    RemoveMember,
    named_group,
)

NOT_IN: Final = "not-in"
PUT_OUT: Final = "put-out"  # by an operator
_IN_VAIN: Final = 4  # so often a grant is sent before it is taken for a wrong one


def join(turn: Turn, message: Join, handed: Handed | None) -> None:
    """Somebody wants to come in: the KMS decides. A repeat gets the same answer."""
    known = turn.find(message.member, message.call)
    if known is not None:
        same = contact_of(known) == message.sender and known.token_hash == digest(message.token_g)
        if same and known.state is AttendeeState.IN and handed is not None:
            _hand_over(turn, known, handed)
        return None
    try:
        offer = read_description(message.offer)
        answer = answer_to(offer, turn.settings.srtp_suites, turn.settings.codecs).octets
    except BodyMalformed:
        return _refuse(turn, message, RefusalCode.MALFORMED)
    except NothingInCommon:
        return _refuse(turn, message, RefusalCode.UNSUPPORTED)
    if message.run != 0:
        return _refuse(turn, message, RefusalCode.NOT_FOUND)
    members, asks = turn.conference.members, (message.member, message.sender)
    if any(each.put_out for each in members if each.identity == message.member):
        return _refuse(turn, message, RefusalCode.NOT_PERMITTED)
    for each in members:  # a device asks for one place at a time
        if each.state is AttendeeState.ASKING and (each.identity, contact_of(each)) == asks:
            if not _is_gathered(turn, each):
                return None  # the KMS has it; what is repeated until then comes again
            turn.drop(each)
    here = {each.identity for each in members if each.state is not AttendeeState.GOING}
    if len(here - {message.member}) >= turn.settings.members_max:
        return _refuse(turn, message, RefusalCode.TOO_MANY)
    asking = Attendee(
        identity=message.member,
        call=message.call,
        state=AttendeeState.ASKING,
        host=message.sender.host,
        device=message.sender.device,
        key_id=message.member_key,
        token_hash=digest(message.token_g),
        answer=answer,
        media=message.media,
        line=None,
        since=turn.now,
        awaited=turn.now,
    )
    line = turn.take_line(turn.session(asking))
    if line is None:
        return _refuse(turn, message, RefusalCode.BUSY)
    turn.alter(asking, line=line)
    turn.want(
        Wanted(
            kind=ChangeKind.JOIN,
            member=message.member,
            call=message.call,
            key_id=message.member_key,
            suite=message.suite,
            sealed=message.token_g,
        )
    )
    return None


def hand_over(turn: Turn, message: GroupGrant, before: Handed | None) -> None:
    """grant_i, for whom it is; kept, so that it can be sent once more. before: the one kept so far."""
    conference = turn.conference
    member = turn.inside(message.member)
    if member is None or message.epoch != conference.epoch or member.identity not in conference.roster:
        return
    repeats = before.repeats if before is not None and before.epoch == message.epoch else 0
    handed = Handed(epoch=message.epoch, grant=message.grant, repeats=repeats)
    turn.put(Put(Handed.key_for(conference.group, member.identity), handed, turn.now + LIFE_S))
    if member.in_use != message.epoch:
        _hand_over(turn, member, handed)


def hand_over_again(turn: Turn, identity: str, handed: Handed | None) -> None:
    """A RekeyAlarm: it has not said that it uses the epoch. A grant that did not come is asked for again; so
    is one that was sent in vain a few times, which may be no grant."""
    conference = turn.conference
    member = turn.inside(identity)
    if member is None or member.in_use == conference.epoch:
        return
    repeats, needed = 0, True
    if handed is not None and handed.epoch == conference.epoch:
        _hand_over(turn, member, handed)
        repeats = handed.repeats + 1
        needed = repeats % _IN_VAIN == 0
        again = msgspec.structs.replace(handed, repeats=repeats)
        turn.put(Put(Handed.key_for(conference.group, identity), again, turn.now + LIFE_S))
    if needed and conference.taken is not None and turn.now >= conference.again_at + REPEAT_S:
        turn.change(again_at=turn.now)
        turn.ask_kms(request_of(turn, conference.taken))
    turn.look_at(identity, turn.now + again_after_s(repeats))


def in_use(turn: Turn, message: InUse) -> None:
    """It has taken the epoch."""
    member = turn.find(message.member, message.call)
    if member is None:
        told = PutOut(
            call=message.call,
            member=message.member,
            reason=NOT_IN,
            to=message.sender.device,
            **turn.about,
        )
        return turn.say(message.sender, told)
    if contact_of(member) != message.sender or member.state is not AttendeeState.IN:
        return None
    if message.epoch == turn.conference.epoch and member.in_use != message.epoch:
        turn.alter(member, in_use=message.epoch, confirmed=True)
        turn.change(heard_at=turn.now)
        turn.look_at(member.identity, None)
    return None


def leave(turn: Turn, message: Leave) -> None:
    """It is heard no more from now on; the KMS reads its leave, and makes an epoch without it."""
    member = turn.find(message.member, message.call)
    if member is None:
        return turn.say(message.sender, leave_ok(message))
    if contact_of(member) != message.sender or member.key_id != message.member_key:
        return None
    if member.state is AttendeeState.ASKING:  # it has no epoch yet that it could name
        return None
    turn.say(message.sender, leave_ok(message))
    if member.state is AttendeeState.IN:
        _go(turn, member)
        turn.want(
            Wanted(
                kind=ChangeKind.LEAVE,
                member=member.identity,
                call=member.call,
                key_id=member.key_id,
                sealed=message.sealed,
                epoch=message.epoch,
            )
        )
    return None


def leave_ok(message: Leave) -> LeaveOk:
    """The answer to a LEAVE, also where there is nobody to leave."""
    about = named_group(message)
    return LeaveOk(call=message.call, member=message.member, to=message.sender.device, **about)


def remove(turn: Turn, message: RemoveMember) -> None:
    """An operator puts an identity out, whichever of its devices are in, want to be, or are on their way out.
    The KMS hears of it in each case: it alone can keep who was put out from coming back."""
    found = [each for each in turn.conference.members if each.identity == message.member]
    for attendee in found:
        match attendee.state:
            case AttendeeState.IN:
                put_out(turn, attendee, PUT_OUT, barred=True)
            case AttendeeState.ASKING if _is_gathered(turn, attendee):
                turn.refuse_join(attendee, RefusalCode.NOT_PERMITTED)
            case AttendeeState.ASKING | AttendeeState.GOING:  # the KMS may be asked just now
                turn.alter(attendee, put_out=True)
    if found or message.member in turn.conference.roster:  # the KMS may count in who is not here
        turn.want(removal(message.member))
    else:
        turn.report(
            ConferenceEvent.REFUSED,
            member=message.member,
            code=RefusalCode.NOT_FOUND,
            request=message.request,
        )


def put_out(turn: Turn, member: Attendee, reason: str, *, barred: bool) -> None:
    """It is in no more, and hears so; barred: nor is it to come back."""
    gone = turn.alter(_go(turn, member), put_out=barred)
    turn.put_out(member, reason)
    absent = Wanted(kind=ChangeKind.ABSENT, member=gone.identity, call=gone.call)
    turn.want(removal(gone.identity) if barred else absent)


def _go(turn: Turn, member: Attendee) -> Attendee:
    turn.close(member)
    turn.look_at(member.identity, None)
    return turn.alter(member, state=AttendeeState.GOING, line=None, in_use=0)


def _hand_over(turn: Turn, member: Attendee, handed: Handed) -> None:
    """JOINED until it has taken an epoch, then REKEY."""
    if handed.epoch != turn.conference.epoch or member.line is None:
        return
    about: dict[str, Any] = {
        "call": member.call,
        "member": member.identity,
        "epoch": handed.epoch,
        "grant": handed.grant,
        "media": turn.settings.lines[member.line],
        "to": member.device,
        **turn.about,
    }
    contact = contact_of(member)
    turn.say(contact, Rekey(**about) if member.confirmed else Joined(answer=member.answer, **about))


def _is_gathered(turn: Turn, attendee: Attendee) -> bool:
    """The KMS has not been asked for it yet."""
    name = (attendee.identity, attendee.call)
    return any((wanted.member, wanted.call) == name for wanted in turn.conference.queue)


def _refuse(turn: Turn, message: Join, code: RefusalCode) -> None:
    turn.say(message.sender, join_refused(message, code))
    turn.report(ConferenceEvent.REFUSED, member=message.member, code=code)


def join_refused(message: Join, code: RefusalCode) -> JoinRefused:
    """The answer to a JOIN that leads nowhere."""
    about = named_group(message)
    return JoinRefused(call=message.call, member=message.member, code=code, to=message.sender.device, **about)
