"""The KMS's numbered checks, each broken alone: it refuses, says why to the audit, and changes no record."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.alarms import KeysEnd
from agents.decision import Decision
from agents.kms import KmsSettings
from protocol.checks import Check, RefusalCode, Refused
from protocol.limits import FORKS_MAX, LIFE_S, RING_S, SEEN_S, SKEW_S, TOKEN_AGE_S
from protocol.literal import Literal
from protocol.names import Role, Suite
from protocol.secret import Secret
from storage.kms_records import Site
from tests.agents.scene import (
    ALICE,
    BOB,
    CALL,
    EVE,
    NOW,
    OFFER,
    Town,
    expect,
    granted,
    refused,
)
from topics.messages import AuditEvent, SettledOk


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.mark.parametrize("suite", Suite)
def test_a_good_request_is_granted_to_both(town: Town, suite: Suite) -> None:
    request = town.request(town.run(suite=suite))
    response = granted(town.give(request))
    grant_a, grant_b = town.grants(request, response)
    assert grant_a.key == grant_b.key
    assert len(grant_a.key) == 32
    assert (grant_a.fork, grant_a.now) == (response.fork, NOW)
    assert (grant_a.not_before, grant_a.not_after) == (NOW - SKEW_S, NOW + LIFE_S)
    assert (grant_b.not_before, grant_b.not_after) == (NOW - SKEW_S, NOW + LIFE_S)


def test_a_key_ends_with_the_kids_it_was_made_under(town: Town) -> None:
    town.change("psk:bob", not_after=NOW + 500)
    request = town.request()
    assert town.grants(request, granted(town.give(request)))[0].not_after == NOW + 500


# OR-01: what decodes is tests/topics/test_codec.py's


def test_or_01_a_suite_that_is_not_allowed() -> None:
    town = Town(KmsSettings(suites=frozenset({Suite.CHACHA20_POLY1305})))
    expect(town.give(town.request()), Check.OR_01, RefusalCode.UNSUPPORTED, sealed=False)
    granted(town.give(town.request(town.run(suite=Suite.CHACHA20_POLY1305))))


# OR-02, OR-03: the key ids


def test_or_02_an_unknown_key_id(town: Town) -> None:
    request = msgspec.structs.replace(town.request(), callee_key="psk:nobody")
    expect(town.give(request), Check.OR_02, RefusalCode.DENIED, sealed=False)
    request = msgspec.structs.replace(town.request(), caller_key="psk:nobody")
    expect(town.give(request), Check.OR_02, RefusalCode.DENIED, sealed=True)


@pytest.mark.parametrize("key_id", ["psk:alice", "psk:bob"])
@pytest.mark.parametrize("life", [{"not_before": NOW + 1}, {"not_after": NOW - 1}], ids=["early", "late"])
def test_or_02_a_key_id_outside_its_lifetime(town: Town, key_id: str, life: dict[str, Any]) -> None:
    town.change(key_id, **life)
    sealed = key_id == "psk:alice"
    expect(town.give(town.request()), Check.OR_02, RefusalCode.EXPIRED_KEY, sealed=sealed)


@pytest.mark.parametrize("key_id", ["psk:alice", "psk:bob"])
def test_or_02_a_revoked_key_id(town: Town, key_id: str) -> None:
    town.change(key_id, revoked=True)
    expect(town.give(town.request()), Check.OR_02, RefusalCode.DENIED, sealed=key_id == "psk:alice")


@pytest.mark.parametrize("key_id", ["psk:alice", "psk:bob"])
def test_or_03_a_key_id_that_may_not_act_as_this_identity(town: Town, key_id: str) -> None:
    town.change(key_id, identities=(EVE,))
    expect(town.give(town.request()), Check.OR_03, RefusalCode.NOT_AUTHORISED, sealed=key_id == "psk:alice")


# OR-04, OR-05: the tokens open, the requester's first


def test_or_04_token_a_of_another_key(town: Town) -> None:
    run = town.run()
    foreign = town.profile.seal_token(
        town.holder(Role.CALLER, "psk:eve"), run, town.body(run), binds=None, random=town.random
    )
    expect(town.give(town.request(run, token_a=foreign)), Check.OR_04, RefusalCode.DENIED, sealed=True)


@pytest.mark.parametrize(
    "clear",
    [{"call": bytes(16)}, {"n": 1}, {"caller": EVE}, {"callee": EVE}, {"suite": Suite.CHACHA20_POLY1305}],
    ids=str,
)
def test_or_04_each_clear_value_is_bound_to_token_a(town: Town, clear: dict[str, Any]) -> None:
    """token_a was sealed for another run than the one that bob asks for."""
    town.change("psk:alice", identities=(ALICE, EVE))
    town.change("psk:bob", identities=(BOB, EVE))
    other = town.run(**clear)
    token_a = town.token_a(other, town.body(town.run()))
    expect(town.give(town.request(token_a=token_a)), Check.OR_04, RefusalCode.DENIED, sealed=True)


def test_or_04_a_token_of_the_callee_is_none_of_the_caller(town: Town) -> None:
    """A9: a part is not taken for another one's, even under the same long-term key."""
    run = town.run()
    as_callee = town.profile.seal_token(
        town.holder(Role.CALLEE, "psk:alice"), run, town.body(run), binds=bytes(200), random=town.random
    )
    expect(town.give(town.request(run, token_a=as_callee)), Check.OR_04, RefusalCode.DENIED, sealed=True)


