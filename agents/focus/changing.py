"""How a conference comes to its next epoch: changes are gathered, the KMS is asked, its grants are taken.

    2  C -> KMS  GROUP           G, e, ID-C, KID-C, suite, changes, token_c      repeated until it is answered
    3  KMS -> C  GROUP-RESPONSE  grant_c                                         or GROUP-REFUSAL

Who is in is what the roster says. A change that the KMS refuses is left out and the rest asked for again,
under another token_c; an answer to an earlier one is still taken, since a repeat of it may have been granted.
"""

from __future__ import annotations

from typing import Final

from agents.focus.ending import end
from agents.focus.turn import REPEAT_S, Turn, again_after_s, own_holder
from protocol.checks import RefusalCode, Refused
from protocol.conference import EpochName, open_focus_grant, open_group_refusal, seal_focus_token
from protocol.evidence import FocusGrant, FocusToken
from protocol.limits import CHANGES_MAX, EPOCH_S, OVERLAP_S
from protocol.sealing import Random
from storage.focus_records import Asked, Attendee, AttendeeState, ChangeKind, Wanted
from topics.messages import (
    AbsentChange,
    Change,
    ConferenceEvent,
    GroupRefusal,
    GroupRequest,
    GroupResponse,
    JoinChange,
    LeaveChange,
    RefreshChange,
    RemoveChange,
)

REFRESH_S: Final = 60  # another epoch is asked for so long before the end of one
_REQUEST_OCTETS: Final = 12_288  # of the changes in one GROUP, so that it fits into a message
_CHANGE_OCTETS: Final = 80  # of what else a change has
_EARLIER_MAX: Final = 4  # GROUPs for one epoch whose answer is still known
_SPEAK_S: Final = 0.3  # somebody has gone: the rest may need so long for the new key
_SPEAK_JOINED_S: Final = 1.0  # nobody has: the old key serves as well
_OF_THE_MOMENT: Final = frozenset({RefusalCode.TOO_MANY, RefusalCode.BUSY})  # a repeat may be granted
REFRESH: Final = Wanted(kind=ChangeKind.REFRESH)


def ask(turn: Turn, random: Random) -> None:
    """The KMS, for an epoch with what was gathered, who goes before who comes; unless it is being asked."""
    if not turn.conference.asked and turn.conference.queue:
        _ask_next(turn, random)


def _ask_next(turn: Turn, random: Random) -> None:
    conference = turn.conference
    first = sorted(conference.queue, key=lambda wanted: wanted.kind is ChangeKind.JOIN)
    chosen: list[Wanted] = []
    octets = 0
    for wanted in first[:CHANGES_MAX]:
        octets += len(wanted.sealed) + len(wanted.member) + len(wanted.key_id) + _CHANGE_OCTETS
        if octets > _REQUEST_OCTETS:
            break
        chosen.append(wanted)
    turn.change(queue=tuple(each for each in conference.queue if each not in chosen))
    others = tuple(each for each in chosen if each.kind is not ChangeKind.REFRESH)
    _ask_for(turn, others or (REFRESH,), random)


def ask_again(turn: Turn) -> None:
    """The open GROUP once more, if it is time."""
    conference = turn.conference
    if turn.now < conference.repeat_at:
        return
    repeats = conference.repeats + 1
    turn.change(repeats=repeats, repeat_at=turn.now + again_after_s(repeats))
    turn.ask_kms(request_of(turn, conference.asked[-1]))


def request_of(turn: Turn, asked: Asked) -> GroupRequest:
    """The same octets each time."""
    return GroupRequest(
        epoch=asked.epoch,
        focus_key=turn.settings.key_id,
        suite=turn.settings.suite,
        changes=tuple(map(_change_of, asked.changes)),
        token_c=asked.token_c,
        **turn.about,
    )


def granted(turn: Turn, response: GroupResponse) -> None:
    """grant_c: the epoch is there. One that does not open for any GROUP of ours changes nothing."""
    conference = turn.conference
    problem: Refused | None = None
    for asked in reversed(conference.asked):
        if response.epoch != asked.epoch:
            continue
        try:
            grant = open_focus_grant(
                own_holder(turn.settings),
                _name(turn, asked.epoch),
                response.grant_c,
                token_c=asked.token_c,
                nonce=asked.nonce,
                now=turn.now,
            )  # OR-20 to OR-23
        except Refused as refused:
            problem = problem or refused
        else:
            _take(turn, asked, grant)
            return
    if problem is not None:
        turn.report(ConferenceEvent.REFUSED, code=problem.code, reason=str(problem.check))


