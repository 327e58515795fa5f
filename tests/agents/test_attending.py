"""A member of a conference: in, through its epochs, and out, whatever is lost, repeated or out of order."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import pytest

from agents.cscf import Cscf, CscfSettings
from agents.decision import NOTHING, Send
from media.leg import CloseMedia, MoveMedia, OpenMedia, RenewMedia
from protocol.checks import RefusalCode
from protocol.description import Flow, SrtpSuite
from protocol.encoding import digest
from protocol.limits import EPOCH_S, LIFE_S, OVERLAP_S
from protocol.names import Permit
from protocol.profile import LITERAL
from storage.attendance_records import Attendances, AttendanceState
from storage.cscf_records import Binding, Registration
from storage.ue_records import Handset
from tests.agents.collector import only, report, reports, sent
from tests.agents.member import (
    ALONE,
    ANOTHER,
    AT,
    CAROL,
    DEVICE,
    ELSEWHERE,
    FOCUS,
    GROUP,
    OWN,
    REQUEST,
    WITH_BOB,
    Alice,
    about,
    epoch_key,
    is_told,
    join,
    leave,
    leave_ok,
    medium,
    put_out,
    refused,
)
from tests.agents.scene import ALICE, BOB, EVE, NOW, Stage
from topics.catalogue import CONFERENCE, CSCF
from topics.messages import (
    Contact,
    InUse,
    Join,
    JoinRefused,
    Leave,
    Rekey,
    ReportEvent,
)

# Into the conference.


def test_a_wish_becomes_a_join_with_a_token_for_this_conference() -> None:
    alice = Alice(permits=(Permit.DEFERRED, Permit.TRANSCODE))
    decision = alice.give(join())
    asked = only(Join, decision)
    [to_cscf] = [send for send in decision.sends if send.topic == CSCF]
    assert to_cscf.key == ALICE  # where her registration is
    assert (asked.group, asked.focus, asked.member, asked.run) == (GROUP, FOCUS, ALICE, 0)
    assert (asked.media, asked.sender) == (OWN, Contact("alice", DEVICE))
    token = alice.token(asked)
    assert (token.member, token.focus, token.group, token.time) == (ALICE, FOCUS, GROUP, NOW)
    assert token.permits == (Permit.CONFERENCE, Permit.DEFERRED, Permit.TRANSCODE)
    assert token.offer_hash == digest(asked.offer)
    is_told(decision, ReportEvent.JOINING, request=REQUEST, group=GROUP, call=asked.call, epoch=None)
    assert alice.lines == (alice.attendance.session, None)


@pytest.mark.parametrize("permits", [(Permit.CONFERENCE,), (Permit.CONFERENCE, Permit.TRANSCODE)], ids=str)
def test_what_a_user_permits_anyway_is_said_once(permits: tuple[Permit, ...]) -> None:
    alice = Alice(permits=permits)
    assert alice.token(alice.asked()).permits == permits


def test_a_user_who_permits_nothing_permits_the_conference_that_she_wants() -> None:
    alice = Alice(permits=())
    assert alice.token(alice.asked()).permits == (Permit.CONFERENCE,)


def test_the_first_epoch_opens_media_and_is_said_to_be_in_use() -> None:
    alice = Alice()
    asked = alice.asked(join(sound=b"m" * 16))
    decision = alice.give(alice.joined(asked))
    in_use = only(InUse, decision)
    assert (in_use.epoch, in_use.call, in_use.sender) == (1, asked.call, Contact("alice", DEVICE))
    opened = medium(decision)
    assert isinstance(opened, OpenMedia)
    leg = opened.leg
    assert (leg.local, leg.remote, leg.group, leg.n, leg.root) == (ALICE, FOCUS, GROUP, 1, epoch_key(1))
    assert (leg.suite, leg.codec, leg.flow) == (SrtpSuite.AEAD_AES_256_GCM, "PCMU", Flow.SENDRECV)
    assert (leg.line, leg.remote_address, leg.lifetime_s, leg.sound) == (0, AT, EPOCH_S, b"m" * 16)
    is_told(decision, ReportEvent.JOINED, request=REQUEST, epoch=1, roster=WITH_BOB, call=asked.call)


def test_the_first_epoch_of_a_member_may_be_any() -> None:
    alice = Alice()
    alice.inside(17)
    assert (alice.state, alice.attendance.epoch) == (AttendanceState.IN, 17)


def test_a_join_that_is_not_answered_is_repeated_octet_for_octet_and_then_given_up() -> None:
    alice = Alice()
    asked = alice.asked()
    repeats = 0
    while alice.due < NOW + 32:
        assert only(Join, alice.give(alice.alarm(), alice.due)) == asked
        repeats += 1
    assert repeats == 4
    decision = alice.give(alice.alarm(), NOW + 32)
    is_told(decision, ReportEvent.LEFT_CONFERENCE, reason="no-answer", request=REQUEST, call=asked.call)
    assert sent(decision) == []
    assert (alice.state, alice.lines, alice.epoch_keys) == (AttendanceState.OUT, (None, None), [])


def test_an_alarm_that_comes_too_early_waits() -> None:
    alice = Alice()
    alice.asked()
    assert sent(alice.give(alice.alarm(), NOW + 1)) == []


@pytest.mark.parametrize("code", set(RefusalCode) - {RefusalCode.BUSY})
def test_who_is_refused_is_out(code: RefusalCode) -> None:
    """`denied` says that the KMS may not hold this device's key: it is attached again."""
    alice = Alice()
    asked = alice.asked()
    decision = alice.give(refused(asked, code))
    is_told(decision, ReportEvent.LEFT_CONFERENCE, reason=code, request=REQUEST)
    assert alice.lines == (None, None)
    handset = alice.records[Handset.key_for(DEVICE).name]
    assert isinstance(handset, Handset)
    assert handset.key is not None
    assert handset.key.attached is (code is not RefusalCode.DENIED)


