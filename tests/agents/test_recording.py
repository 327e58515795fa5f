"""What a mailbox takes in: its limits, silence, cancellation, and processes that die."""

from __future__ import annotations

from typing import Any

import pytest

from agents.decision import NOTHING, Decision
from media.leg import CloseRecording, RecordingClosed
from protocol.limits import STORED_PACKETS_MAX
from protocol.names import Role
from storage.voicemail_records import MessageState
from tests.agents.office import (
    LINES,
    SESSION,
    Office,
    about,
    declined,
    only,
    other,
    waitings,
)
from tests.agents.scene import NOW
from topics.messages import (
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    DeclineReason,
    Waiting,
)

# Limits of one message.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"message_s": 5}, "too-long"),
        ({"message_octets": 5 * 50 * 188}, "too-long"),
        ({"octets_max": 5 * 50 * 188}, "mailbox-full"),
    ],
    ids=["seconds", "octets", "octets of the mailbox"],
)
def test_a_message_that_is_too_long_is_cut_and_kept(changes: dict[str, Any], reason: str) -> None:
    office = Office(**changes)
    office.answered()
    for second in range(1, 5):
        assert not office.hear(1, NOW + second).sends
    cut = office.hear(1, NOW + 5)
    bye = only(cut, Bye)
    assert (bye.by, bye.fork, bye.proof, bye.reason) == (Role.MAILBOX, None, None, reason)
    assert cut.media == (CloseRecording(SESSION),)
    assert only(office.later(NOW + 7), Bye) == bye, "repeated until the caller's BYE comes"
    office.give(office.bye(), NOW + 7)
    left = office.give(RecordingClosed(SESSION), NOW + 7)
    assert only(left, ByeOk).kept == 250
    assert office.message.state is MessageState.LEFT
    assert not office.later(NOW + 40).sends


def test_many_small_packets_are_too_long_as_well() -> None:
    office = Office(message_s=100)
    office.answered()
    most = 100 * STORED_PACKETS_MAX // 50
    for _ in range(most - 1):
        assert not office.hear(1, NOW, octets=12).sends
    assert only(office.hear(1, NOW, octets=12), Bye).reason == "too-long"


def test_a_caller_who_does_not_hear_the_mailboxs_bye_is_told_five_times() -> None:
    office = Office(message_s=1)
    office.answered()
    told = [0] if office.hear(1, NOW + 1).sends else []
    office.give(RecordingClosed(SESSION), NOW + 1)
    told += [second for second in range(1, 200) if office.later(NOW + 1 + second).sends]
    assert told == [0, 2, 6, 14, 30]


# Silence, cancellation, and processes that die.


def test_a_recorder_that_closes_by_itself_has_heard_nothing_more() -> None:
    office = Office()
    office.register()
    office.answered()
    office.hear(2)
    left = office.give(RecordingClosed(SESSION), NOW + 15)
    assert only(left, Bye).reason == "cut-short"
    only(left, Waiting)
    assert only(office.give(office.bye(), NOW + 16), ByeOk).kept == 100
    assert not office.later(NOW + 17).sends


def test_of_a_caller_who_never_came_nothing_is_left() -> None:
    office = Office()
    office.register()
    office.answered()
    over = office.give(RecordingClosed(SESSION), NOW + 32)
    assert only(over, Bye).reason == "cut-short"
    assert not waitings(over)
    assert office.message.state is MessageState.ENDED
    assert office.mailbox.held == ()


def test_an_own_recorder_that_has_lost_the_session_is_told_to_close_it() -> None:
    office = Office()
    office.answered()
    office.hear(1, NOW + 10)
    for second in (15, 25, 39):
        assert not office.later(NOW + second).media, second
    assert office.later(NOW + 40).media == (CloseRecording(SESSION),)
    office.give(RecordingClosed(SESSION), NOW + 40)
    assert office.message.state is MessageState.LEFT


def test_an_own_recorder_that_is_slow_to_close_is_told_again() -> None:
    office = Office()
    office.answered()
    office.hear(1)
    office.give(office.bye())
    assert office.later(NOW + 3).media == (CloseRecording(SESSION),)
    assert office.later(NOW + 6).media == (CloseRecording(SESSION),)
    assert only(office.give(RecordingClosed(SESSION), NOW + 6), ByeOk).kept == 50


