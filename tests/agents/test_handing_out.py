"""What a mailbox hands out, to whom, and for whom it deletes."""

from __future__ import annotations

from typing import Any

import pytest

from agents.alarms import ForgetParts
from agents.mailbox.stored_message import REPEAT_S
from media.leg import RecordingClosed
from protocol.checks import RefusalCode
from protocol.encoding import digest
from storage.voicemail_records import MessageState
from tests.agents.office import (
    ALICES,
    DAY_S,
    FORGOTTEN_S,
    PHONE,
    SESSION,
    TABLET,
    Office,
    about,
    only,
    other,
    packets,
    refusal_of,
    waitings,
)
from tests.agents.scene import BOB, EVE, NOW
from topics.catalogue import ue_inbox
from topics.messages import (
    Collected,
    CollectedOk,
    Contact,
    Mailbox,
    MailboxSays,
    Present,
    Stored,
    Waiting,
)

# Handing out.


def test_who_registers_hears_what_waits() -> None:
    office = Office()
    office.leave()
    waiting = only(office.register(PHONE, NOW + 100), Waiting)
    assert (waiting.left_at, waiting.to) == (NOW, PHONE.device)
    assert only(office.register(TABLET, NOW + 101), Waiting).to == TABLET.device
    assert only(office.register(PHONE, NOW + 102), Waiting) == waiting, "again each time"
    assert len(office.mailbox.devices) == 2
    assert not office.register(PHONE, NOW + 100, until=NOW + 99).sends, "over before it came"


def test_who_is_registered_no_more_hears_nothing_more() -> None:
    office = Office()
    office.register(PHONE)
    office.register(TABLET)
    office.register(PHONE, NOW + 5, until=NOW + 5)
    assert [device.device for device in office.mailbox.devices] == [TABLET.device]
    assert only(office.leave(now=NOW + 6), Waiting).to == TABLET.device


def test_or_11_registering_has_a_rate_and_is_remembered_all_the_same() -> None:
    office = Office(requests_per_s=3)
    office.leave()
    told = [len(waitings(office.register(PHONE, NOW + 100))) for _ in range(5)]
    assert told == [1, 1, 1, 0, 0]
    assert len(waitings(office.register(TABLET, NOW + 101))) == 1
    assert len(office.mailbox.devices) == 2


def test_a_registration_lasts_a_day_at_most_whatever_is_said() -> None:
    office = Office()
    office.register(PHONE, until=NOW + 10**9)
    assert office.mailbox.devices[0].not_after == NOW + DAY_S


def test_message_waiting_is_said_once_more_in_case_the_process_died_before_it_was_sent() -> None:
    office = Office()
    office.register(PHONE)
    waiting = only(office.leave(), Waiting)
    assert office.later(NOW + 1).sends == ()
    assert only(office.later(NOW + REPEAT_S), Waiting) == waiting
    assert office.later(NOW + 2 * REPEAT_S).sends == ()
    assert office.message.repeat_at is None


def test_a_registration_that_is_over_hears_nothing() -> None:
    office = Office()
    office.register(PHONE, until=NOW + 10)
    office.register(TABLET, until=NOW + 1000)
    assert only(office.leave(now=NOW + 11), Waiting).to == TABLET.device


def test_a_question_is_answered_by_each_message_and_their_number() -> None:
    office = Office()
    question = Mailbox(identity=BOB, request=other(3), sender=PHONE)
    [stranger] = [send.message for send in office.give(question).sends]
    assert isinstance(stranger, MailboxSays)
    assert (stranger.code, stranger.messages) == (RefusalCode.DENIED, 0)
    office.register()
    for number in range(3):
        office.leave(call=other(number))
    answer = office.give(question)
    assert {each.request for each in waitings(answer)} == {other(3)}
    assert {each.call for each in waitings(answer)} == {other(number) for number in range(3)}
    says = answer.sends[-1].message
    assert isinstance(says, MailboxSays)
    assert (says.messages, says.code, says.to) == (3, None, PHONE.device)


def test_parts_are_handed_out_eight_at_a_time() -> None:
    office = Office()
    office.register()
    office.leave(parts=19)
    got: list[Any] = []
    while len(got) < 19:
        parts = office.retrieve(len(got))
        assert 0 < len(parts) <= 8
        got += parts
    assert all(isinstance(each, Stored) for each in got)
    assert [each.part for each in got] == list(range(19))
    assert [each.packets for each in got] == [packets(part) for part in range(19)]
    assert [each.part for each in office.retrieve(5)] == list(range(5, 13)), "any of them, again"


def test_packets_are_for_devices_that_are_registered_for_the_callee() -> None:
    office = Office()
    office.leave()
    assert refusal_of(office.retrieve(0)) is RefusalCode.DENIED
    office.register(PHONE, until=NOW + 10)
    assert refusal_of(office.retrieve(0, ALICES)) is RefusalCode.DENIED
    assert refusal_of(office.retrieve(0, Contact("eve", PHONE.device))) is RefusalCode.DENIED
    assert isinstance(office.retrieve(0)[0], Stored)
    assert refusal_of(office.retrieve(0, now=NOW + 11)) is RefusalCode.DENIED
    office.give(Present(identity=EVE, device=ALICES, not_after=NOW + 100))
    assert refusal_of(office.retrieve(0, ALICES)) is RefusalCode.DENIED