def test_a_focus_that_is_busy_is_asked_again() -> None:
    alice = Alice()
    asked = alice.asked()
    assert alice.give(refused(asked, RefusalCode.BUSY)) == NOTHING
    assert only(Join, alice.give(alice.alarm(), NOW + 2)) == asked


# Wishes.


def test_a_wish_once_more_is_no_second_join() -> None:
    alice = Alice()
    alice.inside()
    before = dict(alice.records)
    assert alice.give(join()) == NOTHING
    alice.give(leave())
    assert alice.give(join()) == NOTHING
    assert len(alice.attendances) == 1
    assert before != alice.records


def test_who_is_in_and_wants_in_hears_that_she_is() -> None:
    alice = Alice()
    alice.inside()
    before = dict(alice.records)
    decision = alice.give(join(request=ANOTHER))
    is_told(decision, ReportEvent.JOINED, request=ANOTHER, epoch=1, roster=WITH_BOB)
    assert (sent(decision), decision.media, alice.records) == ([], (), before)


def test_who_is_on_her_way_in_or_out_is_busy() -> None:
    for prepare in (Alice.asked, Alice.leaving):
        alice = Alice()
        prepare(alice)
        before = dict(alice.records)
        decision = alice.give(join(request=b"t" * 16))
        is_told(decision, ReportEvent.LEFT_CONFERENCE, request=b"t" * 16, reason="busy", call=None)
        assert (sent(decision), alice.records) == ([], before)


def test_without_a_free_line_there_is_no_way_in() -> None:
    alice = Alice(lines=(OWN,))
    alice.asked(join(group=b"H" * 16))
    decision = alice.give(join(request=ANOTHER))
    is_told(decision, ReportEvent.LEFT_CONFERENCE, request=ANOTHER, reason="busy", group=GROUP)
    assert sent(decision) == []


def test_without_a_key_there_is_no_way_in() -> None:
    alice = Alice()
    alice.put(Handset.key_for(DEVICE), Handset(impi=DEVICE, identity=ALICE))
    decision = alice.give(join())
    is_told(decision, ReportEvent.LEFT_CONFERENCE, request=REQUEST, reason="no-key")
    assert (sent(decision), alice.attendances) == ([], ())


def test_the_literal_profile_has_no_conferences() -> None:
    alice = Alice(LITERAL)
    is_told(alice.give(join()), ReportEvent.LEFT_CONFERENCE, reason="unsupported")
    assert alice.attendances == ()


