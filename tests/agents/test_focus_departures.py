"""Who is out of a conference stays out, whichever way it went; and who is gone without a word is not kept."""

from __future__ import annotations

import msgspec
import pytest

from agents.kms import KmsSettings
from media.leg import RenewMedia
from protocol.checks import RefusalCode
from protocol.encoding import digest
from protocol.limits import EPOCH_S
from storage.focus_records import AttendeeState, ConferenceState
from storage.kms_records import Group
from tests.agents.hall import ABOUT, FOCUS, GROUP, Guest, Hall, legs, name_of
from tests.agents.scene import NOW
from topics.messages import (
    AbsentChange,
    ConferenceEvent,
    GroupGrant,
    GroupRequest,
    GroupResponse,
    Joined,
    JoinRefused,
    LeaveChange,
    PutOut,
    Rekey,
    RemoveChange,
)


def rosters(hall: Hall) -> list[str]:
    return [" ".join(roster) for roster in hall.rosters()]


def forged(guest: Guest) -> object:
    leave = guest.leave()
    return msgspec.structs.replace(leave, sealed=bytes(len(leave.sealed)))


# Who is put out.


@pytest.mark.parametrize("asked", [False, True], ids=["gathered", "asked for"])
def test_a_forged_leave_keeps_nobody_in_who_is_put_out(*, asked: bool) -> None:
    hall = Hall()
    _, ben = hall.meet("ann", "ben")
    hall.give(forged(ben))  # type: ignore[arg-type]
    hall.hold = [GroupRequest]
    if asked:
        hall.batch()
    hall.remove(ben.identity)
    hall.release()
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"
    assert hall.group.removed == (ben.identity,)
    assert hall.attendee(ben) is None
    assert ben.taken == 1


def test_nobody_is_back_in_by_an_epoch_that_was_made_before_he_was_put_out() -> None:
    hall = Hall()
    _, ben = hall.meet("ann", "ben")
    hall.give(forged(ben))  # type: ignore[arg-type]
    hall.batch()  # he is in again
    hall.give(forged(ben))  # type: ignore[arg-type]
    hall.hold = [GroupResponse, GroupGrant]
    hall.batch()  # and the epoch that tells so is on its way
    hall.remove(ben.identity)
    hall.stage.records[hall_key(hall)] = msgspec.structs.replace(hall.conference, queue=())
    hall.release()
    attendee = hall.attendee(ben)
    assert attendee is not None
    assert attendee.state is AttendeeState.GOING
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"


def hall_key(hall: Hall) -> str:
    return type(hall.conference).key_for(GROUP).name


@pytest.mark.parametrize("asked", [False, True], ids=["gathered", "asked for"])
def test_who_leaves_and_is_put_out_does_not_come_again(*, asked: bool) -> None:
    hall = Hall()
    _, ben = hall.meet("ann", "ben")
    hall.give(ben.leave())
    hall.hold = [GroupRequest]
    if asked:
        hall.batch()
    hall.remove(ben.identity)
    again = hall.guest("ben", 2)
    hall.give(again.join())
    hall.release()
    hall.batch()
    hall.give(again.join())
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"
    assert hall.group.removed == (ben.identity,)
    assert {refusal.code for refusal in hall.said(JoinRefused)} == {RefusalCode.NOT_PERMITTED}


def test_who_is_put_out_before_the_kms_has_heard_of_him_does_not_come_again() -> None:
    hall = Hall()
    hall.meet("ann")
    ben = hall.guest("ben")
    hall.give(ben.join())
    hall.remove(ben.identity)
    assert hall.said(JoinRefused)[-1].code is RefusalCode.NOT_PERMITTED
    again = hall.guest("ben", 2)
    hall.give(again.join())
    hall.batch()
    hall.give(again.join())
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"
    assert (hall.group.removed, again.taken) == ((ben.identity,), 0)


def test_who_is_put_out_while_he_is_asked_for_is_not_asked_for_again() -> None:
    hall = Hall(kms=KmsSettings(removed_may_return=True))
    hall.meet("ann")
    bad, ben = hall.guest("bad"), hall.guest("ben")
    hall.give(bad.join(token_g=bytes(100)))
    hall.give(ben.join())
    hall.hold = [GroupRequest]
    hall.batch()
    hall.remove(ben.identity)
    hall.release()
    assert hall.asked[-1].changes == (RemoveChange(ben.identity),)
    refused = {refusal.member: refusal.code for refusal in hall.said(JoinRefused)}
    assert refused[ben.identity] is RefusalCode.NOT_PERMITTED
    assert rosters(hall)[-1] == "ann focus"