def test_or_05_the_requesters_token_is_tried_first(town: Town) -> None:
    """Both are junk: nothing is opened under the caller's key for who cannot show his own."""
    request = msgspec.structs.replace(town.request(), token_a=bytes(100), token_b=bytes(100))
    expect(town.give(request), Check.OR_05, RefusalCode.DENIED, sealed=False)


def test_or_05_token_b_binds_this_token_a(town: Town) -> None:
    run = town.run()
    swapped = msgspec.structs.replace(town.request(run), token_a=town.token_a(run))
    expect(town.give(swapped), Check.OR_05, RefusalCode.DENIED, sealed=False)


def test_or_05_token_b_of_another_key(town: Town) -> None:
    request = msgspec.structs.replace(town.request(callee_key="psk:bob2"), callee_key="psk:bob")
    expect(town.give(request), Check.OR_05, RefusalCode.DENIED, sealed=False)


# OR-06, OR-07: step 5 of the contribution


INSIDE = [{"call": bytes(16)}, {"n": 1}, {"caller": EVE}, {"callee": EVE}]


@pytest.mark.parametrize("inside", INSIDE, ids=str)
def test_or_06_what_token_a_says_inside(town: Town, inside: dict[str, Any]) -> None:
    body = town.body(town.run(**inside))
    expect(town.give(town.request(body_a=body)), Check.OR_06, RefusalCode.DENIED, sealed=True)


@pytest.mark.parametrize("inside", INSIDE, ids=str)
def test_or_07_what_token_b_says_inside(town: Town, inside: dict[str, Any]) -> None:
    body = town.body(town.run(**inside))
    expect(town.give(town.request(body_b=body)), Check.OR_07, RefusalCode.DENIED, sealed=True)


@pytest.mark.parametrize(
    ("check", "who"), [(Check.OR_06, "body_a"), (Check.OR_07, "body_b")], ids=["or_06", "or_07"]
)
def test_or_06_or_07_hold_in_the_literal_profile_too(check: Check, who: str) -> None:
    town = Town(profile=Literal())
    body = town.body(town.run(caller=EVE))
    _, audit = refused(town.give(town.request(**{who: body})))  # type: ignore[arg-type]
    assert audit.check is check
    granted(town.give(town.request(town.run(call=bytes(16)))))


# OR-08: two different parties


def test_or_08_nobody_calls_himself(town: Town) -> None:
    town.subscribe("psk:alice2", ALICE)
    request = town.request(town.run(callee=ALICE), callee_key="psk:alice2")
    expect(town.give(request), Check.OR_08, RefusalCode.DENIED, sealed=True)