def test_two_conferences_at_a_time_have_a_line_each() -> None:
    alice = Alice(lines=(OWN, ELSEWHERE))
    first = alice.inside()
    second = alice.asked(join(request=ANOTHER, group=b"H" * 16))
    assert (first.media, second.media) == (OWN, ELSEWHERE)
    assert [each.line for each in alice.attendances] == [0, 1]
    assert len(alice.attendances) == 2
    assert None not in alice.lines
    renewed = medium(alice.give(alice.rekey(first, 2)))
    assert isinstance(renewed, RenewMedia)
    alice.give(leave())
    assert alice.lines[0] is None
    assert alice.lines[1] is not None


def test_who_wants_out_and_is_not_in_hears_so() -> None:
    alice = Alice()
    is_told(alice.give(leave()), ReportEvent.LEFT_CONFERENCE, request=ANOTHER, reason="not-in", call=None)
    asked = alice.inside()
    alice.give(put_out(asked))
    before = dict(alice.records)
    is_told(alice.give(leave()), ReportEvent.LEFT_CONFERENCE, request=ANOTHER, reason="not-in", call=None)
    assert alice.records == before


# Epochs.


@pytest.mark.parametrize(
    ("before", "after", "overlap_s"),
    [
        (ALONE, WITH_BOB, OVERLAP_S),
        (WITH_BOB, WITH_BOB, 0),  # perhaps another device of his
        (WITH_BOB, ALONE, 0),
        (WITH_BOB, (ALICE, CAROL, FOCUS), 0),
        (WITH_BOB, (ALICE, BOB, CAROL, FOCUS), OVERLAP_S),
        (WITH_BOB, (ALICE, BOB), 0),  # the focus no longer mixes
    ],
    ids=str,
)
def test_the_old_key_plays_on_only_where_somebody_has_come_and_nobody_gone(
    before: tuple[str, ...], after: tuple[str, ...], overlap_s: int
) -> None:
    alice = Alice()
    asked = alice.inside(roster=before)
    decision = alice.give(alice.rekey(asked, 2, roster=after))
    renewed = medium(decision)
    assert isinstance(renewed, RenewMedia)
    assert (renewed.speak_within_s, renewed.overlap_s) == (0, overlap_s)
    assert (renewed.leg.n, renewed.leg.root, renewed.leg.group) == (2, epoch_key(2), GROUP)
    assert renewed.leg.session == alice.attendance.session
    assert only(InUse, decision).epoch == 2
    is_told(decision, ReportEvent.EPOCH, epoch=2, roster=after)
    assert alice.epoch_keys == [epoch_key(2)]


def test_epochs_that_were_missed_are_compared_with_the_last_that_was_taken() -> None:
    alice = Alice()
    asked = alice.inside(1, WITH_BOB)
    decision = alice.give(alice.rekey(asked, 9, roster=ALONE))
    renewed = medium(decision)
    assert isinstance(renewed, RenewMedia)
    assert (renewed.leg.n, renewed.overlap_s) == (9, 0)
    assert alice.attendance.epoch == 9


def test_an_epoch_lives_as_long_as_both_clocks_say() -> None:
    alice = Alice()
    asked = alice.inside()
    alice.give(alice.rekey(asked, 2, not_after=NOW + 100, now=NOW + 40))
    assert (alice.attendance.lifetime_s, alice.due) == (60, NOW + 60)
    alice.give(alice.rekey(asked, 3, not_after=NOW + 100, now=NOW - 50))
    assert (alice.attendance.lifetime_s, alice.due) == (100, NOW + 100)
    alice.give(alice.rekey(asked, 4, not_after=NOW + 9 * LIFE_S))
    assert (alice.attendance.lifetime_s, alice.due) == (LIFE_S, NOW + LIFE_S)


@pytest.mark.parametrize("order", list(permutations([2, 3, 4])), ids=str)
def test_epochs_out_of_order_never_go_back(order: tuple[int, ...]) -> None:
    alice = Alice()
    asked = alice.inside()
    for epoch, later in zip(order, [max(order[: count + 1]) for count in range(len(order))], strict=True):
        alice.give(alice.rekey(asked, epoch))
        assert (alice.attendance.epoch, alice.epoch_keys) == (later, [epoch_key(later)])