def test_who_is_put_out_as_his_key_id_ends_does_not_come_again_with_another() -> None:
    hall = Hall()
    _, ben = hall.meet("ann", "ben")
    members = tuple(
        msgspec.structs.replace(each, not_after=NOW + 5) if each.identity == ben.identity else each
        for each in hall.group.members
    )
    name = Group.key_for(FOCUS, GROUP).name
    hall.town.records[name] = msgspec.structs.replace(hall.group, members=members)
    hall.remove(ben.identity, NOW + 10)
    hall.batch(NOW + 10)
    again = hall.guest("ben", 2, device="ben-2")
    hall.give(again.join(), NOW + 11)
    hall.batch(NOW + 11)
    assert rosters(hall)[-1] == "ann focus"
    assert hall.said(JoinRefused)[-1].code is RefusalCode.NOT_PERMITTED


def test_an_operator_who_repeats_himself_asks_for_one_epoch() -> None:
    hall = Hall()
    _, ben = hall.meet("ann", "ben")
    hall.lost = [GroupRequest]
    for _ in range(5):
        hall.remove(ben.identity)
    assert len(hall.conference.queue) == 1


# Who is gone.


def test_who_takes_no_epoch_for_long_is_out_and_may_come_again() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.quiet = True  # ben is gone without a word; ann goes on
    told = 0
    for second in range(1, 2 * EPOCH_S, 2):
        now = NOW + second
        hall.later(now)
        said: list[Joined | Rekey] = [*hall.said(Joined), *hall.said(Rekey)]
        for message in said:
            if message.call == ann.call and message.epoch > ann.taken:
                hall.give(ann.take(message, now), now)
        if second < EPOCH_S - 60 + EPOCH_S:
            assert hall.attendee(ben) is not None
            told = len(hall.asked)
    assert any(
        isinstance(change, AbsentChange) for request in hall.asked[told:] for change in request.changes
    )
    assert rosters(hall)[-1] == "ann focus"
    assert [name_of(each) for each in hall.lines()] == ["ann"]
    [out] = hall.said(PutOut)
    assert (out.to, out.reason) == (ben.contact.device, "absent")
    assert hall.group.removed == ()
    again, now = hall.guest("ben", 2, time=NOW + 2 * EPOCH_S), NOW + 2 * EPOCH_S
    hall.give(again.join(), now)
    hall.batch(now)
    assert rosters(hall)[-1] == "ann ben focus"


def test_who_waits_for_a_kms_that_is_away_is_not_absent() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.lost = [GroupRequest]
    for second in range(1, EPOCH_S + 100, 2):
        hall.later(NOW + second)
    hall.lost = []
    hall.later(NOW + EPOCH_S + 120)
    for second in range(EPOCH_S + 121, EPOCH_S + 140):
        hall.later(NOW + second)
    assert (ann.taken, ben.taken) == (hall.conference.epoch,) * 2
    assert not hall.said(PutOut)


def test_a_process_that_takes_over_gives_everybody_time_to_say_so() -> None:
    hall = Hall()
    _, ben = hall.meet("ann", "ben")
    hall.quiet, hall.lost = True, [GroupRequest]
    hall.process("two")
    hall.later(NOW + 200)
    hall.later(NOW + EPOCH_S + 10)
    attendee = hall.attendee(ben)
    assert attendee is not None
    assert attendee.state is AttendeeState.IN


def test_who_comes_in_late_has_as_long_as_all_others() -> None:
    hall = Hall(quiet=True)
    [ben] = hall.meet("ben")
    hall.give(ben.in_use(1))
    ann = hall.guest("ann", time=NOW + 200)
    hall.hold = [GroupRequest]
    hall.give(ann.join())
    hall.batch()
    hall.release(NOW + 250)
    hall.later(NOW + EPOCH_S + 10)
    attendee = hall.attendee(ann)
    assert attendee is not None
    assert attendee.state is AttendeeState.IN