def test_what_is_not_left_or_not_there_is_not_found() -> None:
    office = Office()
    office.register()
    assert refusal_of(office.retrieve(0)) is RefusalCode.NOT_FOUND
    office.answered()
    office.hear(2)
    assert refusal_of(office.retrieve(0)) is RefusalCode.NOT_FOUND, "it is not closed yet"
    office.give(office.bye())
    office.give(RecordingClosed(SESSION))
    assert refusal_of(office.retrieve(2)) is RefusalCode.NOT_FOUND
    assert len(office.retrieve(1)) == 1


def test_or_11_requests_have_a_rate() -> None:
    office = Office(requests_per_s=3)
    for device in (PHONE, TABLET):
        office.register(device)
    office.leave()
    office.retrieve(0, PHONE)
    office.retrieve(0, TABLET)
    office.give(Mailbox(identity=BOB, request=bytes(16), sender=PHONE))
    assert refusal_of(office.retrieve(0, TABLET)) is RefusalCode.BUSY
    says = office.give(Mailbox(identity=BOB, request=bytes(16), sender=PHONE)).sends
    assert [getattr(send.message, "code", None) for send in says] == [RefusalCode.BUSY]
    assert isinstance(office.retrieve(0, TABLET, NOW + 1)[0], Stored)


def test_two_devices_collect_at_once() -> None:
    office = Office()
    for device in (PHONE, TABLET):
        office.register(device)
    office.leave(parts=9)
    assert len(office.retrieve(0, PHONE)) == len(office.retrieve(0, TABLET)) == 8
    assert len(office.retrieve(8, PHONE)) == 1
    assert isinstance(office.collect(office.proof(), PHONE), CollectedOk)
    assert refusal_of(office.retrieve(8, TABLET)) is RefusalCode.NOT_FOUND
    assert isinstance(office.collect(office.proof(), TABLET), CollectedOk), "gone is gone"


# Deleting.


def test_or_30_a_wrong_proof_deletes_nothing() -> None:
    office = Office()
    office.leave(parts=3)
    before = dict(office.records)
    wrong = [bytes(32), digest(office.proof()), bytes(31) + b"\1", office.message.proof_hash]
    for proof in wrong:
        assert refusal_of([office.collect(proof)]) is RefusalCode.DENIED
    assert office.records == before


@pytest.mark.parametrize("device", [PHONE, ALICES], ids=["the callee", "the caller, who takes it back"])
def test_or_30_the_right_proof_deletes_message_entry_and_parts(device: Contact) -> None:
    office = Office()
    office.register()
    office.leave(parts=40)
    done = office.give(Collected(proof=office.proof(), sender=device, **about()))
    assert only(done, CollectedOk).to == device.device
    assert done.sends[0].topic == ue_inbox(device.host)
    [alarm] = [wake.alarm for wake in done.wakes if isinstance(wake.alarm, ForgetParts)]
    assert (alarm.first, alarm.end) == (0, 40)
    assert office.mailbox.held == ()
    assert office.message.state is MessageState.ENDED
    assert (office.message.grant_m, office.message.proof_hash) == (b"", b"")
    assert not waitings(office.register(TABLET))
    office.sweep()
    assert office.labels() == ["message"], "what is remembered of it lets no INVITE begin it anew"
    office.later(NOW + FORGOTTEN_S)
    assert office.labels() == []


def test_or_30_after_not_after_it_is_gone() -> None:
    office = Office(keep_s=5000)
    office.register(PHONE, until=NOW + 10_000)
    office.leave(parts=2)
    until = office.message.not_after
    assert until == NOW + 5000
    assert office.later(until).puts, "an alarm that is early sets another"
    assert isinstance(office.retrieve(0, now=until)[0], Stored)
    assert refusal_of(office.retrieve(0, now=until + 1)) is RefusalCode.NOT_FOUND, "whenever the alarm comes"
    assert not waitings(office.register(TABLET, until + 1, until + 99))
    office.later(until + 1)
    office.sweep(until + 1)
    assert office.labels() == ["message"]
    office.later(until + 1 + FORGOTTEN_S)
    assert office.labels() == []


def test_or_30_nobody_deletes_what_is_still_being_said() -> None:
    office = Office()
    office.give(office.invite())
    assert refusal_of([office.collect(bytes(32))]) is RefusalCode.DENIED
    office = Office()
    office.answered()
    office.hear(1)
    assert refusal_of([office.collect(office.proof())]) is RefusalCode.BUSY
    assert office.message.state is MessageState.RECORDING


def test_a_message_that_never_was_is_gone() -> None:
    office = Office()
    assert isinstance(office.collect(bytes(32)), CollectedOk)
    assert office.records == {}
