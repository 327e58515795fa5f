"""The checks of a later run, at the KMS and at both ends, each broken alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from agents.alarms import KeysEnd
from agents.granting.hearing import KmsSettings
from agents.handset.ue_call import GIVE_UP_S
from protocol.checks import Check, RefusalCode
from protocol.description import Description, Flow, SrtpSuite
from protocol.evidence import Grant, Holder
from protocol.exchange import transcript
from protocol.limits import LIFE_S, SEEN_S, SKEW_S
from protocol.names import Kind, Permit, Role, Run
from protocol.profile import HARDENED
from protocol.secret import Secret
from storage.kms_records import AgreedRun, Uses
from storage.ue_records import CallState
from tests.agents.pair import Pair, impi, losing, sound
from tests.agents.scene import ALICE, CALL, EVE, NOW, Town, expect, granted, refused
from tests.agents.test_renewing import RENEWS_AT
from topics.messages import (
    Ack,
    Contact,
    Decline,
    Invite,
    KeyRequest,
    KeyResponse,
    Ok,
    Wire,
    clear,
    run_of,
)

LATER = NOW + 100


def in_call(town: Town, **changes: Any) -> KeyResponse:
    """A call that has come up and was settled for bob's first device."""
    request = town.request(**changes)
    response = granted(town.give(request))
    town.give(town.settled(request, response.fork))
    return response


def renewal(town: Town, n: int = 1, now: int = LATER, **changes: Any) -> KeyRequest:
    """What bob's device would ask for a later run."""
    run = town.run(n=n, **changes.pop("run", {}))
    bodies = {"body_a": town.body(run, time=now), "body_b": town.body(run, time=now)}
    return town.request(run, **{**bodies, **changes})


def runs(town: Town) -> list[AgreedRun]:
    agreement = town.agreement()
    assert agreement is not None
    return list(agreement.runs)


@pytest.fixture
def town() -> Town:
    made = Town()
    in_call(made)
    return made


# At the KMS.


def test_a_later_run_has_a_key_of_its_own_and_the_same_fork(town: Town) -> None:
    request = renewal(town)
    response = granted(town.give(request, LATER))
    grant_a, grant_b = town.grants(request, response, LATER)
    [first, second] = runs(town)
    assert grant_a.key == grant_b.key == second.forks[0].key != first.forks[0].key
    assert response.fork == first.forks[0].name == second.settled, "settled as it is granted"
    assert (grant_a.n, grant_a.not_after) == (1, LATER + LIFE_S)


def test_an_operator_may_choose_a_shorter_life_and_no_longer_one() -> None:
    for life_s, lives in ((60, 60), (2 * LIFE_S, LIFE_S)):
        town = Town(KmsSettings(life_s=life_s))
        in_call(town)
        assert runs(town)[0].forks[0].not_after == NOW + lives


def test_the_same_request_gets_the_same_key(town: Town) -> None:
    request = renewal(town)
    first, second = (granted(town.give(request, LATER + wait)) for wait in (0, 5))
    assert town.grants(request, first, LATER)[0].key == town.grants(request, second, LATER + 5)[0].key
    granted(town.give(renewal(town, 2, LATER + 5), LATER + 5))
    third = granted(town.give(request, LATER + 6))
    assert town.grants(request, third, LATER + 6)[0].key == town.grants(request, first, LATER)[0].key


def test_or_10_a_kms_that_has_served_a_run_serves_no_other_token_of_it(town: Town) -> None:
    request = renewal(town)
    granted(town.give(request, LATER))
    expect(town.give(renewal(town), LATER), Check.OR_10, RefusalCode.REPLAY, sealed=True)
    same_a = renewal(town, token_a=request.token_a)
    expect(town.give(same_a, LATER), Check.OR_10, RefusalCode.REPLAY, sealed=True)


def test_numbers_may_be_skipped_and_a_skipped_one_is_gone(town: Town) -> None:
    granted(town.give(renewal(town, 7), LATER))
    expect(town.give(renewal(town, 6), LATER), Check.OR_15, RefusalCode.REPLAY, sealed=True)
    granted(town.give(renewal(town, 8), LATER))


