"""A focus with a real KMS: who comes and goes, when what is lost, repeated or late, and who mixes."""

from __future__ import annotations

from typing import Any

import pytest

from agents.alarms import BatchAlarm
from agents.decision import NOTHING
from agents.kms import KmsSettings
from media.leg import OpenMedia, RenewMedia, Speakers
from protocol.checks import RefusalCode
from protocol.description import Description, Flow, SrtpSuite, read_description
from protocol.limits import CHANGES_MAX, EPOCH_S, MEMBERS_MAX, OVERLAP_S
from protocol.secret import Secret
from storage.focus_records import AttendeeState, ConferenceState
from tests.agents.hall import (
    ABOUT,
    FOCUS,
    GROUP,
    LINES,
    REQUEST,
    Guest,
    Hall,
    legs,
    name_of,
)
from tests.agents.scene import NOW
from topics.messages import (
    ConferenceEvent,
    CreateConference,
    GroupHint,
    GroupRequest,
    InUse,
    Joined,
    JoinRefused,
    LeaveOk,
    PutOut,
    RefreshChange,
    Rekey,
    ShowConference,
)

OTHER = "sip:other@ims.example"


def rosters(hall: Hall) -> list[str]:
    return [" ".join(roster) for roster in hall.rosters()]


# Coming.


def test_three_who_come_together_make_one_epoch() -> None:
    hall = Hall()
    hall.create()
    guests = [hall.guest(user) for user in ("ann", "ben", "cat")]
    for guest in guests:
        decision = hall.give(guest.join())
        [wake] = decision.wakes
        assert (wake.soon_ms, wake.at) == (250, None)
        assert not decision.sends
    assert not hall.asked
    hall.batch()
    assert rosters(hall) == ["ann ben cat focus"]
    assert [guest.taken for guest in guests] == [1, 1, 1]
    assert len({guest.grants[0].key.reveal() for guest in guests}) == 1
    assert [name_of(each) for each in hall.show().in_use] == ["ann", "ben", "cat"]
    assert {joined.to for joined in hall.said(Joined)} == {guest.contact.device for guest in guests}


def test_what_the_engine_is_asked_for() -> None:
    hall = Hall()
    [ann] = hall.meet("ann")
    [opened] = hall.media
    assert isinstance(opened, OpenMedia)
    leg = opened.leg
    assert (leg.local, leg.remote, leg.group, leg.bridge, leg.n) == (
        FOCUS,
        ann.identity,
        GROUP,
        GROUP.hex(),
        1,
    )
    assert (leg.root, leg.remote_address, leg.lifetime_s) == (ann.grants[0].key, ann.join().media, EPOCH_S)
    [joined] = hall.said(Joined)
    assert joined.media == LINES[leg.line]
    answer = read_description(joined.answer)
    assert (answer.srtp_suites, answer.codecs) == ((leg.suite,), (leg.codec,))


def test_a_join_lets_the_old_epoch_overlap_and_a_departure_does_not() -> None:
    hall = Hall()
    hall.meet("ann", "ben")
    hall.media.clear()
    cat = hall.guest("cat")
    hall.give(cat.join())
    hall.batch()
    renewed = [each for each in hall.media if isinstance(each, RenewMedia)]
    assert {(each.speak_within_s, each.overlap_s) for each in renewed} == {(1.0, float(OVERLAP_S))}
    assert len(renewed) == 2
    hall.media.clear()
    hall.give(cat.leave())
    assert legs(hall.media) == [("close", "cat", 0)], "at once"
    hall.batch()
    renewed = [each for each in hall.media if isinstance(each, RenewMedia)]
    assert {(each.speak_within_s, each.overlap_s) for each in renewed} == {(0.3, 0.0)}
    assert len(renewed) == 2


