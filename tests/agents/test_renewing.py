"""A call's next key: in time, whatever the network and the clocks do; and what ends a call that gets none."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from agents.handset.ue_call import GIVE_UP_S
from chaos.silent_media import NO_STATISTICS
from media.leg import CloseMedia, MediaClosed, OpenMedia, RenewMedia
from protocol.limits import RENEW_S
from protocol.names import Role
from storage.cscf_records import Route
from storage.ue_records import CallState, Lines
from tests.agents.pair import LIFE_S, Pair, impi, losing, sound
from tests.agents.scene import ALICE, BOB, NOW
from topics.messages import (
    Ack,
    Bye,
    ByeOk,
    Decline,
    Invite,
    KeyRequest,
    KeyResponse,
    OfRun,
    Ok,
    Ringing,
    Settled,
    Wire,
)

RENEWS_AT = LIFE_S - RENEW_S


@pytest.fixture
def pair() -> Pair:
    return Pair().up()


def test_the_next_key_comes_in_time_and_both_ends_go_on_under_it(pair: Pair) -> None:
    first = pair.call("alice").key
    pair.wait(RENEWS_AT - 1)
    assert pair.runs() == (0, 0)
    pair.wait(1)
    assert pair.runs() == (1, 1)
    alice, bob = pair.call("alice"), pair.call("bob")
    assert alice.state is bob.state is CallState.UP
    assert alice.key == bob.key != first
    assert alice.fork == bob.fork
    assert pair.reports("alice")[-1] == "1 renewed"
    assert pair.reports("bob")[-1] == "1 renewed"
    assert pair.renewal("alice") is pair.renewal("bob") is None
    assert alice.ends == NOW + RENEWS_AT + LIFE_S


def test_nothing_rings_no_line_is_taken_and_nothing_is_settled(pair: Pair) -> None:
    pair.wait(RENEWS_AT)
    assert not [message for message in pair.of(Ringing) if message.run]
    assert not [message for message in pair.of(Settled) if message.run]
    assert not [said for said in pair.reports("bob") if said.startswith("1 ") and said != "1 renewed"]
    for name in ("alice", "bob"):
        lines = pair.stages[f"ue.{name}"].records[Lines.key().name]
        assert lines == Lines(sessions=(pair.session(name),))
    agreement = pair.town.agreement(call=pair.call_id)
    assert agreement is not None
    assert [(run.n, run.settled) for run in agreement.runs] == [(n, pair.call("bob").fork) for n in (0, 1)]


def test_media_goes_on_under_the_next_key_the_caller_first(pair: Pair) -> None:
    pair.wait(RENEWS_AT)
    alice, bob = pair.media["alice"][-1], pair.media["bob"][-1]
    assert isinstance(alice, RenewMedia)
    assert isinstance(bob, RenewMedia)
    assert (alice.speak_within_s, alice.overlap_s) == (0, None)
    assert (bob.speak_within_s, bob.overlap_s) == (None, None)
    assert alice.leg.root == bob.leg.root == pair.call("alice").key
    assert (alice.leg.session, bob.leg.session) == (pair.session("alice"), pair.session("bob"))
    assert alice.leg.n == bob.leg.n == 1
    assert alice.leg.lifetime_s == bob.leg.lifetime_s == LIFE_S
    assert [type(each) for each in pair.media["alice"]] == [OpenMedia, RenewMedia]


def test_a_call_can_go_on_and_on(pair: Pair) -> None:
    pair.wait(20 * LIFE_S)
    assert pair.runs()[0] == pair.runs()[1] > 20
    assert pair.call("bob").state is CallState.UP
    agreement = pair.town.agreement(call=pair.call_id)
    assert agreement is not None
    assert len(agreement.runs) < 5, "older runs are forgotten"
    pair.hang_up("bob")
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED


def test_the_route_of_a_call_that_goes_on_is_remembered_as_long(pair: Pair) -> None:
    pair.wait(RENEWS_AT - 1)
    [ack] = pair.of(Ack, "cscf")
    later = msgspec.structs.replace(ack, run=1)
    [put] = pair.give("cscf", later).puts
    assert put.key.kind is Route
    assert put.expires is not None
    assert put.expires > pair.now + 2 * 3600 - 1


def test_a_key_that_ends_sooner_is_renewed_at_half_of_its_life() -> None:
    pair = Pair(life_s=60).up()
    pair.wait(30)
    assert pair.runs() == (1, 1)


@pytest.mark.parametrize("alice", [-60, 0, 60])
@pytest.mark.parametrize("bob", [-60, 0, 60])
def test_clocks_that_differ_by_a_minute_do_not_matter(alice: int, bob: int) -> None:
    pair = Pair(behind={"ue.alice": alice, "ue.bob": bob}).up()
    pair.wait(5 * LIFE_S)
    assert pair.runs()[0] == pair.runs()[1] >= 5
    assert pair.call("alice").state is pair.call("bob").state is CallState.UP
    assert not any("refused" in told for told in (*pair.reports("alice"), *pair.reports("bob")))


@pytest.mark.parametrize("behind", [-60, 0, 60])
@pytest.mark.parametrize("name", ["alice", "bob"])
def test_each_end_stops_by_whichever_clock_ends_first(name: str, behind: int) -> None:
    pair = Pair(behind={f"ue.{name}": behind}).up()
    call = pair.call(name)
    assert call.give_up_at == call.ends
    own = NOW - behind  # when the grant came, on the clock of its own
    assert call.ends == own + min(LIFE_S, NOW + LIFE_S - own)
    assert call.lifetime_s == min(LIFE_S, LIFE_S + behind)


def test_the_callees_patience_counts_from_the_grant_and_not_from_the_ack(pair: Pair) -> None:
    slow = Pair()
    slow.network = losing(Ack)
    slow.up()
    slow.wait(5)
    slow.network = sound
    slow.wait(10)
    assert slow.call("bob").state is CallState.UP
    assert slow.call("bob").give_up_at == pair.call("bob").give_up_at == NOW + LIFE_S


@pytest.mark.parametrize("lost", [Invite, KeyRequest, KeyResponse, Ok, Ack])
def test_what_is_lost_once_is_said_again(pair: Pair, lost: type[OfRun]) -> None:
    dropped: list[Wire] = []

    def network(_: str, message: Wire) -> Iterable[Wire]:
        if isinstance(message, lost) and message.run == 1 and not dropped:
            dropped.append(message)
            return ()
        return (message,)

    pair.network = network
    pair.wait(RENEWS_AT + 5)
    assert dropped
    assert pair.runs() == (1, 1)
    assert pair.call("alice").key == pair.call("bob").key


@pytest.mark.parametrize("seed", range(30))
def test_a_bad_network_makes_no_two_keys_and_ends_no_call(seed: int) -> None:
    chance = random.Random(f"renewal {seed}")

    def network(_: str, message: Wire) -> Iterable[Wire]:
        return (message,) * chance.choices((0, 1, 2), (2, 6, 2))[0]

    pair = Pair().up()
    pair.network, pair.order = network, chance
    pair.wait(RENEWS_AT + RENEW_S - 20)
    pair.network = sound
    pair.wait(19)
    alice, bob = pair.call("alice"), pair.call("bob")
    assert alice.state is bob.state is CallState.UP
    assert alice.run.n >= bob.run.n
    assert alice.run.n > 0
    if alice.run.n == bob.run.n:
        assert alice.key == bob.key
    else:  # all of its ACKs were lost: bob listens under both
        pending = pair.renewal("bob")
        assert pending is not None
        assert (pending.run.n, pending.key) == (alice.run.n, alice.key)
    pair.wait(LIFE_S)
    assert pair.runs()[0] == pair.runs()[1]


def test_an_attempt_that_comes_to_nothing_is_made_again_with_another_number(pair: Pair) -> None:
    pair.network = lambda _, message: () if isinstance(message, Ok) and message.run == 1 else (message,)
    pair.wait(RENEWS_AT + GIVE_UP_S + 1)
    assert pair.runs() == (2, 2)
    invites = [message for message in pair.of(Invite, "cscf") if message.run]
    assert len({(message.run, message.token_a) for message in invites}) == 2, "and with a fresh token"
    pair.wait(LIFE_S)
    assert pair.runs() == (3, 3)


def test_a_decline_is_a_hint_the_call_goes_on_and_it_is_tried_again(pair: Pair) -> None:
    pair.town.change("psk:alice", not_after=NOW + RENEWS_AT - 1)
    pair.wait(RENEWS_AT)
    assert [message.reason for message in pair.of(Decline, "ue.alice")] == ["no-key"]
    assert pair.renewal("alice") is pair.renewal("bob") is None
    pair.town.change("psk:alice", not_after=NOW + 99_999)
    pair.wait(9)
    assert pair.runs() == (0, 0)
    pair.wait(1)
    assert pair.runs() == (2, 2)


def test_key_ids_may_be_new(pair: Pair) -> None:
    pair.rekey("alice", "psk:alice-new")
    pair.rekey("bob", "psk:bob-new")
    pair.town.change("psk:alice", not_after=NOW + 5)
    pair.town.change("psk:bob", not_after=NOW + 5)
    pair.wait(RENEWS_AT)
    assert pair.runs() == (1, 1)
    assert pair.call("alice").own_key_id == "psk:alice-new"
    assert pair.call("bob").own_key_id == "psk:bob-new"


def test_without_a_key_of_its_own_a_caller_waits_for_one(pair: Pair) -> None:
    key = next(name for name in pair.stages["ue.alice"].records if ":handset:" in name)
    handset = pair.stages["ue.alice"].records.pop(key)
    pair.stages["ue.alice"].records[key] = msgspec.structs.replace(handset, key=None)
    pair.wait(RENEWS_AT)
    assert not [message for message in pair.of(Invite) if message.run]
    pair.stages["ue.alice"].records[key] = handset
    pair.wait(10)
    assert pair.runs() == (1, 1)


def test_a_renewal_that_cannot_be_had_ends_the_call_at_not_after(pair: Pair) -> None:
    pair.network = losing(KeyRequest)
    pair.wait(LIFE_S - 1)
    assert pair.call("alice").state is pair.call("bob").state is CallState.UP
    pair.wait(1)
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED
    assert {pair.call("alice").reason, pair.call("bob").reason} <= {"expired", "bye"}
    assert pair.renewal("alice") is pair.renewal("bob") is None


def test_it_ends_in_time_also_where_only_the_media_engine_notices(pair: Pair) -> None:
    pair.give("ue.bob", MediaClosed(pair.session("bob"), NO_STATISTICS, expired=True))
    pair.run()
    assert pair.call("bob").reason == "expired"
    assert pair.call("alice").state is CallState.ENDED


# BYE across a renewal.


@pytest.mark.parametrize("first", ["alice", "bob"])
@pytest.mark.parametrize("lost", [Invite, Ok, Ack])
def test_either_end_may_hang_up_while_a_renewal_is_on_its_way(first: str, lost: type[OfRun]) -> None:
    pair = Pair().up()
    pair.network = losing(lost, later=True, to="ue.")
    pair.wait(RENEWS_AT)
    assert pair.runs() == ((1, 0) if lost is Ack else (0, 0))
    pair.hang_up(first)
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED
    assert pair.call(first).reason == "hung-up"
    assert len(pair.of(Bye, "cscf")) == 1, "the first one counts"
    assert pair.renewal("alice") is pair.renewal("bob") is None
    for name in ("alice", "bob"):
        assert CloseMedia(pair.session(name)) in pair.media[name]
        assert pair.stages[f"ue.{name}"].records[Lines.key().name] == Lines(sessions=(None,))


def test_the_bye_ok_of_an_old_run_that_is_lost_is_said_again() -> None:
    pair = Pair().up()
    pair.network = losing(Ack, later=True, to="ue.")
    pair.wait(RENEWS_AT)
    pair.network = losing(ByeOk)
    pair.hang_up("bob")
    assert pair.call("bob").state is CallState.HANGING_UP
    pair.network = sound
    pair.wait(2)
    assert pair.call("bob").state is CallState.ENDED


def test_both_hang_up_at_once() -> None:
    pair = Pair().up()
    pair.network = losing(Ack, later=True, to="ue.")
    pair.wait(RENEWS_AT)
    pair.network = losing(Bye)
    pair.hang_up("alice")
    pair.hang_up("bob")
    assert pair.call("alice").state is pair.call("bob").state is CallState.HANGING_UP
    pair.network = sound
    pair.wait(2)
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_or_25_a_bye_of_the_run_before_without_its_proof_ends_nothing(name: str) -> None:
    pair = Pair().up()
    pair.wait(RENEWS_AT)
    by = Role.CALLEE if name == "alice" else Role.CALLER
    about: dict[str, Any] = {"call": pair.call_id, "caller": ALICE, "callee": BOB, "to": impi(name)}
    for run in (0, 1, 2):
        pair.send(f"ue.{name}", Bye(fork=pair.call("bob").fork, by=by, proof=bytes(32), run=run, **about))
    assert pair.call(name).state is CallState.UP
    told = [report for report in pair.reports(name) if "refused" in report]
    assert told == ["1 refused OR-25 denied"] * 2, "no BYE of the third run is waited for"


def test_what_is_kept_of_the_run_before_is_no_key(pair: Pair) -> None:
    keys = {pair.call("alice").key}
    for _ in range(3):
        pair.wait(LIFE_S)
        keys.add(pair.call("alice").key)
    for name in ("alice", "bob"):
        call = pair.call(name)
        older = keys - {call.key}
        kept = msgspec.msgpack.encode(call, enc_hook=lambda secret: secret.reveal())
        assert not any(key is not None and key.reveal() in kept for key in older)
        assert len(call.byes) == 1
