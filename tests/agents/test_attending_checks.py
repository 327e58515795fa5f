"""The checks of a member of a conference, each broken alone; what may come when; and no secret that shows."""

from __future__ import annotations

import io
from typing import Any, Final

import msgspec
import pytest

from agents.decision import NOTHING, Decision
from agents.handset.attending import EXPECTED
from agents.handset.ue_call import session_of
from protocol.checks import Check, RefusalCode
from protocol.conference import seal_member_token
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest, enc_body
from protocol.evidence import Holder
from protocol.limits import EPOCH_S
from protocol.names import Role, Suite
from protocol.sealing import Channel, down_key
from protocol.secret import Secret
from storage.attendance_records import Attendances, AttendanceState
from storage.records import RecordCodec
from storage.wrapping import KeyEncryptionKey, Wrapping
from tests.agents.collector import only, report, reports, sent
from tests.agents.member import (
    ALONE,
    ANSWER,
    AT,
    CAROL,
    DEVICE,
    ELSEWHERE,
    FOCUS,
    GROUP,
    KEY_ID,
    WITH_BOB,
    Alice,
    about,
    epoch_key,
    join,
    leave,
    leave_ok,
    medium,
    put_out,
    refused,
    run_of,
)
from tests.agents.scene import ALICE, BOB, EVE, NOW
from topics.codec import encode
from topics.messages import InUse, Join, Joined, Rekey, Report, ReportEvent

# Both messages that carry a grant, JOINED and REKEY, with the epoch before them.


def stays_out(alice: Alice, message: Joined, check: Check) -> None:
    """It is refused by this check, and she waits on as if nothing had come."""
    _unchanged(alice, message, check)
    assert alice.state is AttendanceState.JOINING


def stays_as_it_was(alice: Alice, message: Rekey | Joined, check: Check) -> None:
    """It is refused by this check, and she stays in the epoch in which she is."""
    epoch = alice.attendance.epoch
    _unchanged(alice, message, check)
    assert (alice.state, alice.attendance.epoch) == (AttendanceState.IN, epoch)


def _unchanged(alice: Alice, message: Rekey | Joined, check: Check) -> None:
    before = dict(alice.records)
    decision = alice.give(message)
    told = report(decision, ReportEvent.REFUSED)
    assert (told.check, told.group, told.call) == (check, GROUP, message.call)
    assert (sent(decision), decision.media, decision.puts, decision.wakes) == ([], (), (), ())
    assert alice.records == before


WRONG_SEALS: Final[dict[str, dict[str, Any]]] = {
    "another key": {"down_key": down_key(Secret(bytes(32)), Suite.AES_256_GCM, Role.MEMBER)},
    "another token": {"token_hash": digest(b"another")},
    "another focus": {"focus": EVE},
    "another member": {"member": BOB},
    "another key id": {"key_id": "psk:another"},
}


@pytest.mark.parametrize("seal", WRONG_SEALS.values(), ids=WRONG_SEALS)
def test_or_20_a_grant_that_is_sealed_for_something_else(seal: dict[str, Any]) -> None:
    alice = Alice()
    asked = alice.asked()
    stays_out(alice, alice.joined(asked, seal=seal), Check.OR_20)
    alice.give(alice.joined(asked))
    stays_as_it_was(alice, alice.rekey(asked, 2, seal=seal), Check.OR_20)


@pytest.mark.parametrize("role", [Role.CALLER, Role.CALLEE, Role.FOCUS])
def test_or_20_a_grant_for_another_role_of_the_same_key(role: Role) -> None:
    alice = Alice()
    asked = alice.inside()
    seal = {"down_key": down_key(alice.key, asked.suite, role)}
    stays_as_it_was(alice, alice.rekey(asked, 2, seal=seal), Check.OR_20)


def test_or_20_a_grant_under_another_suite() -> None:
    alice = Alice()
    asked = alice.inside()
    other = msgspec.structs.replace(asked, suite=Suite.CHACHA20_POLY1305)
    seal = {"token_hash": digest(asked.token_g)}
    holder = Holder(Role.MEMBER, KEY_ID, alice.key)
    token_g = seal_member_token(holder, run_of(other), alice.token(asked), random=alice.random)
    other = msgspec.structs.replace(other, token_g=token_g)
    stays_as_it_was(alice, alice.rekey(other, 2, seal=seal), Check.OR_20)