def test_an_epoch_once_more_is_said_to_be_in_use_once_more() -> None:
    """Its IN-USE was lost; the KMS has sealed the same key afresh, or it is the very same message."""
    alice = Alice()
    asked = alice.asked()
    joined = alice.joined(asked)
    in_use = only(InUse, alice.give(joined))
    before = dict(alice.records)
    for again in (joined, alice.joined(asked), alice.rekey(asked, 1)):
        decision = alice.give(again)
        assert only(InUse, decision) == in_use
        assert (decision.media, decision.puts, reports(decision)) == ((), (), [])
    assert alice.records == before


def test_the_focus_moves_within_an_epoch() -> None:
    alice = Alice()
    asked = alice.inside()
    moved = Rekey(epoch=1, grant=alice.sealed(asked, 1), media=ELSEWHERE, **about(asked))
    decision = alice.give(moved)
    assert only(InUse, decision).epoch == 1
    assert medium(decision) == MoveMedia(alice.attendance.session, ELSEWHERE)
    assert alice.give(moved).media == ()
    assert alice.epoch_keys == [epoch_key(1)]


def test_the_focus_moves_with_an_epoch() -> None:
    alice = Alice()
    asked = alice.inside()
    moved = Rekey(epoch=2, grant=alice.sealed(asked, 2), media=ELSEWHERE, **about(asked))
    renewed = medium(alice.give(moved))
    assert isinstance(renewed, RenewMedia)
    assert renewed.leg.remote_address == ELSEWHERE


def test_an_epoch_before_the_first_answer_waits_for_it() -> None:
    """REKEY has overtaken JOINED: nothing is known yet of how to speak. Both come again until IN-USE."""
    alice = Alice()
    asked = alice.asked()
    rekey = alice.rekey(asked, 2)
    assert alice.give(rekey) == NOTHING
    assert only(InUse, alice.give(alice.joined(asked))).epoch == 1
    assert only(InUse, alice.give(rekey)).epoch == 2


def test_a_later_joined_is_another_epoch() -> None:
    """The focus has not heard that the first was taken, and somebody else has joined meanwhile."""
    alice = Alice()
    asked = alice.inside()
    decision = alice.give(alice.joined(asked, 2))
    assert only(InUse, decision).epoch == 2
    assert isinstance(medium(decision), RenewMedia)


# Out of it.


def test_a_user_leaves_and_nothing_is_heard_or_said_from_then_on() -> None:
    alice = Alice()
    asked = alice.inside(3)
    decision = alice.give(leave())
    left = only(Leave, decision)
    assert (left.epoch, left.member_key, left.call) == (3, asked.member_key, asked.call)
    alice.opens(asked, left)
    session = alice.attendance.session
    assert medium(decision) == CloseMedia(session)
    assert (alice.epoch_keys, alice.lines) == ([], (None, None))
    assert reports(decision) == []
    is_told(alice.give(alice.closed()), ReportEvent.MEDIA, call=asked.call)
    done = alice.give(leave_ok(asked))
    is_told(done, ReportEvent.LEFT_CONFERENCE, reason="left", request=ANOTHER, call=asked.call)
    assert done.media == ()
    assert alice.state is AttendanceState.OUT
    assert alice.give(leave_ok(asked)) == NOTHING


def test_a_leave_is_repeated_octet_for_octet_and_then_given_up() -> None:
    alice = Alice()
    left = alice.leaving()
    while alice.due < NOW + 32:
        assert only(Leave, alice.give(alice.alarm(), alice.due)) == left
    is_told(alice.give(alice.alarm(), NOW + 32), ReportEvent.LEFT_CONFERENCE, reason="left")
    assert alice.state is AttendanceState.OUT


def test_a_second_wish_to_leave_changes_nothing() -> None:
    alice = Alice()
    alice.leaving()
    assert alice.give(leave(request=b"t" * 16)) == NOTHING


def test_an_epoch_that_comes_while_she_leaves_is_not_taken() -> None:
    alice = Alice()
    asked = alice.inside()
    rekey = alice.rekey(asked, 2)
    left = only(Leave, alice.give(leave()))
    before = dict(alice.records)
    assert alice.give(rekey) == NOTHING
    assert alice.records == before
    assert only(Leave, alice.give(alice.alarm(), alice.due)) == left
    alice.give(leave_ok(asked))
    assert only(Leave, alice.give(rekey)) == left  # on its way before the focus has heard
    assert alice.epoch_keys == []