def test_who_takes_over_closes_what_has_gone_silent_and_tells_everybody() -> None:
    office = Office()
    office.register()
    office.answered()
    office.hear(3, NOW + 10)
    office.other_process()
    assert not office.later(NOW + 24).sends
    left = office.later(NOW + 25)
    assert only(left, Bye).reason == "cut-short"
    assert only(left, Waiting).packets == 150
    assert not left.media, "its recorder is the dead one"
    assert only(office.give(office.bye(), NOW + 26), ByeOk).kept == 150


def test_who_takes_over_ends_what_has_no_packets() -> None:
    office = Office()
    office.answered()
    office.other_process()
    assert not office.later(NOW + 31).sends
    assert only(office.later(NOW + 32), Bye).reason == "cut-short"
    assert only(office.give(office.bye(), NOW + 33), ByeOk).kept == 0


def test_who_takes_over_waits_a_little_for_the_last_packets_at_a_bye() -> None:
    office = Office()
    office.answered()
    office.hear(3)
    office.other_process()
    assert not office.give(office.bye(), NOW + 1).media
    assert not office.later(NOW + 3).sends
    assert only(office.later(NOW + 4), ByeOk).kept == 150
    assert office.message.state is MessageState.LEFT


def test_who_has_lost_the_partition_alone_still_stores_what_it_records() -> None:
    office = Office()
    office.answered()
    office.hear(1)
    office.other_process("two")
    office.give(office.bye(), NOW + 1)
    office.other_process("one")
    assert office.hear(1, NOW + 1).media == (CloseRecording(SESSION),), "the first it hears of the BYE"
    assert only(office.give(RecordingClosed(SESSION), NOW + 2), ByeOk).kept == 100


def test_packets_that_come_after_the_end_are_not_stored_and_the_line_is_free_again() -> None:
    office = Office(lines=LINES[:1])
    office.answered()
    office.hear(1)
    office.other_process("two")
    office.later(NOW + 20)
    office.other_process("one")
    late = office.hear(1, NOW + 20)
    assert late == Decision(media=(CloseRecording(SESSION),))
    assert declined(office.give(office.invite(call=other(5)), NOW + 20)) is DeclineReason.BUSY
    office.give(RecordingClosed(SESSION), NOW + 21)
    assert office.message.packets == 50
    office.answered(office.invite(call=other(5), time=NOW + 21), NOW + 21)


def test_one_process_recorder_says_nothing_of_another_ones_message() -> None:
    office = Office()
    office.answered()
    office.hear(1)
    office.other_process("two")
    assert office.hear(1) == Decision(media=(CloseRecording(SESSION),))
    assert office.give(RecordingClosed(SESSION)) == NOTHING
    office.give(office.bye())
    assert office.give(RecordingClosed(SESSION)) == NOTHING
    assert office.message.packets == 50


def test_packets_of_a_message_that_nobody_knows() -> None:
    office = Office()
    assert office.hear(1) == Decision(media=(CloseRecording(SESSION),))
    assert office.give(RecordingClosed(SESSION)) == NOTHING


def test_cancel_ends_what_has_no_packets() -> None:
    office = Office()
    office.give(office.invite())
    only(office.give(Cancel(**about())), Cancelled)
    assert office.message.state is MessageState.ENDED
    assert office.mailbox.held == ()
    only(office.give(Cancel(**about())), Cancelled)

    office = Office()
    office.register()
    office.answered()
    closing = office.give(Cancel(**about()))
    only(closing, Cancelled)
    assert closing.media == (CloseRecording(SESSION),)
    assert not office.give(RecordingClosed(SESSION)).sends
    assert office.message.state is MessageState.ENDED


def test_a_late_or_forged_cancel_deletes_nothing() -> None:
    office = Office()
    office.answered()
    office.hear(1)
    office.give(Cancel(**about()))
    office.give(RecordingClosed(SESSION))
    assert office.message.state is MessageState.LEFT
    office.give(Cancel(**about()))
    assert office.message.state is MessageState.LEFT
