"""The mailbox: what it answers, whom it refuses, and that it holds no secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from agents.alarms import MessageAlarm
from agents.decision import NOTHING, Decision
from agents.kms import KmsSettings
from agents.mailbox.stored_message import call_of
from agents.voicemail import EXPECTED, Voicemail
from chaos.lab import draw_codec
from media.leg import CloseRecording, OpenRecording, Recorded, RecordingClosed
from protocol.checks import RefusalCode
from protocol.deferred import (
    open_mailbox_token,
    seal_receipt,
)
from protocol.description import Description, Flow, SrtpSuite
from protocol.evidence import Holder, Receipt
from protocol.limits import SKEW_S
from protocol.names import Role
from protocol.secret import Secret
from storage.records import Key
from storage.voicemail_records import MessageState
from tests.agents.office import (
    DAY_S,
    FORGOTTEN_S,
    LINES,
    PHONE,
    SESSION,
    Office,
    about,
    declined,
    only,
    other,
    packets,
)
from tests.agents.scene import ALICE, ANSWER, BOB, CALL, EVE, MAILBOX, NOW, OFFER
from topics import messages
from topics.catalogue import KMS
from topics.codec import decode, encode
from topics.messages import (
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    Collected,
    CollectedOk,
    DeclineReason,
    Deposit,
    DepositResponse,
    Mailbox,
    MailboxOk,
    Present,
    Refusal,
    Retrieve,
    Waiting,
    clear,
    run_of,
)

# A message is left.


def test_a_message_is_left_stored_and_announced() -> None:
    office = Office()
    office.register(PHONE)
    invite = office.invite()
    asked = office.give(invite)
    assert {send.topic for send in asked.sends} == {KMS}
    response = office.ask_kms(asked)
    answered = office.give(response)
    ok = only(answered, MailboxOk)
    assert (ok.mailbox, ok.answer, ok.diverted, ok.to) == (MAILBOX, ANSWER, "no-answer", None)
    assert answered.media == (OpenRecording(SESSION, LINES.index(ok.media)),)
    grant = office.grant_m(invite, ok)
    assert office.message.not_after == grant.not_after

    office.hear(3)
    assert office.message.packets == 150
    closing = office.give(office.bye())
    assert not closing.sends, "nothing is confirmed before the last packets are stored"
    assert closing.media == (CloseRecording(SESSION),)
    office.hear(1)
    left = office.give(RecordingClosed(SESSION))
    assert only(left, ByeOk).kept == 200
    assert only(left, ByeOk).by is Role.MAILBOX
    waiting = only(left, Waiting)
    assert (waiting.packets, waiting.parts, waiting.left_at) == (200, 4, NOW)
    assert (waiting.offer, waiting.answer, waiting.mailbox) == (OFFER, ANSWER, MAILBOX)
    assert (waiting.caller_key, waiting.to, waiting.request) == ("psk:alice", PHONE.device, None)
    assert office.labels() == ["announcements", "message", "part"]


def test_what_it_sends_is_what_the_bus_takes() -> None:
    office = Office()
    office.register()
    sent = [*office.give(office.invite()).sends]
    sent += office.give(office.ask_kms(Decision(sends=tuple(sent)))).sends
    office.hear(1, octets=240)
    office.give(office.bye())
    sent += office.give(RecordingClosed(SESSION)).sends
    sent += office.give(Retrieve(part=0, sender=PHONE, **about())).sends
    sent += office.give(Mailbox(identity=BOB, request=bytes(16), sender=PHONE)).sends
    sent += office.give(Collected(proof=office.proof(), sender=PHONE, **about())).sends
    kinds = [type(decode(encode(send.message))).__name__ for send in sent]
    assert kinds == [
        *("Deposit", "MailboxOk", "ByeOk", "Waiting", "Stored"),
        *("Waiting", "MailboxSays", "CollectedOk"),
    ]


def test_a_mailbox_is_given_what_no_device_takes_only() -> None:
    assert Office().give(Office().invite(diverted=None)) == NOTHING


# What it does not take, each with its reason.


def test_too_many_messages_of_one_caller() -> None:
    office = Office(from_one_max=2)
    for number in range(2):
        office.leave(call=other(number))
    assert declined(office.give(office.invite())) is DeclineReason.TOO_MANY
    office.answered(office.invite(call=other(9), caller=EVE))


def test_too_many_messages_in_all() -> None:
    office = Office(messages_max=2)
    office.leave(call=other(1))
    office.give(office.invite(call=other(2), caller=EVE))  # one that is begun counts
    assert declined(office.give(office.invite())) is DeclineReason.TOO_MANY
    office.give(Cancel(**about(call=other(2), caller=EVE)))
    office.answered()


def test_a_full_mailbox() -> None:
    office = Office(octets_max=9_000)
    office.leave(call=other(1))
    assert declined(office.give(office.invite())) is DeclineReason.MAILBOX_FULL
    office.answered(office.invite(callee=EVE))


def test_no_free_line_before_the_kms_is_asked_and_after() -> None:
    office = Office(lines=LINES[:1])
    late = office.give(office.invite(call=other(1)))
    office.answered()
    assert declined(office.give(office.invite(call=other(2)))) is DeclineReason.BUSY
    assert declined(office.give(office.ask_kms(late))) is DeclineReason.BUSY
    assert declined(office.give(office.invite(call=other(1)))) is DeclineReason.BUSY, "a repeat too"
    office.give(office.bye())
    office.give(RecordingClosed(SESSION))
    office.answered(office.invite(call=other(3)))


@pytest.mark.parametrize(
    "offer",
    [
        b"no offer",
        Description(("NULL",), ("PCMU",), Flow.SENDRECV).octets,
        Description((SrtpSuite.AEAD_AES_256_GCM,), ("PCMU",), Flow.RECVONLY).octets,
    ],
    ids=["unreadable", "no suite", "sends nothing"],
)
def test_an_offer_that_it_cannot_take(offer: bytes) -> None:
    office = Office()
    assert declined(office.give(office.invite(offer=offer))) is DeclineReason.NOTHING_IN_COMMON
    assert office.labels() == []


def test_a_later_key_of_a_call_begins_no_message() -> None:
    assert declined(Office().give(Office().invite(run=1))) is DeclineReason.NO_KEY


@pytest.mark.parametrize(
    ("kms", "changes", "reason"),
    [
        (KmsSettings(), {"permits": ()}, DeclineReason.NOT_PERMITTED),
        (KmsSettings(deferred_days_max=0), {}, DeclineReason.NOT_PERMITTED),
        (KmsSettings(), {"time": NOW - 1000}, DeclineReason.NO_KEY),
        (KmsSettings(), {"caller_key": "psk:eve"}, DeclineReason.NO_KEY),
    ],
    ids=["the caller does not permit it", "nobody may", "stale", "another's key"],
)
def test_what_the_kms_refuses(kms: KmsSettings, changes: dict[str, Any], reason: DeclineReason) -> None:
    office = Office(kms=kms)
    invite = office.invite(**changes)
    refusal = office.ask_kms(office.give(invite))
    assert isinstance(refusal, Refusal)
    assert refusal.sealed is not None
    assert declined(office.give(refusal)) is reason
    assert declined(office.give(invite)) is reason, "a repeat hears the same"
    assert office.mailbox.held == ()


def test_a_kms_that_has_too_much_to_do_is_asked_again() -> None:
    office = Office(kms=KmsSettings(key_requests_per_s=0))
    refusal = office.ask_kms(office.give(office.invite()))
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.TOO_MANY
    assert refusal.sealed is not None
    assert office.give(refusal) == NOTHING
    assert office.message.state is MessageState.ASKING


def test_or_20_a_refusal_that_is_not_sealed_for_its_token_is_a_hint() -> None:
    office = Office()
    asked = office.give(office.invite(permits=()))
    refusal = office.ask_kms(asked)
    assert isinstance(refusal, Refusal)
    elsewhere = Office()  # the same keys, another token
    forged = elsewhere.ask_kms(elsewhere.give(elsewhere.invite(permits=(), time=NOW - 1)))
    assert isinstance(forged, Refusal)
    assert forged.sealed is not None
    for hint in (
        msgspec.structs.replace(refusal, sealed=None),
        msgspec.structs.replace(refusal, sealed=bytes(60)),
        forged,
    ):
        assert office.give(hint) == NOTHING
    assert office.message.state is MessageState.ASKING


# receipt_v: the checks of whoever opens a grant.


def receipt(office: Office, deposit: Deposit, *, key_id: str = "psk:voicemail", **changes: Any) -> Any:
    """A DEPOSIT-RESPONSE as if the KMS had sealed it; changes: of the receipt."""
    run = run_of(deposit, deposit.suite)
    holder = office.town.holder(Role.MAILBOX, "psk:voicemail")
    token_v = open_mailbox_token(holder, run, MAILBOX, deposit.token_v, token_a=deposit.token_a)
    fields: dict[str, Any] = {
        "mailbox": MAILBOX,
        "nonce": token_v.nonce,
        "not_before": NOW - SKEW_S,
        "not_after": NOW + DAY_S,
        "proof_hash": bytes(32),
        **changes,
    }
    inside: dict[str, Any] = {"call": run.call, "n": run.n, "caller": run.caller, "callee": run.callee}
    inside.update({name: fields.pop(name) for name in tuple(fields) if name in inside})
    sealed = seal_receipt(
        Holder(Role.MAILBOX, key_id, office.town.subscriber(key_id).key),
        run,
        Receipt(**inside, **fields),
        token_v=deposit.token_v,
        random=office.random,
    )
    return DepositResponse(grant_m=bytes(60), receipt_v=sealed, **clear(run))


def refuses(changes: dict[str, Any], now: int = NOW) -> None:
    """This receipt changes nothing, and the right one is still taken."""
    office = Office()
    deposit = only(office.give(office.invite()), Deposit)
    assert office.give(receipt(office, deposit, **changes), now) == NOTHING
    assert office.message.state is MessageState.ASKING
    only(office.give(receipt(office, deposit)), MailboxOk)


def test_or_20_a_receipt_under_another_key_or_for_another_token() -> None:
    refuses({"key_id": "psk:eve"})
    office = Office()
    office.give(office.invite())
    elsewhere = Office()
    response = elsewhere.ask_kms(elsewhere.give(elsewhere.invite(time=NOW - 1)))
    assert office.give(response) == NOTHING


def test_or_21_a_receipt_with_another_nonce() -> None:
    refuses({"nonce": bytes(16)})


@pytest.mark.parametrize(
    "changes",
    [{"callee": EVE}, {"caller": EVE}, {"call": other(7)}, {"n": 1}],
    ids=lambda each: next(iter(each)),
)
def test_or_22_a_receipt_of_another_run(changes: dict[str, Any]) -> None:
    refuses(changes)


def test_or_23_a_receipt_whose_time_is_over_or_to_come() -> None:
    refuses({"not_after": NOW - 1})
    refuses({"not_before": NOW + 1})


def test_or_26_an_answer_of_a_message_that_is_over_changes_nothing() -> None:
    office = Office()
    response = office.ask_kms(office.give(office.invite()))
    office.give(Cancel(**about()))
    assert office.give(response) == NOTHING


# Repeats.


def test_deposit_is_repeated_octet_for_octet_until_it_is_given_up() -> None:
    office = Office()
    first = only(office.give(office.invite()), Deposit)
    times = []
    for second in range(1, 32):
        again = office.later(NOW + second)
        if again.sends:
            assert only(again, Deposit) == first
            times.append(second)
    assert times == [2, 6, 14, 30]
    assert declined(office.later(NOW + 32)) is DeclineReason.NO_KEY


def test_the_same_answer_for_the_same_message() -> None:
    office = Office()
    invite = office.invite()
    asked = office.give(invite)
    assert office.give(invite) == NOTHING, "the KMS is being asked"
    response = office.ask_kms(asked)
    ok = only(office.give(response), MailboxOk)
    again = office.give(office.ask_kms(asked))
    assert only(again, MailboxOk) == ok, "freshly sealed by the KMS, and yet the answer stays"
    assert again.media == (OpenRecording(SESSION, 0),), "a loop may not have come to say so"
    assert only(office.give(invite), MailboxOk) == ok
    office.hear(1)
    assert not office.give(response).media
    office.give(office.bye())
    assert office.give(office.bye()) == NOTHING
    kept = only(office.give(RecordingClosed(SESSION)), ByeOk)
    assert office.give(office.bye()).sends[0].message == kept
    assert office.give(invite) == NOTHING


def test_packets_that_are_told_twice_are_stored_once() -> None:
    office = Office()
    office.answered()
    office.hear(2)
    assert office.give(Recorded(SESSION, 1, packets(1))) == NOTHING
    assert (office.message.parts, office.message.packets) == (2, 100)
    assert office.mailbox.held[0].octets == 100 * 188


def test_a_bye_that_names_a_device_is_none_of_a_mailboxs() -> None:
    office = Office()
    office.answered()
    assert office.give(office.bye(fork=bytes(8))) == NOTHING
    assert office.give(office.bye(by=Role.CALLEE)) == NOTHING
    assert office.give(office.bye(run=1)) == NOTHING


def test_bye_and_cancel_of_what_is_not_known() -> None:
    office = Office()
    assert only(office.give(office.bye()), ByeOk).kept == 0
    only(office.give(Cancel(**about())), Cancelled)
    assert office.records == {}


@pytest.mark.parametrize("how", ["collected", "cancelled", "hung up at once", "too old"])
def test_or_10_an_invite_is_not_begun_anew_while_its_token_could_be_accepted(how: str) -> None:
    office = Office()
    invite = office.invite()
    office.answered(invite)
    end = NOW
    match how:
        case "collected":
            office.hear(1)
            office.give(office.bye())
            office.give(RecordingClosed(SESSION))
            only(office.give(Collected(proof=office.proof(), sender=PHONE, **about())), CollectedOk)
        case "cancelled":
            office.give(Cancel(**about()))
            office.give(RecordingClosed(SESSION))
        case "hung up at once":
            office.give(office.bye())
            office.give(RecordingClosed(SESSION))
        case _:
            office.hear(1)
            office.give(office.bye())
            office.give(RecordingClosed(SESSION))
            end = office.message.not_after + 1
            office.later(end)
    for moment in (end, max(end, NOW + FORGOTTEN_S - 1)):
        office.later(moment)
        assert office.give(invite, moment) == NOTHING
    office.later(max(end + 32, NOW + FORGOTTEN_S))
    assert "message" not in office.labels()
    late = office.ask_kms(office.give(invite, NOW + FORGOTTEN_S), NOW + FORGOTTEN_S)
    assert isinstance(late, Refusal), "and then the KMS finds it stale"


# What it holds, and the table.


def test_no_secret_is_in_any_record() -> None:
    office = Office()
    office.register()
    codec = draw_codec(office.town.random)
    secrets = [office.settings.key]
    seen = []

    def look() -> None:
        for name, record in office.records.items():
            key: Key[Any] = Key(name, type(record))
            assert not record.secret
            seen.append(codec.encode(key, record))
            assert codec.decode(key, seen[-1]) == record

    asked = office.give(office.invite())
    look()
    office.give(office.ask_kms(asked))
    look()
    agreement = office.town.agreement()
    assert agreement is not None
    deposit = agreement.runs[0].deposit
    assert deposit is not None
    assert deposit.key is not None
    secrets += [deposit.key, Secret(office.proof())]
    office.hear(1)
    office.give(office.bye())
    look()
    office.give(RecordingClosed(SESSION))
    look()
    office.collect(office.proof())
    look()
    assert len(seen) > 10
    for secret in secrets:
        assert all(secret.reveal() not in octets for octets in seen)
    assert office.settings.key.reveal().hex() not in repr(office.settings)


STATES: Final[dict[MessageState, Callable[[Office], object]]] = {
    MessageState.ASKING: lambda office: office.give(office.invite()),
    MessageState.RECORDING: lambda office: (office.answered(), office.hear(1)),
    MessageState.CLOSING: lambda office: (office.answered(), office.hear(1), office.give(office.bye())),
    MessageState.LEFT: lambda office: office.leave(),
    MessageState.ENDED: lambda office: (office.leave(), office.collect(office.proof())),
}
INPUTS: Final[tuple[Any, ...]] = (
    MessageAlarm(ALICE, BOB, CALL),
    Recorded(SESSION, 1, packets(1)),
    RecordingClosed(SESSION),
    Office().invite(),
    Cancel(**about()),
    Bye(fork=None, by=Role.CALLER, proof=None, **about()),
    DepositResponse(grant_m=bytes(60), receipt_v=bytes(60), **about()),
    Refusal(code=RefusalCode.DENIED, sealed=None, to=None, **about()),
    Retrieve(part=0, sender=PHONE, **about()),
    Collected(proof=bytes(32), sender=PHONE, **about()),
    messages.Ringing(**about()),
    messages.Ack(fork=bytes(8), confirm_a=bytes(32), **about()),
    messages.ByeOk(fork=None, by=Role.CALLER, **about()),
    messages.Decline(reason=DeclineReason.BUSY, **about()),
    messages.CollectedOk(to="x", **about()),
)


def test_the_table_has_every_state_and_names_what_comes_only() -> None:
    assert set(EXPECTED) == set(STATES) == set(MessageState)
    named = set().union(*EXPECTED.values())
    assert named <= {type(each) for each in INPUTS}
    on_the_bus = named - {MessageAlarm, Recorded, RecordingClosed}
    assert Voicemail.accepts == on_the_bus | {Present, Mailbox}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("message", INPUTS, ids=lambda message: type(message).__name__)
def test_or_26_what_the_table_does_not_name_changes_nothing(state: MessageState, message: Any) -> None:
    office = Office()
    office.register()
    STATES[state](office)
    assert office.message.state is state
    decision = office.give(message)
    if type(message) not in EXPECTED[state]:
        assert decision == NOTHING


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("message", INPUTS, ids=lambda message: type(message).__name__)
def test_twice_the_same_changes_nothing_more(state: MessageState, message: Any) -> None:
    office = Office()
    office.register()
    STATES[state](office)
    office.give(message)
    before = dict(office.records)
    office.give(message)
    mine = {name: record for name, record in office.records.items() if ":mailbox:" not in name}
    assert mine == {name: record for name, record in before.items() if ":mailbox:" not in name}


def test_a_sessions_name_says_whose_it_is() -> None:
    assert call_of(SESSION) == (ALICE, BOB, CALL)