def test_who_no_longer_wants_in_leaves_if_she_is_let_in_after_all() -> None:
    alice = Alice()
    asked = alice.asked()
    decision = alice.give(leave())
    is_told(decision, ReportEvent.LEFT_CONFERENCE, reason="left", request=ANOTHER)
    assert (sent(decision), alice.lines) == ([], (None, None))
    joined = alice.joined(asked, 4)
    late = alice.give(joined)
    left = only(Leave, late)
    assert (left.epoch, late.media, reports(late)) == (4, (), [])
    alice.opens(asked, left)
    assert alice.epoch_keys == []
    assert only(Leave, alice.give(joined)) == left


def test_what_does_not_verify_is_not_left_either() -> None:
    alice = Alice()
    asked = alice.asked()
    alice.give(leave())
    assert alice.give(alice.joined(asked, nonce=bytes(16))) == NOTHING
    assert alice.attendance.leave == b""


@pytest.mark.parametrize("reason", ["removed", "ended", ""])
def test_who_is_put_out_is_out_at_once(reason: str) -> None:
    alice = Alice()
    asked = alice.inside()
    decision = alice.give(put_out(asked, reason))
    is_told(decision, ReportEvent.LEFT_CONFERENCE, reason=reason or "put-out", request=REQUEST)
    assert medium(decision) == CloseMedia(alice.attendance.session)
    assert (alice.state, alice.epoch_keys, alice.lines) == (AttendanceState.OUT, [], (None, None))
    assert alice.give(put_out(asked, reason)) == NOTHING
    is_told(alice.give(alice.closed()), ReportEvent.MEDIA, reason=None)


def test_a_conference_that_ends_while_she_joins_or_leaves() -> None:
    alice = Alice()
    is_told(alice.give(put_out(alice.asked(), "ended")), ReportEvent.LEFT_CONFERENCE, reason="ended")
    alice = Alice()
    asked = alice.inside()
    alice.give(leave())
    is_told(alice.give(put_out(asked, "ended")), ReportEvent.LEFT_CONFERENCE, reason="left", request=ANOTHER)


@pytest.mark.parametrize("by_clock", [True, False], ids=["by the clock", "by the engine"])
def test_without_another_epoch_it_is_over_at_not_after(*, by_clock: bool) -> None:
    alice = Alice()
    asked = alice.inside()
    alice.give(alice.rekey(asked, 2))
    if by_clock:
        assert sent(alice.give(alice.alarm(), NOW + EPOCH_S - 1)) == []
        decision = alice.give(alice.alarm(), NOW + EPOCH_S)
        assert medium(decision) == CloseMedia(alice.attendance.session)
    else:
        decision = alice.give(alice.closed(expired=True), NOW + EPOCH_S)
    [out] = [told for told in reports(decision) if told.event is ReportEvent.LEFT_CONFERENCE]
    assert (out.reason, out.request) == ("expired", REQUEST)
    assert sent(decision) == []
    assert (alice.state, alice.epoch_keys, alice.lines) == (AttendanceState.OUT, [], (None, None))


def test_an_epoch_after_the_end_is_left() -> None:
    """The focus was away for long: alice's user has heard that she is out, so she is."""
    alice = Alice()
    asked = alice.inside()
    late = NOW + EPOCH_S
    alice.give(alice.alarm(), late)
    left = only(Leave, alice.give(alice.rekey(asked, 2, late), late))
    assert left.epoch == 2
    alice.opens(asked, left)


def test_a_key_that_ends_while_she_leaves_ends_nothing_else() -> None:
    alice = Alice()
    alice.leaving()
    is_told(alice.give(alice.closed(expired=True)), ReportEvent.MEDIA)
    assert alice.state is AttendanceState.LEAVING


def test_media_that_ends_otherwise_ends_no_attendance() -> None:
    alice = Alice()
    alice.inside()
    is_told(alice.give(alice.closed()), ReportEvent.MEDIA, reason=None, group=GROUP)
    assert alice.state is AttendanceState.IN