def refused(turn: Turn, refusal: GroupRefusal, random: Random) -> None:
    """A sealed refusal is believed; any other is a hint: the KMS is asked again."""
    conference = turn.conference
    of_open = conference.asked[-1] if conference.asked else None
    for asked in (of_open, conference.taken):
        if asked is None or asked.epoch != refusal.epoch or refusal.sealed is None:
            continue
        try:
            code = open_group_refusal(
                own_holder(turn.settings),
                _name(turn, asked.epoch),
                refusal.sealed,
                token_c=asked.token_c,
                nonce=asked.nonce,
            )  # OR-20, OR-21
        except Refused:
            continue
        if asked is not of_open:  # its grants were asked for once more, too late
            turn.want(REFRESH)
        elif refusal.change is not None and refusal.change < len(asked.changes):
            _without(turn, asked, asked.changes[refusal.change], code, random)
        else:
            _refused_whole(turn, asked, code, random)
        return
    if refusal.sealed is None:
        turn.report(ConferenceEvent.REFUSED, code=refusal.code)


def removal(identity: str) -> Wanted:
    """An operator's word: it names no call, since it is of each device of this identity."""
    return Wanted(kind=ChangeKind.REMOVE, member=identity)


def _ask_anew(turn: Turn, changes: tuple[Wanted, ...], random: Random) -> None:
    """Under another token_c, together with what was gathered meanwhile: who has left since does not wait for
    joins that were refused. Who is not to come any more is not asked for again."""
    for wanted in changes:
        attendee = turn.find(wanted.member, wanted.call)
        if wanted.kind is ChangeKind.JOIN and attendee is not None and attendee.put_out:
            turn.refuse_join(attendee, RefusalCode.NOT_PERMITTED)
    still = tuple(
        wanted
        for wanted in changes
        if wanted.kind is not ChangeKind.JOIN or turn.find(wanted.member, wanted.call) is not None
    )
    gathered = tuple(wanted for wanted in turn.conference.queue if wanted not in still)
    turn.change(queue=(*still, *gathered))
    _ask_next(turn, random)


def _ask_for(turn: Turn, changes: tuple[Wanted, ...], random: Random) -> None:
    epoch, nonce = turn.conference.next_epoch, random(16)
    token_c = seal_focus_token(
        own_holder(turn.settings),
        _name(turn, epoch),
        FocusToken(turn.conference.group, epoch, nonce, turn.now),
        changes=[_change_of(wanted).octets for wanted in changes],
        random=random,
    )
    asked = Asked(epoch=epoch, token_c=token_c, nonce=nonce, changes=changes)
    earlier = turn.conference.asked[1 - _EARLIER_MAX :]
    turn.change(asked=(*earlier, asked), repeats=0, repeat_at=turn.now + REPEAT_S)
    turn.ask_kms(request_of(turn, asked))


def _name(turn: Turn, epoch: int) -> EpochName:
    conference = turn.conference
    return EpochName(group=conference.group, epoch=epoch, focus=conference.focus, suite=turn.settings.suite)


def _change_of(wanted: Wanted) -> Change:
    match wanted.kind:
        case ChangeKind.JOIN:
            return JoinChange(wanted.call, 0, wanted.member, wanted.key_id, wanted.suite, wanted.sealed)
        case ChangeKind.LEAVE:
            return LeaveChange(wanted.member, wanted.key_id, wanted.epoch, wanted.sealed)
        case ChangeKind.REMOVE:
            return RemoveChange(wanted.member)
        case ChangeKind.ABSENT:
            return AbsentChange(wanted.member)
        case ChangeKind.REFRESH:
            return RefreshChange()


def _without(turn: Turn, asked: Asked, bad: Wanted, code: RefusalCode, random: Random) -> None:
    """The KMS will not have this change: the rest is asked for again, after who goes by now."""
    rest = tuple(each for each in asked.changes if each != bad)
    attendee = turn.find(bad.member, bad.call)
    if bad.kind is ChangeKind.JOIN:
        unknown = code is RefusalCode.REPLAY and turn.conference.missed
        if attendee is not None and not unknown:  # else the next roster tells whether it is in
            turn.refuse_join(attendee, code)
        needed = unknown
    else:
        turn.report(ConferenceEvent.REFUSED, member=bad.member, code=code)
        needed = True  # the next roster tells whether it is in
    if rest or needed or turn.conference.queue:
        _ask_anew(turn, rest, random)
    else:
        turn.change(asked=())


def _refused_whole(turn: Turn, asked: Asked, code: RefusalCode, random: Random) -> None:
    if code in _OF_THE_MOMENT:
        return
    turn.report(ConferenceEvent.REFUSED, code=code)
    if code is RefusalCode.STALE:
        _ask_anew(turn, asked.changes, random)
    elif code in {RefusalCode.REPLAY, RefusalCode.EXPIRED}:  # the KMS has made this epoch, and it is lost
        turn.change(asked=(), next_epoch=asked.epoch + 1, missed=True)
        _ask_anew(turn, asked.changes, random)
    else:
        end(turn, f"kms: {code}")


