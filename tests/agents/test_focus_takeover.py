"""A focus process that is gone, or has lost the partition, and the one that goes on."""

from __future__ import annotations

import pytest

from agents.alarms import ConferenceAlarm, StillMine
from agents.decision import NOTHING
from media.leg import OpenMedia, RenewMedia
from protocol.limits import EPOCH_S
from storage.focus_records import ConferenceState
from tests.agents.hall import (
    GROUP,
    LINES,
    Hall,
    legs,
    name_of,
)
from tests.agents.scene import NOW
from topics.messages import (
    ConferenceEvent,
    GroupGrant,
    GroupRequest,
    GroupResponse,
    RefreshChange,
    Rekey,
)

OTHER = "sip:other@ims.example"


def rosters(hall: Hall) -> list[str]:
    return [" ".join(roster) for roster in hall.rosters()]


def test_a_takeover_keeps_the_epoch_and_tells_everybody_where() -> None:
    hall = Hall()
    ann, ben, cat = hall.meet("ann", "ben", "cat")
    hall.give(cat.leave())
    hall.batch()
    hall.process("two")
    hall.media.clear()
    asked = len(hall.asked)
    decision = hall.later(NOW + 4)
    assert StillMine(GROUP) in [wake.alarm for wake in decision.wakes]
    assert hall.show(NOW + 4).in_use == ()
    assert legs(hall.media) == [("renew", "ann", 2), ("renew", "ben", 2)], "which opens what is not open"
    assert {each.leg.lifetime_s for each in hall.media if isinstance(each, RenewMedia)} == {EPOCH_S - 4}
    assert hall.events(ConferenceEvent.TAKEN_OVER)[0].instance == "two"
    hall.lost = [GroupRequest]
    hall.later(NOW + 5)
    rekeys = hall.said(Rekey)[-2:]
    assert {(rekey.epoch, rekey.to) for rekey in rekeys} == {
        (2, ann.contact.device),
        (2, ben.contact.device),
    }
    assert hall.show(NOW + 5).in_use == (ann.identity, ben.identity)
    assert len(hall.asked) == asked, "the KMS was not needed"
    assert (ann.taken, cat.taken) == (2, 1)
    assert hall.conference.epoch == 2


def test_a_takeover_asks_for_another_epoch_since_an_ssrc_may_come_twice_under_one_key() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.process("two")
    hall.later(NOW + 4)
    hall.batch(NOW + 4)
    assert hall.asked[-1].changes == (RefreshChange(),)
    assert (hall.conference.epoch, ann.taken, ben.taken) == (2, 2, 2)
    for guest in (ann, ben):
        hall.give(guest.leave(), NOW + 5)
    hall.batch(NOW + 5)
    asked = len(hall.asked)
    hall.process("three")
    hall.later(NOW + 8)
    hall.batch(NOW + 8)
    assert len(hall.asked) == asked, "nobody is in"


def test_a_process_that_has_the_partition_again_moves_its_legs_to_the_last_key() -> None:
    """It has not looked yet whether the conference was still its own: its legs are open under an old key."""
    hall = Hall()
    hall.meet("ann", "ben")
    hall.process("two")
    hall.give(ConferenceAlarm(GROUP), NOW + 1)
    hall.batch(NOW + 1)
    hall.process("one")
    hall.media.clear()
    hall.give(ConferenceAlarm(GROUP), NOW + 2)
    assert legs(hall.media) == [("renew", "ann", 2), ("renew", "ben", 2)]


def test_a_process_that_has_lost_the_partition_closes_its_media() -> None:
    hall = Hall()
    hall.meet("ann", "ben")
    assert hall.still_mine().wakes[0].soon_ms == 2_000
    hall.process("two")
    hall.later(NOW + 4)
    hall.process("one")
    hall.media.clear()
    decision = hall.still_mine()
    assert legs(hall.media) == [("close", "ann", 0), ("close", "ben", 0)]
    assert not decision.wakes
    assert (hall.lines("one"), len(hall.lines("two"))) == ([], 2)
    assert hall.conference.instance == "two"
    assert hall.still_mine() == NOTHING