def test_or_08_one_key_id_for_both(town: Town) -> None:
    town.change("psk:alice", identities=(ALICE, BOB))
    request = town.request(callee_key="psk:alice")
    expect(town.give(request), Check.OR_08, RefusalCode.DENIED, sealed=True)


# OR-09: time


@pytest.mark.parametrize("who", ["body_a", "body_b"])
@pytest.mark.parametrize("off", [-TOKEN_AGE_S - 1, SKEW_S + 1])
def test_or_09_a_token_too_old_or_of_the_future(town: Town, who: str, off: int) -> None:
    body = town.body(town.run(), time=NOW + off)
    expect(town.give(town.request(**{who: body})), Check.OR_09, RefusalCode.STALE, sealed=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("off", [-TOKEN_AGE_S, SKEW_S])
def test_or_09_the_last_moments_that_are_accepted(town: Town, off: int) -> None:
    body_a, body_b = (town.body(town.run(), time=NOW + off) for _ in range(2))
    granted(town.give(town.request(body_a=body_a, body_b=body_b)))


# OR-10: one token for each run and key id


def test_or_10_same_request_gets_the_same_key(town: Town) -> None:
    request = town.request()
    first, second = granted(town.give(request)), granted(town.give(request, NOW + 5))
    assert first.grant_a != second.grant_a, "freshly sealed"
    assert town.grants(request, first)[0].key == town.grants(request, second, NOW + 5)[0].key
    assert town.grants(request, second, NOW + 5)[0].not_after == NOW + LIFE_S, "not a longer life"


def test_or_10_the_audit_of_a_repeat_is_the_same_fact(town: Town) -> None:
    request = town.request()
    assert town.give(request).audit == town.give(request, NOW + 5).audit


def test_or_10_a_second_token_a_for_the_run(town: Town) -> None:
    granted(town.give(town.request()))
    expect(town.give(town.request()), Check.OR_10, RefusalCode.REPLAY, sealed=True)


def test_or_10_a_second_token_a_for_another_device(town: Town) -> None:
    """One run, one token_a, whichever of bob's devices asks."""
    granted(town.give(town.request()))
    other = town.request(callee_key="psk:bob2")
    expect(town.give(other), Check.OR_10, RefusalCode.REPLAY, sealed=True)


def test_or_10_a_second_token_b_of_the_same_key_id(town: Town) -> None:
    request = town.request()
    granted(town.give(request))
    again = town.request(token_a=request.token_a)
    expect(town.give(again), Check.OR_10, RefusalCode.REPLAY, sealed=True)


def test_or_10_another_callers_call_of_the_same_name(town: Town) -> None:
    """C is unique for one caller only."""
    granted(town.give(town.request()))
    granted(town.give(town.request(town.run(caller=EVE), caller_key="psk:eve")))


def test_or_10_no_new_fork_after_settled(town: Town) -> None:
    request = town.request()
    response = granted(town.give(request))
    town.give(town.settled(request, response.fork))
    late = town.request(token_a=request.token_a, callee_key="psk:bob2")
    expect(town.give(late), Check.OR_10, RefusalCode.REPLAY, sealed=True)


def test_or_10_what_was_destroyed_is_not_made_anew(town: Town) -> None:
    request = town.request()
    winner = granted(town.give(request))
    loser = town.request(token_a=request.token_a, callee_key="psk:bob2")
    granted(town.give(loser))
    town.give(town.settled(request, winner.fork))
    expect(town.give(loser), Check.OR_10, RefusalCode.EXPIRED, sealed=True)
    granted(town.give(request))


def test_or_10_an_unsettled_run_ends_ring_s_after_its_grant(town: Town) -> None:
    request = town.request()
    granted(town.give(request))
    granted(town.give(request, NOW + RING_S))
    expect(town.give(request, NOW + RING_S + 1), Check.OR_10, RefusalCode.EXPIRED, sealed=True)


@pytest.mark.parametrize("who", ["body_a", "body_b"])
def test_or_10_a_store_that_is_new_refuses_older_tokens(town: Town, who: str) -> None:
    newer = town.body(town.run(), time=NOW + 1)
    request = town.request(**{who: newer})  # type: ignore[arg-type]
    site = town.records[Site.key().name]
    town.put(Site.key(), msgspec.structs.replace(site, founded=NOW + 1))
    expect(town.give(request), Check.OR_10, RefusalCode.STALE, sealed=True)
    town.put(Site.key(), msgspec.structs.replace(site, founded=NOW))
    granted(town.give(request))


def test_or_10_a_kms_that_was_not_provisioned_grants_nothing(town: Town) -> None:
    del town.records[Site.key().name]
    expect(town.give(town.request()), Check.OR_10, RefusalCode.STALE, sealed=True)


# OR-11: limits


def test_or_11_at_most_16_forks(town: Town) -> None:
    first = town.request()
    granted(town.give(first))
    for number in range(1, FORKS_MAX + 1):
        town.subscribe(f"psk:bob-{number}", BOB)
        request = town.request(token_a=first.token_a, callee_key=f"psk:bob-{number}")
        if number < FORKS_MAX:
            granted(town.give(request))
        else:
            expect(town.give(request), Check.OR_11, RefusalCode.TOO_MANY, sealed=True)


@pytest.mark.parametrize("counted", ["caller", "callee"])
def test_or_11_requests_a_second_of_a_key_id(counted: str) -> None:
    town = Town(KmsSettings(key_requests_per_s=3))
    for number in range(1, 12):
        key_id = "psk:bob" if counted == "caller" else f"psk:alice-{number}"
        if counted == "caller":
            town.subscribe(f"psk:bob-{number}", BOB)
            key_id = f"psk:bob-{number}"
            request = town.request(town.run(call=bytes([number]) * 16), callee_key=key_id)
        else:
            town.subscribe(key_id, EVE)
            request = town.request(town.run(call=bytes([number]) * 16, caller=EVE), caller_key=key_id)
        if number <= 3:
            granted(town.give(request))
        elif number < 11:
            expect(town.give(request), Check.OR_11, RefusalCode.TOO_MANY, sealed=True)
        else:
            granted(town.give(request, NOW + 1))


def test_or_11_what_does_not_open_counts_against_the_sender_on_the_bus() -> None:
    """Junk in bob's name costs bob nothing: it is the host that sent it which has to wait."""
    town = Town(KmsSettings(host_requests_per_s=3, key_requests_per_s=3))
    junk = msgspec.structs.replace(town.request(host="mallory"), token_b=bytes(100))
    for _ in range(3):
        expect(town.give(junk), Check.OR_05, RefusalCode.DENIED, sealed=False)
    expect(town.give(junk), Check.OR_11, RefusalCode.TOO_MANY, sealed=False)
    for host in ("bob", "mallory"):
        granted(town.give(town.request(town.run(call=host.encode().ljust(16)), host=host)))


# OR-12


def test_or_12_the_offer_is_the_one_that_the_caller_made(town: Town) -> None:
    weaker = town.body(town.run(), offer=OFFER + b"x")
    expect(town.give(town.request(body_b=weaker)), Check.OR_12, RefusalCode.DENIED, sealed=True)


# OR-15


def test_or_15_a_run_that_is_no_first_one(town: Town) -> None:
    expect(town.give(town.request(town.run(n=1))), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_another_key_id_of_the_same_device(town: Town) -> None:
    request = town.request()
    granted(town.give(request))
    town.subscribe("psk:bob-new", BOB, impi="bob@ims.example")
    other = town.request(token_a=request.token_a, callee_key="psk:bob-new")
    expect(town.give(other), Check.OR_15, RefusalCode.REPLAY, sealed=True)


# OR-17: SETTLED


def test_or_17_settled_destroys_the_losers_keys(town: Town) -> None:
    request = town.request()
    winner = granted(town.give(request))
    granted(town.give(town.request(token_a=request.token_a, callee_key="psk:bob2")))
    for _ in range(2):  # a repeat is answered again
        decision = town.give(town.settled(request, winner.fork))
        assert [type(send.message) for send in decision.sends] == [SettledOk]
        assert [audit.event for audit in decision.audit] == [AuditEvent.SETTLED]
    agreement = town.agreement()
    assert agreement is not None
    assert [fork.key is not None for fork in agreement.runs[0].forks] == [True, False]


def test_or_17_settled_lengthens_the_life_of_the_winner(town: Town) -> None:
    request = town.request()
    town.give(town.settled(request, granted(town.give(request)).fork))
    granted(town.give(request, NOW + RING_S + 1))


@pytest.mark.parametrize("wrong", ["nonce", "token_a", "fork", "sealed", "kid"])
def test_or_17_each_part_of_settled(town: Town, wrong: str) -> None:
    request = town.request()
    fork = granted(town.give(request)).fork
    settled = town.settled(request, fork)
    if wrong == "sealed":
        settled = msgspec.structs.replace(settled, sealed=bytes(100))
    elif wrong == "kid":
        town.subscribe("psk:alice2", ALICE)
        settled = msgspec.structs.replace(settled, caller_key="psk:alice2")
    else:
        changes: dict[str, Any] = {"nonce": bytes(16), "token_a": bytes(100), "fork": bytes(8)}
        settled = town.settled(request, **{"fork": fork, wrong: changes[wrong]})
    refusal, audit = refused(town.give(settled))
    assert audit.check is Check.OR_17
    assert refusal.sealed is None


def test_or_17_a17_a_loser_cannot_settle(town: Town) -> None:
    """A17: bob's other device knows F and token_a, and not alice's key."""
    request = town.request()
    granted(town.give(request))
    loser = granted(town.give(town.request(token_a=request.token_a, callee_key="psk:bob2")))
    run = town.run()
    own = town.holder(Role.CALLER, "psk:bob2")
    sealed = town.profile.seal_settled(
        own, run, token_a=request.token_a, nonce=bytes(16), fork=loser.fork, random=town.random
    )
    settled = msgspec.structs.replace(town.settled(request, loser.fork), sealed=sealed)
    assert refused(town.give(settled))[1].check is Check.OR_17


def test_or_17_the_first_one_counts(town: Town) -> None:
    request = town.request()
    first = granted(town.give(request))
    second = granted(town.give(town.request(token_a=request.token_a, callee_key="psk:bob2")))
    town.give(town.settled(request, first.fork))
    assert refused(town.give(town.settled(request, second.fork)))[1].check is Check.OR_17


def test_or_17_nothing_to_settle(town: Town) -> None:
    refusal, audit = refused(town.give(town.settled(town.request(), bytes(8))))
    assert (audit.check, refusal.code) == (Check.OR_17, RefusalCode.NOT_FOUND)


def test_or_17_too_late_brings_no_key_back(town: Town) -> None:
    """Whether the alarm has been there or not."""
    for alarm in (False, True):
        town = Town()
        request = town.request()
        fork = granted(town.give(request)).fork
        if alarm:
            town.give(KeysEnd(ALICE, CALL), NOW + RING_S + 1)
        decision = town.give(town.settled(request, fork), NOW + RING_S + 1)
        assert [type(send.message) for send in decision.sends] == [SettledOk], "she need not repeat it"
        assert keys_of(town) == [None]
        expect(town.give(request, NOW + RING_S + 1), Check.OR_10, RefusalCode.EXPIRED, sealed=True)


# The end of keys


def keys_of(town: Town) -> list[Secret | None]:
    agreement = town.agreement()
    assert agreement is not None
    return [fork.key for fork in agreement.runs[0].forks]


def woken(decision: Decision) -> int:
    """When the KMS wants to look at this call's keys again."""
    [wake] = decision.wakes
    assert (wake.alarm, wake.shard_by) == (KeysEnd(ALICE, CALL), f"{ALICE}/{CALL.hex()}")
    assert wake.at is not None
    return wake.at


def test_the_alarm_destroys_what_nobody_has_settled_for_and_then_the_record(town: Town) -> None:
    assert woken(town.give(town.request())) == NOW + RING_S + 1
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + RING_S)) == NOW + RING_S + 1, "it is too early"
    assert None not in keys_of(town)
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + RING_S + 1)) == NOW + SEEN_S + SKEW_S
    assert keys_of(town) == [None]
    town.give(KeysEnd(ALICE, CALL), NOW + SEEN_S + SKEW_S - 1)
    assert keys_of(town) == [None]
    assert town.give(KeysEnd(ALICE, CALL), NOW + SEEN_S + SKEW_S).wakes == ()
    assert town.agreement() is None