def test_or_20_her_own_token_comes_back_as_the_grant() -> None:
    alice = Alice()
    asked = alice.asked()
    back = msgspec.structs.replace(alice.joined(asked), grant=asked.token_g)
    stays_out(alice, back, Check.OR_20)


@pytest.mark.parametrize("epoch", [1, 3, 2**32 - 1])
def test_or_20_an_epoch_in_clear_that_is_not_the_sealed_one(epoch: int) -> None:
    """The focus cannot give one epoch's grant out as another's."""
    alice = Alice()
    asked = alice.asked()
    stays_out(alice, msgspec.structs.replace(alice.joined(asked, 2), epoch=epoch), Check.OR_20)


def test_or_20_a_grant_of_the_attendance_before() -> None:
    alice = Alice()
    before = alice.inside()
    grant = alice.sealed(before, 5)
    alice.give(put_out(before))
    asked = alice.asked(join(request=b"t" * 16))
    again = Joined(epoch=5, grant=grant, answer=ANSWER, media=AT, **about(asked))
    stays_out(alice, again, Check.OR_20)


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (Check.OR_21, {"nonce": bytes(16)}),
        (Check.OR_22, {"roster": (BOB, FOCUS)}),
        (Check.OR_22, {"roster": ()}),
        (Check.OR_23, {"not_after": NOW - 1}),
        (Check.OR_23, {"not_before": NOW + 1}),
    ],
    ids=str,
)
def test_or_21_to_or_23_what_the_grant_says_inside(check: Check, changes: dict[str, Any]) -> None:
    alice = Alice()
    asked = alice.asked()
    stays_out(alice, alice.joined(asked, **changes), check)
    alice.give(alice.joined(asked))
    stays_as_it_was(alice, alice.rekey(asked, 2, **changes), check)


def test_or_21_a_grant_with_another_nonce_that_is_sealed_for_this_token() -> None:
    alice = Alice()
    asked = alice.asked()
    stays_out(alice, alice.joined(asked, nonce=b"n" * 16), Check.OR_21)


@pytest.mark.parametrize(
    "changes", [{"call": bytes(16)}, {"member": BOB}, {"group": b"H" * 16}, {"focus": EVE}], ids=str
)
def test_or_22_a_message_of_another_attendance(changes: dict[str, Any]) -> None:
    """Her own of before, that of another user of her host, one of another conference."""
    for message in (Alice.joined, Alice.rekey):
        alice = Alice()
        asked = alice.inside()
        before = dict(alice.records)
        assert alice.give(msgspec.structs.replace(message(alice, asked, 2), **changes)) == NOTHING
        assert alice.records == before
    for ending in (put_out(asked), leave_ok(asked), refused(asked, RefusalCode.DENIED)):
        for prepare in (Alice.asked, Alice.inside, Alice.leaving):
            alice = Alice()
            prepare(alice)
            assert alice.give(msgspec.structs.replace(ending, **changes)) == NOTHING


@pytest.mark.parametrize("changes", [{"group": b"H" * 16}, {"epoch": 3}, {"epoch": 1}], ids=str)
def test_or_22_another_conference_or_epoch_inside(changes: dict[str, Any]) -> None:
    """Sealed as what the focus says in clear, by a confused KMS."""
    alice = Alice()
    asked = alice.inside()
    channel = Channel(down_key(alice.key, asked.suite, Role.MEMBER), asked.suite)
    context = (GROUP, 2, FOCUS, ALICE, KEY_ID, digest(asked.token_g))
    inside = alice.grant(asked, **{"epoch": 2, **changes})
    sealed = channel.seal("grant-g", context, enc_body(inside), alice.random)
    stays_as_it_was(alice, Rekey(epoch=2, grant=sealed, media=AT, **about(asked)), Check.OR_22)


def test_or_22_a_roster_without_her_takes_her_no_further() -> None:
    alice = Alice()
    asked = alice.inside()
    stays_as_it_was(alice, alice.rekey(asked, 2, roster=(BOB, CAROL, FOCUS)), Check.OR_22)
    alice.give(alice.alarm(), NOW + EPOCH_S)
    assert (alice.state, alice.epoch_keys) == (AttendanceState.OUT, [])


def test_or_23_an_epoch_whose_time_is_over() -> None:
    alice = Alice()
    asked = alice.asked()
    joined = alice.joined(asked)
    told = report(alice.give(joined, NOW + EPOCH_S + 1), ReportEvent.REFUSED)
    assert (told.check, told.reason) == (Check.OR_23, "expired")