def test_64_members_in_batches_that_fit() -> None:
    hall = Hall()
    guests = hall.meet(*(f"g{number}" for number in range(MEMBERS_MAX)))
    while hall.conference.queue:
        hall.batch()
    assert [len(request.changes) for request in hall.asked] == [CHANGES_MAX] * (MEMBERS_MAX // CHANGES_MAX)
    assert len(hall.conference.roster) == MEMBERS_MAX + 1
    assert {guest.taken for guest in guests} == {4}
    late = hall.guest("late")
    hall.give(late.join())
    assert hall.said(JoinRefused)[-1].code is RefusalCode.TOO_MANY


def test_no_free_line() -> None:
    hall = Hall(lines=LINES[:2])
    ann, _ = hall.meet("ann", "ben")
    cat = hall.guest("cat")
    hall.give(cat.join())
    assert hall.said(JoinRefused)[-1].code is RefusalCode.BUSY
    hall.give(ann.leave())
    hall.give(cat.join())
    hall.batch()
    assert cat.taken == 2
    assert rosters(hall)[-1] == "ben cat focus"


@pytest.mark.parametrize(
    ("offer", "code"),
    [
        (b"\xc0", RefusalCode.MALFORMED),
        (Description(tuple(SrtpSuite), ("opus",), Flow.SENDRECV).octets, RefusalCode.UNSUPPORTED),
    ],
)
def test_an_offer_that_nothing_can_be_made_of(offer: bytes, code: RefusalCode) -> None:
    hall = Hall()
    hall.create()
    hall.give(hall.guest("ann").join(offer=offer))
    assert hall.said(JoinRefused)[-1].code is code
    assert hall.conference.members == ()
    assert hall.lines() == []


def test_a_repeated_join_changes_nothing_and_gets_the_same_answer() -> None:
    hall = Hall(quiet=True)
    hall.create()
    ann = hall.guest("ann")
    hall.give(ann.join())
    assert hall.give(ann.join()) == NOTHING, "it is pending"
    hall.batch()
    [first] = hall.said(Joined)
    hall.give(ann.join())
    assert hall.said(Joined) == [first, first]
    before = hall.stage.records.copy()
    stranger = ann.join(sender=hall.guest("eve").contact)
    assert hall.give(stranger) == NOTHING
    assert hall.give(ann.join(token_g=ann.seal())) == NOTHING
    assert hall.stage.records == before


def test_a_join_that_the_kms_refuses_is_dropped_and_the_others_come_in() -> None:
    hall = Hall()
    hall.create()
    ann, ben, cat = (hall.guest(user) for user in ("ann", "ben", "cat"))
    hall.town.change("psk:ben", revoked=True)
    for guest in (ann, ben, cat):
        hall.give(guest.join())
    hall.batch()
    assert len(hall.asked) == 2
    assert hall.asked[0].token_c != hall.asked[1].token_c
    assert rosters(hall) == ["ann cat focus"]
    [refusal] = hall.said(JoinRefused)
    assert (refusal.member, refusal.code) == (ben.identity, RefusalCode.DENIED)
    assert hall.events(ConferenceEvent.REFUSED)[0].member == ben.identity
    assert [name_of(each) for each in hall.lines()] == ["ann", "cat"]


def test_a_second_device_takes_the_place_of_the_first() -> None:
    hall = Hall()
    phone, ann = hall.meet("ben", "ann")
    tablet = hall.guest("ben", 2, device="ben-2")
    hall.media.clear()
    hall.give(tablet.join())
    hall.batch()
    assert rosters(hall)[-1] == "ann ben focus"
    assert (phone.taken, tablet.taken, ann.taken) == (1, 2, 2)
    [out] = hall.said(PutOut)
    assert (out.to, out.reason) == (phone.contact.device, "replaced")
    assert legs(hall.media) == [("close", "ben", 0), ("renew", "ann", 2), ("open", "ben", 2)]
    assert {each.overlap_s for each in hall.media if isinstance(each, RenewMedia)} == {0.0}
    hall.give(phone.leave())
    assert hall.said(LeaveOk)[-1].to == phone.contact.device
    hall.batch()
    assert hall.conference.epoch == 2, "the tablet stays"


# Going.


def test_who_leaves_is_answered_at_once_and_hears_nothing_more() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.give(ben.leave())
    [ok] = hall.said(LeaveOk)
    assert ok.to == ben.contact.device
    assert [name_of(each) for each in hall.lines()] == ["ann"]
    hall.give(ben.leave())
    assert len(hall.said(LeaveOk)) == 2
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"
    assert (ann.taken, ben.taken) == (2, 1)
    hall.give(ben.leave())
    assert len(hall.said(LeaveOk)) == 3
    hall.batch()
    assert hall.conference.epoch == 2


def test_a_leave_during_an_outstanding_group() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.hold = [GroupRequest]
    cat = hall.guest("cat")
    hall.give(cat.join())
    hall.batch()
    hall.give(ben.leave())
    hall.batch()
    assert len(hall.held) == 1, "one at a time"
    hall.media.clear()
    hall.wakes.clear()
    hall.release()
    assert BatchAlarm(GROUP) in [wake.alarm for wake in hall.wakes.values()], "what was gathered is next"
    assert rosters(hall)[-1] == "ann ben cat focus"
    assert ben.taken == 1, "no grant is handed to who has left"
    assert ("renew", "ben", 2) not in legs(hall.media)
    hall.batch()
    assert rosters(hall)[-1] == "ann cat focus"
    assert (ann.taken, cat.taken) == (3, 3)


def test_who_goes_is_before_who_comes() -> None:
    hall = Hall()
    guests = hall.meet(*(f"g{number}" for number in range(CHANGES_MAX)))
    for number in range(CHANGES_MAX):
        hall.give(hall.guest(f"new{number}").join())
    hall.give(guests[0].leave())
    hall.remove(guests[1].identity)
    hall.batch()
    kinds = [type(change).__name__ for change in hall.asked[-1].changes]
    assert kinds == ["LeaveChange", "RemoveChange"] + ["JoinChange"] * (CHANGES_MAX - 2)


def test_nobody_slips_in_while_he_is_put_out() -> None:
    hall = Hall(kms=KmsSettings(removed_may_return=True))
    _, ben = hall.meet("ann", "ben")
    hall.remove(ben.identity)
    again = hall.guest("ben", 2)
    hall.give(again.join())
    assert hall.said(JoinRefused)[-1].code is RefusalCode.NOT_PERMITTED
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"
    hall.give(again.join())
    hall.batch()
    assert rosters(hall)[-1] == "ann ben focus", "later, by policy"


def test_a_grant_that_comes_again_is_not_handed_to_who_uses_it() -> None:
    hall = Hall()
    [ann] = hall.meet("ann")
    told = len(hall.told)
    decision = hall.town.give(hall.asked[-1])
    for send in decision.sends:
        hall.give(send.message)  # type: ignore[arg-type]
    assert len(hall.told) == told
    assert ann.taken == 1


def test_only_the_own_device_leaves_or_takes_an_epoch() -> None:
    hall = Hall(quiet=True)
    hall.create()
    ann, eve = hall.guest("ann"), hall.guest("eve")
    hall.give(ann.join())
    hall.batch()
    ann.taken = 1
    for message in (
        ann.leave(sender=eve.contact),
        ann.leave(member_key="psk:eve"),
        InUse(call=ann.call, member=ann.identity, epoch=1, sender=eve.contact, **ABOUT),
        ann.in_use(2),
    ):
        assert hall.give(message) == NOTHING
    hall.give(ann.in_use(1))
    assert hall.show().in_use == (ann.identity,)
    assert hall.give(ann.in_use(1)) == NOTHING


def test_a_leave_that_was_not_sealed_by_its_member_has_no_effect_for_long() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.media.clear()
    hall.give(ben.leave(sealed=ann.leave().sealed))
    hall.batch()
    assert rosters(hall)[-1] == "ann ben focus"
    assert ben.taken == 2
    assert legs(hall.media)[-1] == ("renew", "ben", 2)
    assert [name_of(each) for each in hall.lines()] == ["ann", "ben"]
    [told] = hall.events(ConferenceEvent.REFUSED)
    assert (told.member, told.code) == (ben.identity, RefusalCode.DENIED)
    hall.give(ben.leave())
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"


@pytest.mark.parametrize("how", ["left", "removed"])
def test_old_tokens_and_leaves_bring_nobody_back_or_out(how: str) -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    old = ben.leave()
    if how == "left":
        hall.give(old)
    else:
        hall.remove(ben.identity)
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"
    hall.give(ben.join())
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"
    code = RefusalCode.REPLAY if how == "left" else RefusalCode.NOT_PERMITTED
    assert hall.said(JoinRefused)[-1].code is code
    again = hall.guest("ben", 2)
    hall.give(again.join())
    hall.batch()
    assert rosters(hall)[-1] == ("ann ben focus" if how == "left" else "ann focus")
    hall.give(old)
    hall.give(ann.leave(sealed=old.sealed, member=ben.identity, call=again.call, sender=again.contact))
    hall.batch()
    assert rosters(hall)[-1] == ("ann ben focus" if how == "left" else "ann focus")


def test_a_member_is_put_out() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    hall.remove(ben.identity)
    [out] = hall.said(PutOut)
    assert (out.to, out.reason) == (ben.contact.device, "put-out")
    hall.batch()
    assert rosters(hall)[-1] == "ann focus"
    assert hall.group.removed == (ben.identity,)
    assert (ann.taken, ben.taken) == (2, 1)
    hall.remove(ben.identity)
    told = hall.events(ConferenceEvent.REFUSED)[-1]
    assert (told.member, told.code, told.request) == (ben.identity, RefusalCode.NOT_FOUND, REQUEST)


@pytest.mark.parametrize("when", ["gathered", "asked"])
def test_who_is_put_out_before_it_was_in(when: str) -> None:
    hall = Hall()
    hall.meet("ann")
    ben = hall.guest("ben")
    hall.hold = [GroupRequest]
    hall.give(ben.join())
    if when == "asked":
        hall.batch()
    hall.remove(ben.identity)
    hall.batch()
    hall.release()
    hall.batch()
    assert ben.taken == 0
    assert hall.conference.roster == tuple(sorted([FOCUS, "sip:ann@ims.example"]))
    assert [name_of(each) for each in hall.lines()] == ["ann"]
    if when == "asked":
        assert hall.group.removed == (ben.identity,)


# Epochs without a change.


def test_another_epoch_is_asked_for_before_the_end_of_one() -> None:
    hall = Hall()
    [ann] = hall.meet("ann")
    hall.later(NOW + EPOCH_S - 61)
    assert hall.conference.epoch == 1
    hall.later(NOW + EPOCH_S - 60)
    assert (hall.conference.epoch, ann.taken) == (2, 2)
    assert hall.asked[-1].changes == (RefreshChange(),)
    assert hall.said(Rekey)[-1].epoch == 2
    assert ann.grants[0].key != ann.grants[1].key


def test_a_member_whose_key_id_has_ended_is_put_out_at_the_next_epoch() -> None:
    hall = Hall()
    hall.guest("ben")
    hall.town.change("psk:ben", not_after=NOW + 100)
    ann, ben = hall.meet("ann", "ben")
    hall.later(NOW + EPOCH_S - 60)
    assert (ann.taken, ben.taken) == (2, 1)
    assert hall.said(PutOut)[-1].reason == "key-ended"
    assert [name_of(each) for each in hall.lines()] == ["ann"]


def test_a_hint_of_the_kms_has_the_next_epoch_asked_for() -> None:
    hall = Hall()
    [ann] = hall.meet("ann")
    hall.give(GroupHint(**ABOUT))
    hall.give(GroupHint(**ABOUT))
    hall.batch()
    hall.batch()
    assert (hall.conference.epoch, ann.taken) == (2, 2)


def test_a_conference_that_nobody_answers_in_ends() -> None:
    hall = Hall(quiet=True)
    hall.create()
    hall.give(hall.guest("ann").join())
    hall.batch()
    hall.later(NOW + EPOCH_S - 60)
    assert hall.conference.state is ConferenceState.ENDED
    assert hall.events(ConferenceEvent.ENDED)[0].reason == "nobody-answers"


def test_an_empty_conference_asks_for_no_epochs_and_ends_after_a_while() -> None:
    hall = Hall(empty_s=1000)
    [ann] = hall.meet("ann")
    hall.give(ann.leave())
    hall.batch()
    assert hall.conference.roster == (FOCUS,)
    hall.later(NOW + 999)
    assert hall.conference.epoch == 2
    hall.later(NOW + 1000)
    assert hall.events(ConferenceEvent.ENDED)[0].reason == "empty"


def test_a_focus_whose_key_id_ends_ends_its_conferences() -> None:
    hall = Hall()
    hall.town.change("psk:focus", not_after=NOW + 100)
    hall.meet("ann")
    assert hall.conference.not_after == NOW + 100
    hall.later(NOW + 40)
    assert hall.conference.epoch == 2, "60 s before the end"
    hall.town.change("psk:focus", owner="ue")
    hall.later(NOW + 90)
    assert hall.conference.asked, "unsealed: a hint, and the engine stops by itself"


def test_a_focus_that_does_not_mix_has_no_key_and_opens_no_media() -> None:
    hall = Hall(mixes=False)
    ann, ben = hall.meet("ann", "ben")
    assert rosters(hall) == ["ann ben"]
    assert hall.conference.key is None
    assert not hall.media
    assert ann.grants[0].key == ben.grants[0].key


def test_a_conference_that_the_kms_does_not_answer_for_ends_at_last() -> None:
    hall = Hall(empty_s=1000)
    hall.meet("ann")
    hall.lost = [GroupRequest]
    hall.later(NOW + EPOCH_S - 60)
    hall.later(NOW + EPOCH_S + 999)
    assert hall.conference.state is ConferenceState.OPEN
    hall.later(NOW + EPOCH_S + 1000)
    assert hall.events(ConferenceEvent.ENDED)[0].reason == "expired"


# Its life, as an operator sees it.


def test_created_shown_and_ended() -> None:
    hall = Hall()
    hall.create()
    hall.create()
    assert [each.request for each in hall.events(ConferenceEvent.CREATED)] == [REQUEST, REQUEST]
    assert hall.show().roster == ()
    ann = hall.guest("ann")
    hall.give(ann.join())
    hall.batch()
    shown = hall.show()
    assert shown.event is ConferenceEvent.STANDS
    assert (shown.epoch, shown.instance, shown.not_after) == (1, "one", NOW + EPOCH_S)
    hall.media.clear()
    hall.end()
    assert legs(hall.media) == [("close", "ann", 0)]
    assert hall.said(PutOut)[-1].reason == "ended"
    assert hall.events(ConferenceEvent.ENDED)[0].request == REQUEST
    assert hall.conference.key is None
    hall.end()
    assert len(hall.events(ConferenceEvent.ENDED)) == 2
    assert hall.show().event is ConferenceEvent.UNKNOWN
    hall.create()
    assert hall.reports[-1].event is ConferenceEvent.UNKNOWN


def test_who_comes_late_is_told() -> None:
    hall = Hall(told_s=500)
    [ann] = hall.meet("ann")
    hall.end()
    late = hall.guest("late")
    hall.give(late.join())
    assert hall.said(JoinRefused)[-1].code is RefusalCode.EXPIRED
    hall.give(ann.in_use(1))
    assert hall.said(PutOut)[-1].to == ann.contact.device
    hall.give(ann.leave())
    assert hall.said(LeaveOk)
    hall.later(NOW + 499)
    assert hall.conference.state is ConferenceState.ENDED
    hall.later(NOW + 500)
    hall.give(late.join(), NOW + 501)
    assert hall.said(JoinRefused)[-1].code is RefusalCode.NOT_FOUND
    assert hall.show(NOW + 501).event is ConferenceEvent.UNKNOWN


def test_messages_for_another_focus() -> None:
    hall = Hall()
    hall.meet("ann")
    other: dict[str, Any] = {"group": GROUP, "focus": OTHER}
    for message in (
        CreateConference(request=REQUEST, **other),
        ShowConference(request=REQUEST, **other),
        hall.guest("ben").join(focus=OTHER),
        GroupHint(**other),
    ):
        assert hall.give(message) == NOTHING


def test_who_is_loud() -> None:
    hall = Hall()
    ann, ben = hall.meet("ann", "ben")
    sessions = [each.leg.session for each in hall.media if isinstance(each, OpenMedia)]
    hall.give(Speakers(GROUP.hex(), tuple(reversed(sessions))))
    assert hall.events(ConferenceEvent.SPEAKERS)[0].speakers == (ben.identity, ann.identity)
    hall.give(ShowConference(group=GROUP, focus=FOCUS, request=REQUEST))
    assert hall.events(ConferenceEvent.STANDS)[0].speakers == (ben.identity, ann.identity)
    hall.process("two")
    assert hall.give(Speakers(GROUP.hex(), tuple(sessions))) == NOTHING


def test_no_key_of_the_focus_is_in_its_records_and_k_e_in_one_that_is_wrapped() -> None:
    hall = Hall()
    [ann] = hall.meet("ann")
    key = ann.grants[0].key
    holding = [
        record
        for record in hall.stage.records.values()
        if any(getattr(record, name) == key for name in record.__struct_fields__)
    ]
    assert [type(record).__name__ for record in holding] == ["Conference"]
    assert holding[0].secret
    assert key.reveal().hex() not in repr(holding)
    assert isinstance(hall.settings.key, Secret)
    for record in hall.stage.records.values():
        assert all(getattr(record, name) != hall.settings.key for name in record.__struct_fields__)


def test_every_grant_that_was_given_names_those_who_have_the_key() -> None:
    """A long meeting, and what each of its guests has in hand at the end."""
    hall = Hall()
    users = [f"u{number}" for number in range(8)]
    present = {guest.user: guest for guest in hall.meet(*users[:4])}
    everybody: list[Guest] = list(present.values())
    for step in range(12):
        user = users[step % len(users)]
        if user in present:
            hall.give(present.pop(user).leave())
        else:
            guest = hall.guest(user, 10 + step)
            everybody.append(guest)
            present[user] = guest
            hall.give(guest.join())
        if step % 3 == 2:
            hall.batch()
    hall.batch()
    holders: dict[int, set[str]] = {}
    told: dict[int, set[tuple[str, ...]]] = {}
    for guest in everybody:
        for grant in guest.grants:
            holders.setdefault(grant.epoch, {FOCUS}).add(guest.identity)
            told.setdefault(grant.epoch, set()).add(grant.roster)
    for audit in hall.audits:
        if audit.event == "epoch":
            assert audit.epoch is not None
            assert told[audit.epoch] == {audit.roster}
            assert holders[audit.epoch] <= set(audit.roster)
    assert holders[hall.conference.epoch] == set(hall.conference.roster)
    assert {each.identity for each in hall.conference.members} == {
        guest.identity for guest in present.values()
    }
    assert all(each.state is AttendeeState.IN for each in hall.conference.members)