def _take(turn: Turn, asked: Asked, grant: FocusGrant) -> None:
    """Everybody has the place that the roster gives."""
    before = turn.conference
    turn.change(
        epoch=grant.epoch,
        next_epoch=grant.epoch + 1,
        key=grant.key,
        granted=grant.now,
        taken_at=turn.now,
        not_after=grant.not_after,
        roster=grant.roster,
        refresh_at=turn.now + max(REFRESH_S // 12, min(EPOCH_S, grant.not_after - grant.now) - REFRESH_S),
        asked=(),
        taken=asked,
        missed=False,
        again_at=turn.now,
    )
    joined = {(each.member, each.call) for each in asked.changes if each.kind is ChangeKind.JOIN}
    if before.missed:
        joined |= {
            (each.identity, each.call)
            for each in before.members
            if each.state is AttendeeState.ASKING and not _is_queued(turn, each)
        }
    replaced = _place(turn, joined, frozenset(grant.roster))
    _miss(turn)
    gone = bool(replaced or set(before.roster) - set(grant.roster))
    for attendee in turn.conference.members:
        if attendee.state is not AttendeeState.IN:
            continue
        if attendee.in_use == before.epoch:
            attendee = turn.alter(attendee, awaited=turn.now)  # noqa: PLW2901
        if attendee.line is None:  # there was none when it was taken over
            turn.open(turn.alter(attendee, line=turn.take_line(turn.session(attendee))))
        elif (attendee.identity, attendee.call) in joined:
            turn.open(attendee)
        elif gone:
            turn.renew(attendee, _SPEAK_S, 0.0)
        else:
            turn.renew(attendee, _SPEAK_JOINED_S, float(OVERLAP_S))
        turn.look_at(attendee.identity, turn.now + REPEAT_S)
    if not turn.conference.members:
        turn.change(since=turn.now)
    turn.report(
        ConferenceEvent.EPOCH,
        roster=grant.roster,
        not_after=grant.not_after,
        instance=turn.settings.instance,
    )
    if turn.conference.queue:
        turn.soon()


def _place(turn: Turn, joined: set[tuple[str, bytes]], roster: frozenset[str]) -> bool:
    """By the roster: who is in, who is not. joined: whose joins this epoch was asked with. Returns whether a
    device has taken another one's place, or its own again."""
    replaced = False
    for attendee in turn.conference.members:
        name = (attendee.identity, attendee.call)
        on_roster = attendee.identity in roster
        newer = any(identity == attendee.identity and call != attendee.call for identity, call in joined)
        match attendee.state:
            case AttendeeState.ASKING if name in joined:
                if not on_roster or (newer and name != _last(turn, joined, attendee.identity)):
                    turn.refuse_join(attendee, RefusalCode.REPLAY)
                elif attendee.put_out:
                    _put_out_at_once(turn, attendee)
                else:
                    turn.alter(attendee, state=AttendeeState.IN, awaited=turn.now)
            case AttendeeState.ASKING:
                pass
            case AttendeeState.IN if newer:
                replaced = True
                turn.drop(attendee)
                turn.put_out(attendee, "replaced")
            case AttendeeState.IN if not on_roster:
                turn.drop(attendee)
                turn.put_out(attendee, "key-ended")
            case AttendeeState.GOING if newer or not on_roster:
                replaced = replaced or newer
                turn.drop(attendee)
            case AttendeeState.GOING if attendee.put_out:
                turn.want(removal(attendee.identity))
            case AttendeeState.GOING if not _is_queued(turn, attendee):
                _back_in(turn, attendee)
            case _:
                pass
    return replaced


def _put_out_at_once(turn: Turn, attendee: Attendee) -> None:
    """An operator has put it out while the KMS let it in."""
    turn.close(attendee)
    turn.alter(attendee, state=AttendeeState.GOING, line=None)
    turn.want(removal(attendee.identity))


def _miss(turn: Turn) -> None:
    """The KMS counts in who is not here: nobody waits for that grant."""
    here = {turn.conference.focus, *(each.identity for each in turn.conference.members)}
    for identity in turn.conference.roster:
        if identity not in here:
            turn.want(Wanted(kind=ChangeKind.ABSENT, member=identity))


def _back_in(turn: Turn, attendee: Attendee) -> None:
    """Its leave was not its own: it is in still."""
    line = turn.take_line(turn.session(attendee))
    turn.alter(attendee, state=AttendeeState.IN, line=line, in_use=0, awaited=turn.now)


def _is_queued(turn: Turn, attendee: Attendee) -> bool:
    name = (attendee.identity, attendee.call)
    return any((each.member, each.call) == name for each in turn.conference.queue)


def _last(turn: Turn, joined: set[tuple[str, bytes]], identity: str) -> tuple[str, bytes]:
    """The last one of those who have joined under this identity, in the order in which they came."""
    names = [
        (each.identity, each.call)
        for each in turn.conference.members
        if each.identity == identity and (each.identity, each.call) in joined
    ]
    return names[-1]