def test_what_is_repeated_waits_for_the_takeover() -> None:
    hall = Hall(quiet=True)
    hall.create()
    ann, ben = hall.guest("ann"), hall.guest("ben")
    hall.give(ann.join())
    hall.hold = [GroupResponse, GroupGrant]
    hall.batch()
    hall.process("two")
    before = hall.conference
    hall.release()
    assert hall.give(ben.join()) == NOTHING
    assert hall.conference == before
    hall.quiet = False
    for second in range(1, 6):
        hall.later(NOW + second)
    hall.give(ben.join(), NOW + 6)
    hall.batch(NOW + 6)
    assert (ann.taken, ben.taken) == (2, 2)
    assert [name_of(each) for each in hall.lines("two")] == ["ann", "ben"]
    assert hall.lines("one") == ["sip:ann@ims.example"]


def test_a_takeover_with_a_leave_under_way_brings_nobody_back() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.lost = [GroupRequest]
    hall.give(ben.leave())
    hall.batch()
    hall.lost = []
    hall.process("two")
    hall.media.clear()
    for second in (4, 6, 8):
        hall.later(NOW + second)
        assert [name_of(each) for each in hall.lines("two")] == ["ann"]
    assert ("open", "ben", 1) not in legs(hall.media)
    assert rosters(hall)[-1] == "ann focus"
    assert (ann.taken, ben.taken) == (3, 1)


def test_a_takeover_by_a_process_with_too_few_lines() -> None:
    hall = Hall()
    _, ben = hall.meet("ann", "ben")
    hall.settings = type(hall.settings)(
        **{
            **{name: getattr(hall.settings, name) for name in type(hall.settings).__dataclass_fields__},
            "lines": LINES[:1],
        }
    )
    hall.process("two")
    hall.later(NOW + 4)
    hall.later(NOW + 5)
    assert [name_of(each) for each in hall.lines("two")] == ["ann"]
    assert hall.attendee(ben) is not None
    hall.give(hall.guests[next(iter(hall.guests))].leave(), NOW + 6)
    hall.batch(NOW + 6)
    assert [name_of(each) for each in hall.lines("two")] == ["ben"]
    assert ben.taken == hall.conference.epoch


def test_a_takeover_just_before_the_refresh_gives_everybody_time() -> None:
    hall = Hall()
    [ann] = hall.meet("ann")
    hall.process("two")
    hall.give(ConferenceAlarm(GROUP), NOW + EPOCH_S - 61)
    hall.give(ConferenceAlarm(GROUP), NOW + EPOCH_S - 59)
    assert (hall.conference.state, hall.conference.epoch, ann.taken) == (ConferenceState.OPEN, 2, 2)


@pytest.mark.parametrize("ahead_s", [-60, 60])
def test_a_key_ends_by_the_instant_and_by_the_time_that_it_had(ahead_s: int) -> None:
    """Where the clock of the focus differs from the KMS's, the lesser of the two counts."""
    hall = Hall()
    hall.create(NOW)
    hall.hold = [GroupResponse, GroupGrant]
    hall.give(hall.guest("ann").join())
    hall.batch()
    hall.release(NOW + ahead_s)
    [opened] = hall.media
    assert isinstance(opened, OpenMedia)
    assert opened.leg.lifetime_s == EPOCH_S - max(0, ahead_s)
    hall.process("two")
    hall.media.clear()
    hall.later(NOW + ahead_s + 100)
    [taken] = hall.media
    assert isinstance(taken, RenewMedia)
    assert taken.leg.lifetime_s == EPOCH_S - 100 - max(0, ahead_s)


def test_a_late_takeover_opens_nothing_under_a_key_that_is_over() -> None:
    hall = Hall()
    [ann] = hall.meet("ann")
    hall.process("two")
    hall.media.clear()
    hall.later(NOW + EPOCH_S + 1)
    assert not hall.media
    hall.later(NOW + EPOCH_S + 3)
    assert hall.conference.state is ConferenceState.ENDED or ann.taken == 2