def test_or_15_a_run_number_that_begins_no_call() -> None:
    town = Town()
    expect(town.give(renewal(town), LATER), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_no_renewal_before_settled() -> None:
    town = Town()
    request = town.request()
    response = granted(town.give(request))
    asked = renewal(town)
    expect(town.give(asked, LATER), Check.OR_15, RefusalCode.BUSY, sealed=True)
    town.give(town.settled(request, response.fork), LATER)
    granted(town.give(asked, LATER))


def test_or_15_no_renewal_of_a_message() -> None:
    town = Town()
    run = town.run()
    token_a = town.token_a(run, town.body(run, permits=(Permit.DEFERRED,)))
    left = town.deposit(token_a=token_a)
    town.give(left)
    town.give(town.settled(left, None))
    expect(town.give(renewal(town), LATER), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_no_message_is_left_in_a_later_run(town: Town) -> None:
    left = town.deposit(town.run(n=1))
    expect(town.give(left), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_no_renewal_of_a_key_that_is_over(town: Town) -> None:
    end = NOW + LIFE_S
    granted(town.give(renewal(town, 1, end), end))
    other = Town()
    in_call(other)
    expect(other.give(renewal(other, 1, end + 1), end + 1), Check.OR_15, RefusalCode.EXPIRED, sealed=True)


def test_or_15_no_renewal_by_another_device_of_the_caller(town: Town) -> None:
    town.subscribe("psk:alice2", ALICE)
    asked = renewal(town, caller_key="psk:alice2")
    expect(town.give(asked, LATER), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_no_renewal_with_another_callee(town: Town) -> None:
    asked = renewal(town, run={"callee": EVE}, callee_key="psk:eve")
    expect(town.give(asked, LATER), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_no_renewal_with_another_user_of_the_same_device(town: Town) -> None:
    town.subscribe("psk:both", EVE, impi=town.subscriber("psk:bob").impi)
    asked = renewal(town, run={"callee": EVE}, callee_key="psk:both")
    expect(town.give(asked, LATER), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_a14_or_15_another_device_of_the_callee_answers_the_renewal(town: Town) -> None:
    asked = renewal(town, callee_key="psk:bob2")
    expect(town.give(asked, LATER), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)
    granted(town.give(renewal(town, token_a=asked.token_a), LATER))
    expect(town.give(asked, LATER), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_both_key_ids_may_be_new(town: Town) -> None:
    for old in ("psk:alice", "psk:bob"):
        identity = town.subscriber(old).identities[0]
        town.subscribe(f"{old}-new", identity, impi=town.subscriber(old).impi)
        town.change(old, not_after=NOW + 50)
    granted(town.give(renewal(town, caller_key="psk:alice-new", callee_key="psk:bob-new"), LATER))


def test_or_11_renewals_that_come_to_nothing_have_a_limit(town: Town) -> None:
    for n in range(1, 128):
        granted(town.give(renewal(town, n, LATER + n), LATER + n))
    now = LATER + 128
    expect(town.give(renewal(town, 128, now), now), Check.OR_11, RefusalCode.TOO_MANY, sealed=True)


def test_older_runs_are_forgotten_and_the_greatest_is_not() -> None:
    town = Town(KmsSettings(life_s=60))
    in_call(town)
    now = NOW
    for n in range(1, 60):
        now += 30
        granted(town.give(renewal(town, n, now), now))
        kept = [run.n for run in runs(town)]
        assert kept[-1] == n
        assert len(kept) <= (SEEN_S + SKEW_S) // 30 + 1
    assert 0 not in [run.n for run in runs(town)]
    expect(town.give(renewal(town, 0, now), now), Check.OR_15, RefusalCode.REPLAY, sealed=True)
    town.give(KeysEnd(ALICE, CALL), now + 61)
    assert all(run.forks[0].key is None for run in runs(town))
    town.give(KeysEnd(ALICE, CALL), now + SEEN_S + SKEW_S)
    assert town.agreement() is None


def test_a_refused_renewal_changes_nothing(town: Town) -> None:
    before = town.agreement()
    refused(town.give(renewal(town, callee_key="psk:bob2"), LATER))
    assert town.agreement() == before


def test_each_grant_says_what_a_later_notice_needs(town: Town) -> None:
    request = renewal(
        town,
        body_a=town.body(town.run(n=1), time=LATER, permits=(Permit.TRANSCODE,)),
        body_b=town.body(town.run(n=1), time=LATER, permits=(Permit.DEFERRED,)),
    )
    grant_a, grant_b = town.grants(request, granted(town.give(request, LATER)), LATER)
    run = runs(town)[-1]
    [fork] = run.forks
    assert (run.nonce_a, fork.nonce_b) == (grant_a.nonce, grant_b.nonce)
    assert (run.caller_impi, fork.impi) == ("alice@ims.example", "bob@ims.example")
    assert (run.permits_a, fork.permits_b) == ((Permit.TRANSCODE,), (Permit.DEFERRED,))
    for key_id in ("psk:alice", "psk:bob"):
        [uses] = [town.records[key.name] for key in Uses.keys_for(key_id) if key.name in town.records]
        assert isinstance(uses, Uses)
        assert uses.calls == ((ALICE, run.callee, CALL, LATER + LIFE_S),)


# At the ends.


def renewed(pair: Pair, change: Any) -> Pair:
    """A renewal in which one message is changed on its way."""
    pair.network = lambda party, message: (change(party, message),)
    pair.wait(RENEWS_AT)
    return pair


def forged(pair: Pair, ok: Ok, fork: bytes, n: int) -> Ok:
    """What a device with the help of a KMS that lies could answer to a later run: all is right but F."""
    asked = pair.renewal("alice")
    assert asked is not None
    run, key = msgspec.structs.replace(asked.run, n=n), Secret(bytes(range(32)))
    now = pair.now
    alice = Holder(Role.CALLER, asked.own_key_id, asked.own_key)
    grant = Grant(*run.clear, asked.nonce, key, now, now - SKEW_S, now + 600, fork, Kind.PEER)
    grant_a = HARDENED.seal_grant(alice, run, grant, token=asked.token, random=pair.town.random)
    seen = transcript(
        run,
        offer=asked.offer,
        answer=ok.answer,
        fork=fork,
        token_a=asked.token,
        nonce_b=ok.nonce_b,
        grant_a=grant_a,
    )
    confirm_b = HARDENED.confirm(key, Role.CALLEE, seen)
    return msgspec.structs.replace(ok, run=n, fork=fork, grant_a=grant_a, confirm_b=confirm_b)


def test_a14_or_22_another_device_of_the_callee_answers_the_renewal() -> None:
    """Even with a grant that opens, and a confirmation that holds: A takes only the F of the run before."""
    pair = Pair().up()

    def change(party: str, message: Any) -> Any:
        if party == "ue.alice" and isinstance(message, Ok) and message.run:
            return forged(pair, message, b"F of bob", 1)
        return message

    renewed(pair, change)
    assert pair.reports("alice")[-1] == "1 refused OR-22 denied"
    assert pair.runs() == (0, 0)


def test_the_same_forgery_with_the_right_device_would_be_taken() -> None:
    pair = Pair().up()
    fork = pair.call("bob").fork

    def change(party: str, message: Any) -> Any:
        if party == "ue.alice" and isinstance(message, Ok) and message.run:
            return forged(pair, message, fork, 1)
        return message

    renewed(pair, change)
    assert pair.call("alice").run.n == 1


def test_or_22_the_callee_takes_only_its_own_f() -> None:
    """A KMS that lies names another device, in clear and in a grant that opens."""
    pair = Pair().up()

    def change(_: str, message: Any) -> Any:
        if not (isinstance(message, KeyResponse) and message.run):
            return message
        asked, fork = pair.renewal("bob"), b"F of bob"
        assert asked is not None
        bob = Holder(Role.CALLEE, asked.own_key_id, asked.own_key)
        key, now = Secret(bytes(32)), pair.now
        grant = Grant(*asked.run.clear, asked.nonce, key, now, now - SKEW_S, now + 600, fork, Kind.PEER)
        sealed = HARDENED.seal_grant(bob, asked.run, grant, token=asked.token, random=pair.town.random)
        return msgspec.structs.replace(message, fork=fork, grant_b=sealed)

    renewed(pair, change)
    assert pair.reports("bob")[-1] == "1 refused OR-22 denied"
    assert pair.runs() == (0, 0)


@pytest.mark.parametrize(
    ("name", "value", "check"), [("confirm_a", bytes(32), "OR-25"), ("fork", b"F of bob", "OR-22")]
)
def test_or_25_or_22_the_callee_goes_on_only_after_a_valid_ack(name: str, value: bytes, check: str) -> None:
    pair = Pair().up()

    def change(party: str, message: Any) -> Any:
        if party == "ue.bob" and isinstance(message, Ack) and message.run:
            return msgspec.structs.replace(message, **{name: value})
        return message

    renewed(pair, change)
    assert pair.reports("bob")[-1] == f"1 refused {check} denied"
    assert pair.runs() == (1, 0)


def test_a14_a_device_without_the_run_declines_and_asks_nobody() -> None:
    pair = Pair(rings=("bob", "bob2"))
    pair.up()
    assert pair.call("bob2").state is CallState.ENDED
    pair.wait(RENEWS_AT)
    [invite] = {message.run: message for message in pair.of(Invite, "ue.bob") if message.run}.values()
    asked = len(pair.of(KeyRequest))
    pair.send("ue.bob2", msgspec.structs.replace(invite, to=impi("bob2")))
    assert len(pair.of(KeyRequest)) == asked
    fresh = Pair(rings=("bob",)).up()
    fresh.wait(RENEWS_AT)
    [other] = [message for message in fresh.of(Invite, "ue.bob") if message.run]
    stranger = Pair(rings=("bob2",))
    stranger.send("ue.bob2", msgspec.structs.replace(other, to=impi("bob2")))
    assert [message.reason for message in stranger.of(Decline)] == ["no-key"]
    assert not stranger.of(KeyRequest)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_or_29_the_callee_takes_no_run_twice_and_none_before_it(n: int) -> None:
    """A call at n = 3; somebody plays an INVITE of n, with a token of alice's own that is new and good."""
    pair = Pair().up()
    pair.network = lambda _, message: () if isinstance(message, Ok) and message.run in {1, 2} else (message,)
    pair.wait(RENEWS_AT + 80)
    assert pair.runs() == (3, 3)
    asked, before = len(pair.of(KeyRequest)), pair.call("bob")
    [invite, *_] = [message for message in pair.of(Invite, "ue.bob") if message.run == 3]
    run = msgspec.structs.replace(run_of(invite, invite.suite), n=n)
    played = msgspec.structs.replace(invite, run=n, token_a=token(pair, run))
    pair.send("ue.bob", played)
    assert len(pair.of(KeyRequest)) == asked
    assert pair.call("bob") == before
    granted_next = msgspec.structs.replace(
        invite, run=4, token_a=token(pair, msgspec.structs.replace(run, n=4))
    )
    pair.send("ue.bob", granted_next)
    assert len(pair.of(KeyRequest)) == asked + 1, "a later one is asked for"


def test_or_29_a_run_that_was_granted_and_came_to_nothing_is_not_asked_for_again() -> None:
    pair = Pair().up()
    pair.wait(RENEWS_AT - 1)
    asked_for: list[Invite] = []

    def network(party: str, message: Wire) -> Iterable[Wire]:
        if party == "ue.bob" and isinstance(message, Invite):
            asked_for.append(message)
            return (message,) if len(asked_for) == 1 else ()
        return () if isinstance(message, Ok) else (message,)

    pair.network = network
    pair.wait(GIVE_UP_S + 1)
    invite = asked_for[0]
    assert pair.call("bob").highest == 1
    assert pair.renewal("bob") is None
    asked = len(pair.of(KeyRequest))
    pair.network = sound
    fresh = token(pair, run_of(invite, invite.suite))
    pair.send("ue.bob", msgspec.structs.replace(invite, token_a=fresh))
    assert len(pair.of(KeyRequest)) == asked


def token(pair: Pair, run: Run) -> bytes:
    body = pair.town.body(run, time=pair.now)
    return pair.town.token_a(run, body)


def test_or_29_an_answer_to_no_later_run_is_not_taken() -> None:
    """The caller never asks for one; here its record says so, and all else holds."""
    pair = Pair().up()
    pair.network = losing(Ok, later=True, to="ue.")
    pair.wait(RENEWS_AT)
    [ok] = [message for message in pair.of(Ok, "cscf") if message.run]
    stage = pair.stages["ue.alice"]
    call = pair.call("alice")
    key = next(name for name, record in stage.records.items() if record == call)
    stage.records[key] = msgspec.structs.replace(call, run=msgspec.structs.replace(call.run, n=1))
    pair.network = sound
    pair.send("ue.alice", msgspec.structs.replace(ok, to=impi("alice"), sender=None))
    assert pair.reports("alice")[-1] == "1 refused OR-29 denied"


def test_a_kms_that_serves_a_run_twice_makes_no_second_key_at_either_end() -> None:
    """A KMS whose store was put back to before the renewal grants n = 1 again, to a token of alice's that is
    good and new. bob took n = 1 once, and alice waits for no other answer."""
    pair = Pair().up()
    pair.wait(RENEWS_AT - 1)
    restored = dict(pair.town.records)
    pair.wait(1)
    assert pair.runs() == (1, 1)
    key = pair.call("bob").key
    pair.town.records.clear()
    pair.town.records.update(restored)
    run = msgspec.structs.replace(pair.call("alice").run)
    body_b = pair.town.body(run, time=pair.now)
    again = pair.town.request(run, token_a=token(pair, run), body_b=body_b)
    response = granted(pair.town.give(again, pair.now))
    pair.send("ue.bob", msgspec.structs.replace(response, to=impi("bob")))
    [invite] = [message for message in pair.of(Invite, "ue.bob") if message.run]
    pair.send("ue.bob", msgspec.structs.replace(invite, token_a=again.token_a))
    [ok] = [message for message in pair.of(Ok, "ue.alice") if message.run]
    pair.send("ue.alice", msgspec.structs.replace(ok, grant_a=response.grant_a))
    assert pair.call("alice").key == pair.call("bob").key == key


def test_a_flood_of_later_invites_does_not_keep_the_real_one_out() -> None:
    """An INVITE counts once the KMS has granted it: one with a great n that opens nowhere is replaced."""
    pair = Pair().up()
    bob = pair.call("bob")
    assert bob.peer_media is not None
    forged_invite = Invite(
        caller_key="psk:alice",
        suite=bob.run.suite,
        offer=bob.offer,
        token_a=bytes(60),
        media=bob.peer_media,
        to=impi("bob"),
        **{**clear(bob.run), "run": 2**32 - 1},
    )
    pair.network = losing(KeyRequest)
    pair.send("ue.bob", forged_invite)
    assert pair.call("bob").renewing == 2**32 - 1
    pair.network = sound
    pair.wait(RENEWS_AT)
    assert pair.runs() == (1, 1)


def test_an_answer_without_a_codec_of_the_offer_is_no_renewal() -> None:
    pair = Pair().up()
    other = Description((SrtpSuite.AEAD_AES_256_GCM,), ("PCMA",), Flow.SENDRECV).octets

    def change(party: str, message: Any) -> Any:
        if party == "ue.alice" and isinstance(message, Ok) and message.run:
            return msgspec.structs.replace(message, answer=other)
        return message

    renewed(pair, change)
    assert pair.reports("alice")[-1] == "1 refused OR-24 denied"
    assert pair.runs() == (0, 0)


def test_a_caller_on_another_host_under_this_calls_name_is_not_carried() -> None:
    pair = Pair().up()
    invite = msgspec.structs.replace(
        pair.of(Invite, "cscf")[0], run=1, sender=Contact("eve", "eve@ims.example")
    )
    before = len(pair.of(Invite, "ue.bob"))
    pair.send("cscf", invite)
    assert len(pair.of(Invite, "ue.bob")) == before