def test_who_hears_nothing_asks_whether_it_is_still_in_until_it_is_told() -> None:
    """It may have missed that it was put out, and would speak under a key that others keep who have gone."""
    alice = Alice()
    asked = alice.inside()
    decision = alice.give(alice.silent())
    is_told(decision, ReportEvent.MEDIA, reason="silent", statistics=None)
    assert decision.media == ()
    assert only(InUse, decision).epoch == 1
    for _ in range(3):
        assert only(InUse, alice.give(alice.alarm(), alice.due)).epoch == 1
    alice.give(alice.rekey(asked, 2))
    assert alice.attendance.repeat_at == alice.attendance.give_up_at
    alice.give(alice.silent())
    alice.give(put_out(asked))
    assert alice.state is AttendanceState.OUT


def test_what_is_over_is_forgotten() -> None:
    alice = Alice()
    asked = alice.inside()
    alice.give(put_out(asked))
    alice.give(alice.alarm(), alice.due)
    assert Attendances.key_for(DEVICE).name not in alice.records
    assert alice.give(alice.rekey(asked, 2)) == NOTHING


def test_who_was_in_before_joins_anew_and_takes_only_later_epochs() -> None:
    alice = Alice()
    first = alice.inside(3)
    alice.give(put_out(first))
    again = alice.asked(join(request=ANOTHER))
    assert (again.call, again.token_g) != (first.call, first.token_g)
    assert alice.give(alice.rekey(first, 4)) == NOTHING  # of the attendance before
    told = report(alice.give(alice.joined(again, 3)), ReportEvent.REFUSED)
    assert told.check == "OR-29"
    assert only(InUse, alice.give(alice.joined(again, 4))).epoch == 4
    assert len(alice.attendances) == 1


def test_a_handset_that_restarts_is_out() -> None:
    alice = Alice()
    asked = alice.inside()
    alice = Alice(seed=2)
    assert alice.give(alice.rekey(asked, 2)) == NOTHING
    assert only(Join, alice.give(join())).call != asked.call


# Call control.


class Control(Stage):
    """Call control that knows alice's device."""

    def __init__(self, focus: str = FOCUS) -> None:
        super().__init__(Cscf(CscfSettings(focus=focus)))
        self.register(DEVICE)

    def register(self, device: str) -> None:
        binding = Binding(host="alice", device=device, not_after=NOW + 100)
        self.put(Registration.key_for(ALICE), Registration(bindings=(binding,)))


def said_by_alice() -> list[Any]:
    """JOIN, IN-USE and LEAVE."""
    alice = Alice()
    asked = alice.asked()
    in_use = only(InUse, alice.give(alice.joined(asked)))
    return [asked, in_use, only(Leave, alice.give(leave()))]


def test_what_a_registered_device_says_goes_to_the_focus() -> None:
    for message in said_by_alice():
        decision = Control().give(message)
        assert decision.sends == (Send(CONFERENCE, GROUP.hex(), message),)
        assert decision.puts == ()


def test_of_a_device_that_is_not_registered_the_focus_hears_its_leave_alone() -> None:
    """A leave is sealed; else whose registration has ended would be counted in until it is missed."""
    for message, late in product(said_by_alice(), [False, True]):
        control = Control()
        if not late:
            control.register("alice-2@ims.example")
        decision = control.give(message, NOW + 101 * late)
        if isinstance(message, Join):
            refusal = only(JoinRefused, decision)
            assert (refusal.code, refusal.to, refusal.call) == (RefusalCode.DENIED, DEVICE, message.call)
        elif isinstance(message, Leave):
            assert only(Leave, decision) == message
        else:
            assert decision == NOTHING


@pytest.mark.parametrize("focus", ["", EVE])
def test_a_focus_that_is_not_this_networks_hears_nothing(focus: str) -> None:
    for message in said_by_alice():
        decision = Control(focus).give(message)
        if isinstance(message, Join):
            assert only(JoinRefused, decision).code is RefusalCode.NOT_FOUND
        else:
            assert decision == NOTHING


def test_what_the_network_refuses_ends_the_join() -> None:
    alice = Alice()
    asked = alice.asked()
    refusal = only(JoinRefused, Control("").give(asked))
    is_told(alice.give(refusal), ReportEvent.LEFT_CONFERENCE, reason="not-found")
