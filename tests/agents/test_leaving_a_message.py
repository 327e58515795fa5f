"""A mailbox answers, and the caller leaves a message: each check of its 200 OK broken alone, and the rest.

Mailbox, KMS and the callee's devices are played by the test, which knows the caller's key: what it sends is
sealed under the right key, and wrong in one thing.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.alarms import CallAlarm
from agents.decision import NOTHING
from agents.handset.ue_call import GIVE_UP_S
from chaos.silent_media import NO_STATISTICS
from media.leg import CloseMedia, MediaClosed, OpenMedia
from protocol.checks import Check
from protocol.deferred import proof_of, seal_mailbox_grant
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest
from protocol.evidence import Holder
from protocol.names import Kind, Permit, Role
from protocol.profile import HARDENED, LITERAL
from protocol.secret import Secret
from storage.ue_records import CallState, LeftMessage, Outbox
from tests.agents.leaver import DEVICE, FORK, KEY_ID, RECORDER, UNTIL, Alice, K, events, only, sent
from tests.agents.scene import ALICE, BOB, EVE, MAILBOX, NOW
from topics.catalogue import CSCF, KMS
from topics.messages import (
    Bye,
    MailboxOk,
    Ok,
    Report,
    ReportEvent,
    Ringing,
    Settled,
    SettledOk,
)

# Taken.


@pytest.mark.parametrize("ringing", [False, True])
def test_a_mailbox_is_taken_and_the_user_is_told(*, ringing: bool) -> None:
    alice = Alice()
    if ringing:
        alice.give(Ringing(**alice.about))
    decision = alice.give(alice.ok_of_mailbox())
    report = only(Report, decision)
    assert (report.event, report.reason, report.until) == (ReportEvent.MAILBOX, "not-registered", UNTIL)
    [opened] = decision.media
    assert isinstance(opened, OpenMedia)
    leg = opened.leg
    assert (leg.root, leg.local, leg.remote, leg.n, leg.remote_address) == (K, ALICE, BOB, 0, RECORDER)
    assert (leg.flow, leg.to_mailbox, leg.lifetime_s) == (Flow.SENDONLY, True, UNTIL - NOW)
    assert (alice.call.state, alice.call.mailbox, alice.call.fork) == (CallState.LEAVING, MAILBOX, b"")
    [left] = alice.outbox.left
    assert left.proof == Secret(proof_of(K, alice.run))
    assert (left.callee, left.call, left.left_at, left.until) == (BOB, alice.run.call, NOW, UNTIL)


def test_settled_tells_the_kms_of_no_fork_until_it_is_answered() -> None:
    alice = Alice()
    settled = only(Settled, alice.give(alice.ok_of_mailbox()))
    opened = HARDENED.open_settled(
        alice.holder, alice.run, settled.sealed, token_a_hash=digest(alice.invite.token_a)
    )
    assert (opened.fork, opened.nonce, opened.call) == (None, alice.call.nonce, alice.run.call)
    again = alice.give(CallAlarm(alice.call.session), now=NOW + 2)
    assert [send.topic for send in again.sends] == [KMS]
    assert only(Settled, again) == settled
    alice.give(SettledOk(**alice.about))
    assert not alice.give(CallAlarm(alice.call.session), now=NOW + 60).sends
    assert alice.call.state is CallState.LEAVING


def test_no_report_holds_a_secret() -> None:
    alice = Alice()
    told = alice.give(alice.ok_of_mailbox())
    told += alice.hang_up() + alice.give(alice.bye_ok())
    proof = proof_of(K, alice.run)
    for send in told.sends:
        octets = msgspec.msgpack.encode(send.message)
        for secret in (K.reveal(), alice.key.reveal(), proof):
            assert secret not in octets
            assert secret.hex().encode() not in octets
    assert proof.hex() not in repr(alice.outbox) + repr(told)


def test_what_was_left_is_remembered_in_a_bounded_number() -> None:
    alice = Alice()
    old = LeftMessage(callee=EVE, call=bytes(16), proof=Secret(bytes(32)), left_at=NOW - 9, until=NOW - 1)
    kept = msgspec.structs.replace(old, until=NOW + 1)
    alice.put(Outbox.key_for(DEVICE), Outbox(left=(old, *[kept] * 100, old)))
    alice.leaving()
    assert (len(alice.outbox.left), alice.outbox.left[-1].callee) == (100, BOB)
    assert old not in alice.outbox.left


# Refused.


def stays_calling(alice: Alice, ok: MailboxOk | Ok, check: Check) -> None:
    """It is refused by this check, and the call goes on as if nothing had come."""
    before = dict(alice.records)
    decision = alice.give(ok)
    report = only(Report, decision)
    assert (report.event, report.check) == (ReportEvent.REFUSED, check)
    assert len(decision.sends) == 1
    assert (decision.media, decision.puts, decision.wakes) == ((), (), ())
    assert alice.records == before
    assert alice.call.state is CallState.CALLING


def test_or_20_a_grant_under_another_key() -> None:
    alice = Alice()
    for wrong in (
        Holder(Role.CALLER, KEY_ID, Secret(bytes(32))),
        Holder(Role.CALLER, "psk:another", alice.key),
    ):
        grant_m = seal_mailbox_grant(
            wrong, alice.run, alice.grant(), token_a=alice.invite.token_a, random=alice.random
        )
        stays_calling(alice, alice.ok_of_mailbox(grant_m), Check.OR_20)


def test_or_20_a_grant_for_another_token() -> None:
    """Of an earlier call to the same mailbox, with the nonce of this one."""
    alice = Alice()
    grant_m = seal_mailbox_grant(
        alice.holder, alice.run, alice.grant(), token_a=bytes(60), random=alice.random
    )
    stays_calling(alice, alice.ok_of_mailbox(grant_m), Check.OR_20)


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (Check.OR_21, {"nonce": bytes(16)}),
        (Check.OR_22, {"call": bytes(16)}),
        (Check.OR_22, {"n": 1}),
        (Check.OR_22, {"caller": EVE}),
        (Check.OR_22, {"callee": EVE}),
        (Check.OR_22, {"mailbox": EVE}),
        (Check.OR_23, {"not_after": NOW - 1}),
        (Check.OR_23, {"not_before": NOW + 1}),
        (Check.OR_24, {"kind": Kind.PEER}),
        (Check.OR_24, {"answer_hash": digest(b"another")}),
    ],
    ids=str,
)
def test_or_21_to_or_24_what_the_grant_says_inside(check: Check, changes: dict[str, Any]) -> None:
    alice = Alice()
    stays_calling(alice, alice.ok_of_mailbox(**changes), check)


def test_or_22_another_mailbox_than_the_one_that_was_sealed() -> None:
    alice = Alice()
    stays_calling(alice, msgspec.structs.replace(alice.ok_of_mailbox(), mailbox=EVE), Check.OR_22)


def test_or_24_a16_the_mailboxs_answer_changed_to_a_weaker_suite() -> None:
    """Both are of the offer; one was sealed."""
    alice = Alice()
    weaker = Description((SrtpSuite.AES_CM_128_HMAC_SHA1_80,), ("PCMU",), Flow.RECVONLY).octets
    stays_calling(alice, msgspec.structs.replace(alice.ok_of_mailbox(), answer=weaker), Check.OR_24)
    alice.give(msgspec.structs.replace(alice.ok_of_mailbox(answer_hash=digest(weaker)), answer=weaker))
    assert alice.call.state is CallState.LEAVING


@pytest.mark.parametrize(
    "answer",
    [
        b"junk",
        Description(("AEAD_AES_256_GCM",), ("PCMU",), Flow.SENDRECV).octets,
        Description(("AEAD_AES_256_GCM",), ("PCMA",), Flow.RECVONLY).octets,
        Description(("NULL_CIPHER",), ("PCMU",), Flow.RECVONLY).octets,
        Description(tuple(SrtpSuite), ("PCMU",), Flow.RECVONLY).octets,
    ],
)
def test_or_24_a_sealed_answer_that_is_none_to_the_offer(answer: bytes) -> None:
    alice = Alice()
    ok = msgspec.structs.replace(alice.ok_of_mailbox(answer_hash=digest(answer)), answer=answer)
    stays_calling(alice, ok, Check.OR_24)


def test_or_20_or_24_a_grant_of_one_kind_in_place_of_the_other() -> None:
    """The KMS seals both for the caller under the same key and label, for the same token."""
    alice = Alice()
    stays_calling(alice, alice.ok_of_mailbox(alice.peer_grant()), Check.OR_20)
    stays_calling(alice, alice.ok_of_device(alice.ok_of_mailbox().grant_m), Check.OR_24)


def test_or_24_a_user_who_does_not_permit_it() -> None:
    for alice in (Alice(permits=()), Alice(permits=(Permit.CONFERENCE,))):
        stays_calling(alice, alice.ok_of_mailbox(), Check.OR_24)


def test_or_24_there_is_no_mailbox_in_the_literal_profile() -> None:
    alice = Alice(LITERAL)
    stays_calling(alice, alice.ok_of_mailbox(), Check.OR_24)


# One answer only.


def test_or_26_a_device_that_was_first() -> None:
    alice = Alice()
    alice.give(alice.ok_of_device())
    assert alice.call.state is CallState.UP
    assert alice.give(alice.ok_of_mailbox()) == NOTHING


def test_or_26_a_mailbox_is_taken_once() -> None:
    """Its 200 OK is repeated for each repeated INVITE; another one, as valid, changes nothing."""
    alice = Alice()
    ok = alice.ok_of_mailbox()
    alice.give(ok)
    assert alice.give(ok) == NOTHING
    assert alice.give(alice.ok_of_mailbox(key=Secret(bytes(32)))) == NOTHING


def test_a_device_that_answers_too_late_is_told_so() -> None:
    """BYE under its own K, at whatever time; the message goes on. One that is not valid gets nothing."""
    alice = Alice().leaving()
    ok = alice.ok_of_device()
    for state, go_on in (
        (CallState.LEAVING, alice.hang_up),
        (CallState.HANGING_UP, lambda: alice.give(alice.bye_ok())),
        (CallState.ENDED, lambda: None),
    ):
        before = alice.call
        assert before.state is state
        decision = alice.give(ok)
        assert [(send.topic, type(send.message)) for send in decision.sends] == [(CSCF, Bye)]
        bye = only(Bye, decision)
        assert (bye.fork, bye.by) == (FORK, Role.CALLER)
        assert bye.proof is not None
        HARDENED.verify_bye(K, Role.CALLER, alice.run, FORK, bye.proof)
        assert (decision.media, alice.call) == ((), before)
        wrong = msgspec.structs.replace(ok, confirm_b=bytes(32))
        assert events(alice.give(wrong)) == [ReportEvent.REFUSED]
        go_on()


# The end.


def test_a_message_is_left_when_the_mailbox_says_so() -> None:
    alice = Alice().leaving()
    decision = alice.hang_up()
    bye = only(Bye, decision)
    assert (bye.fork, bye.by, bye.proof) == (None, Role.CALLER, None)
    assert decision.media == (CloseMedia(alice.call.session),)
    assert events(decision) == []
    decision = alice.give(alice.bye_ok())
    assert events(decision) == [ReportEvent.LEFT, ReportEvent.ENDED]
    left = sent(decision, Report)[0]
    assert (left.packets, left.callee, left.call) == (321, BOB, alice.run.call)
    assert alice.call.key is None
    assert alice.give(alice.bye_ok()) == NOTHING


@pytest.mark.parametrize("kept", [0, None])
def test_nothing_was_left(kept: int | None) -> None:
    alice = Alice().leaving()
    alice.hang_up()
    assert events(alice.give(alice.bye_ok(kept=kept))) == [ReportEvent.ENDED]
    assert len(alice.outbox.left) == (kept is None), "what was not stored is not listed as left"


def test_settled_is_repeated_until_it_is_answered_though_the_call_is_over() -> None:
    alice = Alice().leaving()
    alice.hang_up()
    assert only(Settled, alice.give(CallAlarm(alice.call.session), now=NOW + 2))
    alice.give(alice.bye_ok())
    alarm = CallAlarm(alice.call.session)
    seconds = [second for second in range(3, 64) if sent(alice.give(alarm, now=NOW + second), Settled)]
    assert len(seconds) > 3
    alice.give(SettledOk(**alice.about))
    assert not any(alice.give(alarm, now=NOW + second).sends for second in range(64, 200))


@pytest.mark.parametrize("changes", [{"by": Role.CALLEE}, {"by": Role.CALLER}, {"fork": FORK}], ids=str)
def test_or_22_somebody_else_says_that_it_was_left(changes: dict[str, Any]) -> None:
    alice = Alice().leaving()
    alice.hang_up()
    assert alice.give(alice.bye_ok(**changes)) == NOTHING


def test_a_mailbox_that_does_not_answer_has_kept_nothing() -> None:
    alice = Alice().leaving()
    alice.hang_up()
    repeated = [
        only(Bye, decision)
        for second in range(1, GIVE_UP_S)
        if (decision := alice.give(CallAlarm(alice.call.session), now=NOW + second)).sends
    ]
    assert len(repeated) == 4
    ended = alice.give(CallAlarm(alice.call.session), now=NOW + GIVE_UP_S)
    assert events(ended) == [ReportEvent.ENDED]
    assert alice.give(alice.bye_ok()) == NOTHING


def test_a_mailbox_that_takes_no_more_is_obeyed() -> None:
    """It proves nothing, and ends nothing but a message: here BYE, and its BYE-OK says how much it has."""
    alice = Alice().leaving()
    bye = Bye(fork=None, by=Role.MAILBOX, proof=None, reason="too-long", **alice.about)
    decision = alice.give(bye)
    assert only(Bye, decision).by is Role.CALLER
    assert decision.media == (CloseMedia(alice.call.session),)
    assert alice.give(bye) == NOTHING
    decision = alice.give(alice.bye_ok())
    assert events(decision) == [ReportEvent.LEFT, ReportEvent.ENDED]
    assert sent(decision, Report)[1].reason == "too-long"
    assert alice.give(bye) == NOTHING


def test_a_mailbox_ends_no_call_between_two_devices() -> None:
    alice = Alice()
    bye = Bye(fork=None, by=Role.MAILBOX, proof=None, reason="too-long", **alice.about)
    assert alice.give(bye) == NOTHING
    alice.give(alice.ok_of_device())
    for message in (bye, alice.bye_ok(), alice.bye_ok(fork=FORK)):
        assert alice.give(message) == NOTHING
    alice.hang_up()
    for message in (bye, alice.bye_ok(), alice.bye_ok(fork=FORK)):
        assert alice.give(message) == NOTHING
    assert alice.call.state is CallState.HANGING_UP
    assert events(alice.give(alice.bye_ok(fork=FORK, by=Role.CALLEE))) == [ReportEvent.ENDED]


def test_or_22_a_device_ends_no_message() -> None:
    alice = Alice().leaving()
    for fork, proof in ((FORK, bytes(32)), (None, bytes(32)), (None, None), (b"", None)):
        bye = Bye(fork=fork, by=Role.CALLEE, proof=proof, **alice.about)
        decision = alice.give(bye)
        assert sent(decision, Report)[0].check is Check.OR_22
        assert len(decision.sends) == 1
    assert alice.call.state is CallState.LEAVING


def test_or_28_a_message_ends_with_its_key() -> None:
    alice = Alice().leaving()
    ended = MediaClosed(alice.call.session, NO_STATISTICS, expired=True)
    decision = alice.give(ended)
    assert only(Bye, decision).fork is None
    assert alice.call.state is CallState.HANGING_UP
    alice = Alice().leaving()
    assert only(Bye, alice.give(CallAlarm(alice.call.session), now=UNTIL)).fork is None


def test_a_mailbox_whose_word_is_lost_is_not_spoken_to_for_ever() -> None:
    """It says so when it takes no more; if that does not come, the caller's own end stops."""
    alice = Alice().leaving()
    alice.give(SettledOk(**alice.about))
    [wake] = alice.give(CallAlarm(alice.call.session), now=NOW + 2).wakes
    assert wake.at == alice.call.give_up_at
    assert alice.call.give_up_at < NOW + 600
    decision = alice.give(CallAlarm(alice.call.session), now=alice.call.give_up_at)
    assert only(Bye, decision).by is Role.CALLER
    assert decision.media == (CloseMedia(alice.call.session),)
    assert alice.call.reason == "too-long"