@pytest.mark.parametrize(
    "answer",
    [
        b"junk",
        Description(tuple(SrtpSuite), ("PCMU",), Flow.SENDRECV).octets,
        Description(("NULL_CIPHER",), ("PCMU",), Flow.SENDRECV).octets,
        Description(("AEAD_AES_256_GCM",), ("OPUS",), Flow.SENDRECV).octets,
        Description(("AEAD_AES_256_GCM",), ("PCMU",), Flow.RECVONLY).octets,
    ],
)
def test_or_24_an_answer_that_is_none_to_her_offer(answer: bytes) -> None:
    alice = Alice()
    asked = alice.asked()
    stays_out(alice, msgspec.structs.replace(alice.joined(asked), answer=answer), Check.OR_24)


def test_or_24_a_suite_that_she_has_not_offered() -> None:
    alice = Alice(srtp_suites=(SrtpSuite.AEAD_AES_256_GCM,))
    asked = alice.asked()
    weaker = Description(("AES_CM_128_HMAC_SHA1_80",), ("PCMU",), Flow.SENDRECV).octets
    stays_out(alice, msgspec.structs.replace(alice.joined(asked), answer=weaker), Check.OR_24)


def test_or_26_only_the_first_answer_chooses() -> None:
    alice = Alice()
    asked = alice.inside()
    weaker = Description(("AES_CM_128_HMAC_SHA1_80",), ("PCMU",), Flow.SENDRECV).octets
    for epoch in (1, 2):
        alice.give(msgspec.structs.replace(alice.joined(asked, epoch), answer=weaker))
        assert alice.attendance.answer == ANSWER


def test_a15_an_old_epochs_grant_played_to_a_member() -> None:
    """Bob was put out in epoch 3, and still has the keys of 1 and 2: nobody goes back to them (OR-29)."""
    alice = Alice()
    asked = alice.inside(1, WITH_BOB)
    second = alice.rekey(asked, 2)
    alice.give(second)
    alice.give(alice.rekey(asked, 3, roster=ALONE))
    for old in (second, alice.rekey(asked, 2), alice.rekey(asked, 1), alice.joined(asked, 1)):
        stays_as_it_was(alice, old, Check.OR_29)
    assert alice.epoch_keys == [epoch_key(3)]


def test_or_29_an_epoch_that_is_not_later() -> None:
    alice = Alice()
    asked = alice.inside(7)
    for epoch in (6, 1):
        stays_as_it_was(alice, alice.rekey(asked, epoch), Check.OR_29)
    assert only(InUse, alice.give(alice.rekey(asked, 8))).epoch == 8


def test_or_29_another_key_under_the_number_of_the_epoch_that_she_has() -> None:
    """It is not even opened: what she speaks under stays."""
    alice = Alice()
    asked = alice.inside()
    decision = alice.give(alice.rekey(asked, 1, key=epoch_key(9), roster=ALONE))
    assert (decision.media, decision.puts) == ((), ())
    assert (alice.epoch_keys, alice.attendance.roster) == ([epoch_key(1)], WITH_BOB)


def test_or_29_holds_for_who_joins_anew() -> None:
    alice = Alice()
    alice.give(put_out(alice.inside(5)))
    asked = alice.asked(join(request=b"t" * 16))
    stays_out(alice, alice.joined(asked, 5), Check.OR_29)
    only(InUse, alice.give(alice.joined(asked, 6)))


# Hints end, and never weaken.


def test_no_hint_brings_back_a_key_or_another_epoch() -> None:
    alice = Alice()
    asked = alice.inside(2)
    alice.give(put_out(asked))
    for message in (alice.rekey(asked, 2), alice.joined(asked, 1), put_out(asked), leave_ok(asked)):
        decision = alice.give(message)
        assert (decision.media, decision.puts, sent(decision)) == ((), (), [])
    assert alice.epoch_keys == []


# What may come in each state.


def prepared(state: AttendanceState) -> tuple[Alice, Join]:
    alice = Alice()
    asked = alice.asked()
    if state is not AttendanceState.JOINING:
        alice.give(alice.joined(asked, 2))
    if state is AttendanceState.LEAVING:
        alice.give(leave())
    if state is AttendanceState.OUT:
        alice.give(put_out(asked))
    assert alice.state is state
    return alice, asked