def test_whom_the_kms_counts_in_and_nobody_knows_is_absent() -> None:
    hall = Hall()
    _, ben = hall.meet("ann", "ben")
    hall.stage.records[hall_key(hall)] = msgspec.structs.replace(
        hall.conference, members=tuple(each for each in hall.conference.members if each.call != ben.call)
    )
    hall.give(hall.guest("cat").join())
    hall.batch()
    hall.batch()
    assert rosters(hall)[-1] == "ann cat focus"


# What one member costs the others.


def test_a_device_that_asks_again_and_again_has_one_line_and_one_change() -> None:
    hall = Hall()
    hall.meet("ann")
    eve = hall.guest("eve")
    for number in range(20):
        call = digest(b"eve %d" % number)[:16]
        hall.guests[call] = eve
        hall.give(eve.join(call=call, token_g=bytes([number]) * 100))
    assert [name_of(each) for each in hall.lines()] == ["ann", "eve"]
    assert [each.member for each in hall.conference.queue] == [eve.identity]
    hall.hold = [GroupRequest]
    hall.batch()
    hall.give(hall.guest("eve", 2).join())
    assert not hall.conference.queue, "the KMS is being asked"
    tablet = hall.guest("eve", 3, device="eve-2")
    hall.give(tablet.join())
    hall.release()
    hall.batch()
    assert tablet.taken == hall.conference.epoch, "another device"


def test_a_leave_does_not_wait_for_joins_that_are_refused() -> None:
    hall = Hall()
    hall.meet("ann", "ben")
    ben = next(guest for guest in hall.guests.values() if guest.user == "ben")
    for number in range(8):
        hall.give(hall.guest(f"bad{number}").join(token_g=bytes(100)))
    hall.hold = [GroupRequest]
    hall.batch()
    hall.give(ben.leave())
    before = len(hall.asked)
    hall.release()
    first = next(
        place
        for place, request in enumerate(hall.asked[before:])
        if any(isinstance(change, LeaveChange) for change in request.changes)
    )
    assert first == 1
    assert rosters(hall)[-1] == "ann focus"
    assert len(hall.said(JoinRefused)) == 8


def test_who_leaves_and_comes_again_in_one_epoch_has_gone() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.media.clear()
    hall.give(ben.leave())
    hall.give(hall.guest("ben", 2).join())
    hall.batch()
    renewed = [each for each in hall.media if isinstance(each, RenewMedia)]
    assert [name_of(each.leg.remote) for each in renewed] == ["ann"]
    assert {(each.speak_within_s, each.overlap_s) for each in renewed} == {(0.3, 0.0)}
    assert ann.taken == 2


def test_a_grant_that_is_none_holds_nobody_up_for_long() -> None:
    """Who can write to the focus's inbox can put one in the place of the KMS's."""
    hall = Hall(quiet=True)
    ann, ben = hall.meet("ann", "ben")
    hall.give(ann.in_use(1))
    hall.give(GroupGrant(epoch=1, member=ben.identity, grant=bytes(100), **ABOUT))
    asked, told = len(hall.asked), len(hall.told)
    for second in range(1, 40):
        hall.later(NOW + second)
    assert len(hall.asked) == asked + 1, "the KMS was asked once more"
    grants = [each for _, each in hall.told[told:] if isinstance(each, Joined) and each.call == ben.call]
    assert grants[0].grant == bytes(100)
    assert ben.open(grants[-1], NOW).epoch == 1
    for second in range(40, 200):
        hall.later(NOW + second)
    assert len(hall.asked) == asked + 3, "less and less often"


# What is left of an epoch.


@pytest.mark.parametrize("how", ["nobody is in", "the KMS is away"])
def test_a_focus_keeps_no_key_that_has_ended(how: str) -> None:
    hall = Hall()
    ann, _ = hall.meet("ann", "ben")
    if how == "nobody is in":
        for guest in list(hall.guests.values()):
            hall.give(guest.leave())
        hall.batch()
    else:
        hall.lost = [GroupRequest]
    hall.later(NOW + EPOCH_S - 1)
    assert hall.conference.key is not None
    hall.later(NOW + EPOCH_S + 1)
    assert [hall.conference.key, hall.conference.state] == [None, ConferenceState.OPEN]
    hall.lost, hall.media[:] = [], []
    if how == "the KMS is away":
        hall.later(NOW + EPOCH_S + 20)
        assert ("renew", "ann", ann.taken) in legs(hall.media)
        assert not hall.events(ConferenceEvent.ENDED)