def test_the_alarm_destroys_the_winners_key_at_its_end(town: Town) -> None:
    request = town.request()
    fork = granted(town.give(request)).fork
    granted(town.give(town.request(token_a=request.token_a, callee_key="psk:bob2")))
    assert woken(town.give(town.settled(request, fork))) == NOW + LIFE_S + 1
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + LIFE_S)) == NOW + LIFE_S + 1
    assert [key is None for key in keys_of(town)] == [False, True]
    town.give(KeysEnd(ALICE, CALL), NOW + LIFE_S + 1)
    assert town.agreement() is None, "its last grant is long past"


def test_a_key_that_ends_early_is_destroyed_early(town: Town) -> None:
    town.change("psk:bob", not_after=NOW + 20)
    request = town.request()
    decision = town.give(request)
    assert woken(decision) == NOW + 21
    assert woken(town.give(town.settled(request, granted(decision).fork))) == NOW + 21
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + 21)) == NOW + SEEN_S + SKEW_S
    assert keys_of(town) == [None]


def test_a_record_is_remembered_from_its_last_grant(town: Town) -> None:
    request = town.request()
    granted(town.give(request))
    granted(town.give(town.request(token_a=request.token_a, callee_key="psk:bob2"), NOW + 90))
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + 90 + RING_S + 1)) == NOW + 90 + SEEN_S + SKEW_S
    assert keys_of(town) == [None, None]