INPUTS: Final[dict[str, Any]] = {
    "AttendanceAlarm": lambda alice, _: alice.alarm(),
    "MediaClosed": lambda alice, _: alice.closed(),
    "MediaSilent": lambda alice, _: alice.silent(),
    "JoinConference": lambda _, __: join(),
    "LeaveConference": lambda _, __: leave(),
    "Joined": lambda alice, asked: alice.joined(asked, 3),
    "JoinRefused": lambda _, asked: refused(asked, RefusalCode.NOT_FOUND),
    "Rekey": lambda alice, asked: alice.rekey(asked, 3),
    "PutOut": lambda _, asked: put_out(asked),
    "LeaveOk": lambda _, asked: leave_ok(asked),
}


def test_the_table_has_every_state_and_names_nothing_else() -> None:
    assert set(EXPECTED) == set(AttendanceState)
    assert {kind.__name__ for kinds in EXPECTED.values() for kind in kinds} == set(INPUTS) - {
        "JoinConference"  # which is dealt with by its request
    }


@pytest.mark.parametrize("state", AttendanceState)
@pytest.mark.parametrize("name", INPUTS)
def test_or_26_what_the_table_does_not_name_changes_nothing(state: AttendanceState, name: str) -> None:
    alice, asked = prepared(state)
    message = INPUTS[name](alice, asked)
    before = dict(alice.records)
    decision = alice.give(message)
    if type(message) not in EXPECTED[state]:
        assert alice.records == before
        if name == "LeaveConference" and state is AttendanceState.OUT:  # a user always hears something
            assert reports(decision)
            decision = Decision()
        assert decision == NOTHING


@pytest.mark.parametrize("state", AttendanceState)
def test_what_the_table_names_does_something(state: AttendanceState) -> None:
    for name, given in INPUTS.items():
        alice, asked = prepared(state)
        message = given(alice, asked)
        if type(message) in EXPECTED[state]:
            assert alice.give(message) != NOTHING, name


# No secret shows.


def test_k_e_is_in_nothing_that_leaves_and_in_no_repr() -> None:
    alice = Alice()
    seen = io.BytesIO()
    asked = alice.asked()
    for message in (alice.joined(asked), alice.rekey(asked, 2), leave(), leave_ok(asked)):
        decision = alice.give(message)
        for send in decision.sends:
            seen.write(encode(send.message))
        seen.write(repr((decision, alice.records)).encode())
    everything = seen.getvalue()
    for secret in (alice.key, epoch_key(1), epoch_key(2)):
        for form in (secret.reveal(), secret.reveal().hex().encode(), repr(secret.reveal())[2:-1].encode()):
            assert form not in everything


def test_what_is_remembered_is_wrapped_and_reads_back() -> None:
    alice = Alice()
    alice.inside()
    key = Attendances.key_for(DEVICE)
    record = alice.records[key.name]
    codec = RecordCodec(Wrapping([KeyEncryptionKey(b"lab0", Secret(bytes(32)), 0)], alice.random))
    octets = codec.encode(key, record)
    assert codec.decode(key, octets) == record
    for secret in (alice.key, epoch_key(1)):
        assert secret.reveal() not in octets


@pytest.mark.parametrize("state", [AttendanceState.LEAVING, AttendanceState.OUT])
def test_k_e_is_destroyed_when_it_is_over(state: AttendanceState) -> None:
    alice, _ = prepared(state)
    assert alice.epoch_keys == []


def test_only_the_last_epochs_key_is_kept() -> None:
    alice = Alice()
    asked = alice.inside()
    for epoch in range(2, 6):
        alice.give(alice.rekey(asked, epoch))
        assert alice.epoch_keys == [epoch_key(epoch)]


def test_names_of_media_are_no_calls() -> None:
    alice = Alice()
    asked = alice.inside()
    assert alice.attendance.session == session_of(DEVICE, ALICE, asked.call)
    assert asked.call != GROUP


def test_a_report_names_the_conference_and_the_attendance() -> None:
    alice = Alice()
    asked = alice.inside()
    alice.give(msgspec.structs.replace(alice.rekey(asked, 1), media=ELSEWHERE))
    [told] = reports(alice.give(alice.rekey(asked, 2)))
    assert isinstance(told, Report)
    assert (told.group, told.call, told.caller, told.callee) == (GROUP, asked.call, ALICE, FOCUS)
    assert medium(alice.give(leave())) is not None