def test_a_record_is_remembered_as_long_as_the_last_token_of_its_run(town: Town) -> None:
    """A record that went before would let a second K be made."""
    run = town.run()
    request = town.request(run, body_a=town.body(run, time=NOW + SKEW_S))
    granted(town.give(request))
    accepted_until = NOW + SKEW_S + TOKEN_AGE_S
    for now in (NOW + RING_S + 1, accepted_until):
        town.give(KeysEnd(ALICE, CALL), now)
    later = town.request(run, token_a=request.token_a, body_b=town.body(run, time=accepted_until))
    expect(town.give(later, accepted_until), Check.OR_10, RefusalCode.REPLAY, sealed=True)


def test_a_store_sweeps_no_key_before_its_end(town: Town) -> None:
    request = town.request()
    decision = town.give(request)
    settled = town.give(town.settled(request, granted(decision).fork))
    expires = [
        put.expires for each in (decision, settled) for put in each.puts if ":agreement:" in put.key.name
    ]
    assert expires == [NOW + SEEN_S + SKEW_S, NOW + LIFE_S + 1]


# Refusals


def test_a_sealed_refusal_opens_for_the_requester_only(town: Town) -> None:
    run = town.run()
    body_b = town.body(run)
    request = town.request(run, body_a=town.body(town.run(caller=EVE)), body_b=body_b)
    refusal = expect(town.give(request), Check.OR_06, RefusalCode.DENIED, sealed=True)
    assert refusal.sealed is not None
    bob = town.holder(Role.CALLEE, "psk:bob")
    opened = town.profile.open_refusal(bob, run, refusal.sealed, token=request.token_b, nonce=body_b.nonce)
    assert opened is RefusalCode.DENIED
    for holder, nonce, check in (
        (town.holder(Role.CALLEE, "psk:eve"), body_b.nonce, Check.OR_20),
        (bob, bytes(16), Check.OR_21),
    ):
        with pytest.raises(Refused) as broken:
            town.profile.open_refusal(holder, run, refusal.sealed, token=request.token_b, nonce=nonce)
        assert broken.value.check is check


def test_the_same_arguments_give_the_same_decision() -> None:
    assert Town().give(Town().request()) == Town().give(Town().request())
