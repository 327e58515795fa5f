"""What is revoked ends: the KMS destroys its keys and tells both ends, which hang up within seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from agents.alarms import KeysEnd
from agents.custodian import Custodian
from agents.decision import NOTHING, Decision
from agents.granting.hearing import KmsSettings
from agents.granting.uses import put_uses
from media.leg import CloseMedia
from protocol.checks import Check, Refused
from protocol.evidence import Notice as Body
from protocol.limits import SEEN_S, SKEW_S
from protocol.names import NoticeKind, Owner, Role
from protocol.sealing import down_key
from protocol.transcoding import open_notice, seal_notice
from storage.kms_records import AgreedRun, Agreement, Fork, Released, Subscriber, Uses
from storage.ue_records import CallState
from tests.agents.pair import Pair, impi, losing
from tests.agents.scene import ALICE, BOB, CALL, NOW, Stage, Town, deposited, granted
from tests.agents.test_custodian import ORDER
from tests.agents.test_renewal_checks import LATER, in_call, renewal, runs
from tests.agents.test_renewing import RENEWS_AT
from topics.catalogue import CSCF, KMS
from topics.messages import (
    Ack,
    AuditEvent,
    Bye,
    Contact,
    Invite,
    KeyResponse,
    Notice,
    OfRun,
    Ok,
    Revoke,
    RevokeRelease,
    Wire,
    Withdraw,
    WithdrawMember,
    clear,
)

LOOK: dict[str, Any] = {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB}


def custodian_of(town: Town) -> Stage:
    stage = Stage(Custodian())
    stage.records = town.records
    return stage


def revoke(town: Town, key_id: str, now: int = LATER) -> Decision:
    """What the custodian does; the KMS has not heard of it yet."""
    return custodian_of(town).give(Revoke(key_id=key_id, order=ORDER), now)


def notices(decision: Decision) -> dict[Role, Notice]:
    """The notices in it, of which each end has one; on their way to call control."""
    found = [send for send in decision.sends if isinstance(send.message, Notice)]
    assert all(send.topic is CSCF for send in found)
    told = {send.message.whom: send.message for send in found if isinstance(send.message, Notice)}
    assert len(told) == len(found)
    return told


# A call, from the order to its end at both ends.


@pytest.mark.parametrize("key_id", ["psk:alice", "psk:bob"])
def test_revoking_a_key_id_ends_its_calls_within_seconds(key_id: str) -> None:
    pair = Pair().up()
    fork = pair.call("bob").fork
    pair.wait(10)
    pair.send("orders", Revoke(key_id=key_id, order=ORDER))
    assert [event.event for event in pair.audit][-2:] == [AuditEvent.REVOKED, AuditEvent.WITHDRAWN]
    assert (pair.audit[-1].key_id, pair.audit[-1].fork, pair.audit[-1].at) == (key_id, fork, NOW + 10)
    agreement = pair.town.agreement(call=pair.call_id)
    assert agreement is not None
    assert [made.key for run in agreement.runs for made in run.forks] == [None]
    for name in ("alice", "bob"):
        assert pair.call(name).state is CallState.ENDED
        assert pair.call(name).reason in {"revoked", "bye"}
        assert pair.call(name).key is None
        assert CloseMedia(pair.session(name)) in pair.media[name]
    assert "revoked" in {pair.call("alice").reason, pair.call("bob").reason}


@pytest.mark.parametrize("reached", ["alice", "bob"])
def test_one_end_that_is_reached_tells_the_other(reached: str) -> None:
    def network(party: str, message: Wire) -> Iterable[Wire]:
        lost = isinstance(message, Notice) and party.startswith("ue.") and party != f"ue.{reached}"
        return () if lost else (message,)

    pair = Pair().up()
    pair.network = network
    pair.send("orders", Revoke(key_id="psk:bob", order=ORDER))
    assert pair.call(reached).reason == "revoked"
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED


def test_each_end_hangs_up_by_itself() -> None:
    pair = Pair().up()
    pair.network = losing(Bye)
    pair.send("orders", Revoke(key_id="psk:alice", order=ORDER))
    assert pair.call("alice").reason == pair.call("bob").reason == "revoked"


def test_a_call_that_was_renewed_ends_too() -> None:
    pair = Pair().up()
    pair.wait(RENEWS_AT)
    pair.send("orders", Revoke(key_id="psk:bob", order=ORDER))
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED
    agreement = pair.town.agreement(call=pair.call_id)
    assert agreement is not None
    assert {made.key for run in agreement.runs for made in run.forks} == {None}


def test_a_call_that_has_left_a_revoked_key_id_behind_goes_on() -> None:
    pair = Pair().up()
    pair.rekey("bob", "psk:bob-new")
    pair.wait(RENEWS_AT + 5)
    pair.send("orders", Revoke(key_id="psk:bob", order=ORDER))
    assert pair.call("alice").state is pair.call("bob").state is CallState.UP
    pair.wait(1000)
    assert pair.call("alice").state is CallState.UP


def test_without_notices_the_call_is_not_renewed_and_ends_at_not_after() -> None:
    pair = Pair().up()
    pair.network = losing(Notice)
    pair.send("orders", Revoke(key_id="psk:bob", order=ORDER))
    pair.wait(599)
    assert pair.runs() == (0, 0)
    assert pair.call("alice").state is CallState.UP
    pair.wait(1)
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED


def test_a_call_that_came_up_while_its_key_was_destroyed_ends_too() -> None:
    """The notice finds nobody: bob's 200 OK is still on its way. SETTLED says that it was taken."""
    held: list[Wire] = []

    def network(party: str, message: Wire) -> Iterable[Wire]:
        if isinstance(message, Ok) and party == "cscf" and not held:
            held.append(message)
            return ()
        return (message,)

    pair = Pair()
    pair.network = network
    pair.up()
    pair.send("orders", Revoke(key_id="psk:alice", order=ORDER))
    assert pair.call("alice").state is CallState.CALLING
    pair.send("cscf", held[0])
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED


@pytest.mark.parametrize("name", ["alice", "bob"])
@pytest.mark.parametrize("lost", [Invite, KeyResponse, Ok, Ack])
def test_a_renewal_that_is_on_its_way_under_a_revoked_key_id_ends_the_call(
    lost: type[OfRun], name: str
) -> None:
    """Its own K is still good, but the one that takes its place is not; each end alone is told."""
    pair = Pair().up()
    pair.rekey("alice", "psk:alice-new")
    pair.rekey("bob", "psk:bob-new")
    pair.network = losing(lost, later=True, to="ue.")
    pair.wait(RENEWS_AT)
    assert pair.runs() == ((1, 0) if lost is Ack else (0, 0))
    pair.network = lambda party, message: () if _elsewhere(party, message, f"ue.{name}") else (message,)
    pair.send("orders", Revoke(key_id=f"psk:{name}-new", order=ORDER))
    if lost is Invite:
        assert pair.call(name).state is CallState.UP, "nothing was granted"
        return
    assert pair.call(name).reason == "revoked"
    assert pair.call("alice").state is pair.call("bob").state is CallState.ENDED
    assert pair.renewal("alice") is pair.renewal("bob") is None


def _elsewhere(party: str, message: Wire, reached: str) -> bool:
    """A notice for another handset than this one."""
    return isinstance(message, Notice) and party.startswith("ue.") and party != reached


@pytest.mark.parametrize("wrong", ["seal", "fork", "kind"])
def test_or_27_a_notice_for_a_renewal_that_does_not_hold_changes_nothing(wrong: str) -> None:
    pair = Pair().up()
    pair.network = losing(Ok, later=True, to="ue.")
    pair.wait(RENEWS_AT)
    before = {name: pair.call(name) for name in ("alice", "bob")}
    for name, role, identity in (("alice", Role.CALLER, ALICE), ("bob", Role.CALLEE, BOB)):
        renewal = pair.renewal(name)
        assert renewal is not None
        kind = NoticeKind.RENEW if wrong == "kind" else NoticeKind.END
        fork = bytes(8) if wrong == "fork" else pair.call("bob").fork
        body = Body(pair.call_id, 1, fork, ALICE, BOB, None, renewal.nonce, 1, kind)
        down = down_key(renewal.own_key, renewal.run.suite, role)
        sealed = seal_notice(down, renewal.run.suite, identity, body, random=pair.town.random)
        notice = Notice(
            fork=fork,
            transcoder=None,
            kind=kind,
            whom=role,
            sealed=bytes(60) if wrong == "seal" else sealed,
            to=impi(name),
            **clear(renewal.run),
        )
        pair.send(f"ue.{name}", notice)
        assert pair.reports(name)[-1].startswith("1 refused OR-27")
    assert {name: pair.call(name) for name in ("alice", "bob")} == before


def test_a_caller_that_leaves_a_message_is_told() -> None:
    town = Town()
    left = town.deposit()
    deposited(town.give(left))
    [look] = [send.message for send in revoke(town, "psk:alice").sends]
    assert isinstance(look, Withdraw)
    decision = town.give(look, LATER)
    [run] = runs(town)
    assert run.deposit is not None
    assert run.deposit.key is None
    [notice] = notices(decision).values()
    assert (notice.whom, notice.fork, notice.transcoder) == (Role.CALLER, None, None)
    [audit] = decision.audit
    assert (audit.event, audit.mailbox) == (AuditEvent.WITHDRAWN, run.deposit.mailbox)
    opened = open_notice(
        town.holder(Role.CALLER, "psk:alice"),
        town.run(),
        ALICE,
        notice.sealed,
        fork=None,
        transcoder=None,
        nonce=run.nonce_a,
        serial_taken=0,
    )
    assert opened.kind is NoticeKind.END


# At the KMS.


@pytest.fixture
def town() -> Town:
    made = Town()
    in_call(made)
    return made


@pytest.mark.parametrize("key_id", ["psk:alice", "psk:bob", "psk:eve", "psk:nobody"])
def test_a_withdraw_of_a_key_id_that_is_not_revoked_changes_nothing(town: Town, key_id: str) -> None:
    assert town.give(Withdraw(key_id=key_id, **LOOK), LATER) == NOTHING


def test_a_withdraw_without_a_release_or_a_call_changes_nothing(town: Town) -> None:
    assert town.give(Withdraw(key_id=None, **LOOK), LATER) == NOTHING
    revoke(town, "psk:bob")
    elsewhere = {**LOOK, "call": bytes(16)}
    assert town.give(Withdraw(key_id="psk:bob", **elsewhere), LATER) == NOTHING


def test_a_key_id_that_is_not_of_the_call_ends_nothing_of_it(town: Town) -> None:
    revoke(town, "psk:eve")
    assert town.give(Withdraw(key_id="psk:eve", **LOOK), LATER) == NOTHING
    revoke(town, "psk:bob2")
    assert town.give(Withdraw(key_id="psk:bob2", **LOOK), LATER) == NOTHING


def test_what_was_granted_since_the_key_id_has_a_new_key_stays(town: Town) -> None:
    revoke(town, "psk:bob", NOW + 1)
    town.change("psk:bob", revoked=False)
    granted(town.give(renewal(town), LATER))
    town.give(Withdraw(key_id="psk:bob", **LOOK), LATER)
    first, second = runs(town)
    assert first.forks[0].key is None
    assert second.forks[0].key is not None


def test_a_repeat_gets_the_same_notices_which_are_taken_once(town: Town) -> None:
    revoke(town, "psk:bob")
    look = Withdraw(key_id="psk:bob", **LOOK)
    first, second = town.give(look, LATER), town.give(look, LATER + 9)
    assert first.audit == second.audit, "one fact, however often it is told"
    [run] = runs(town)
    assert (run.forks[0].serial_a, run.forks[0].serial_b) == (1, 1)
    notice = notices(second)[Role.CALLEE]
    bob = town.holder(Role.CALLEE, "psk:bob")
    fork = run.forks[0]

    def opened(serial_taken: int) -> Any:
        return open_notice(
            bob,
            town.run(),
            BOB,
            notice.sealed,
            fork=fork.name,
            transcoder=None,
            nonce=fork.nonce_b,
            serial_taken=serial_taken,
        )

    assert opened(0).serial == 1
    with pytest.raises(Refused) as refused:
        opened(1)
    assert refused.value.check is Check.OR_27


def test_a_repeat_finds_an_old_call_too(town: Town) -> None:
    """A KMS that has crashed before its notices were out hears the order again."""
    late = NOW + SEEN_S + SKEW_S + 1000
    revoke(town, "psk:bob", late)
    look = Withdraw(key_id="psk:bob", **LOOK)
    town.give(look, late)
    assert set(notices(town.give(look, late + 9))) == {Role.CALLER, Role.CALLEE}
    over = late + SEEN_S + SKEW_S
    town.give(KeysEnd(ALICE, CALL), over)
    assert town.agreement() is None, "it is not kept for ever"


def test_a_key_that_was_destroyed_is_not_made_anew() -> None:
    town = Town()
    request = town.request()
    granted(town.give(request))
    revoke(town, "psk:alice", NOW)
    town.give(Withdraw(key_id="psk:alice", **LOOK), NOW)
    town.change("psk:alice", revoked=False)
    decision = town.give(request)
    assert [audit.check for audit in decision.audit] == [Check.OR_10]


def test_settled_for_a_destroyed_key_tells_both_ends_again() -> None:
    town = Town()
    request = town.request()
    response = granted(town.give(request))
    settled = town.settled(request, response.fork)
    assert not notices(town.give(settled))
    revoke(town, "psk:bob")
    town.give(Withdraw(key_id="psk:bob", **LOOK), LATER)
    assert set(notices(town.give(settled, LATER))) == {Role.CALLER, Role.CALLEE}


@pytest.mark.parametrize("key_id", ["psk:alice", "psk:bob"])
def test_or_17_only_the_callers_own_settled_has_both_ends_told_again(key_id: str) -> None:
    town = Town()
    request = town.request()
    settled = town.settled(request, granted(town.give(request)).fork)
    revoke(town, key_id)
    town.give(Withdraw(key_id=key_id, **LOOK), LATER)
    for forged in (
        msgspec.structs.replace(settled, sealed=bytes(100)),
        town.settled(request, settled.sealed[:8], token_a=bytes(100)),
        town.settled(request, bytes(8), nonce=bytes(16)),
    ):
        decision = town.give(forged, LATER)
        assert not notices(decision)
        assert [audit.check for audit in decision.audit] == [Check.OR_17]
    assert set(notices(town.give(settled, LATER))) == {Role.CALLER, Role.CALLEE}


def test_or_02_a_caller_whose_key_id_is_revoked_settles_nothing() -> None:
    town = Town()
    request = town.request()
    settled = town.settled(request, granted(town.give(request)).fork)
    revoke(town, "psk:alice")
    assert [audit.check for audit in town.give(settled, LATER).audit] == [Check.OR_02]
    assert [run.settled for run in runs(town)] == [None]


def test_or_11_settled_is_counted_like_any_request() -> None:
    town = Town(KmsSettings(host_requests_per_s=3, key_requests_per_s=3))
    request = town.request()
    settled = town.settled(request, granted(town.give(request)).fork)
    revoke(town, "psk:alice")
    town.give(Withdraw(key_id="psk:alice", **LOOK), LATER)
    junk = msgspec.structs.replace(settled, sealed=bytes(100), sender=Contact("mallory", "m@ims.example"))
    checks = [town.give(junk, LATER).audit[0].check for _ in range(4)]
    assert checks == [Check.OR_17] * 3 + [Check.OR_11]
    for _ in range(3):
        assert notices(town.give(settled, LATER)), "of another host"
    decision = town.give(settled, LATER)
    assert not notices(decision)
    assert [audit.check for audit in decision.audit] == [Check.OR_11]
    assert notices(town.give(settled, LATER + 1))


# At the custodian.


def test_the_custodian_asks_for_every_call_of_the_key_id_and_for_no_other() -> None:
    town = Town()
    calls = [bytes([number]) * 16 for number in range(40)]
    for call in calls:
        granted(town.give(town.request(town.run(call=call))))
    granted(town.give(town.request(town.run(call=CALL), callee_key="psk:bob2")))
    looks = revoke(town, "psk:bob").sends
    assert all(send.topic is KMS for send in looks)
    found = [send.message for send in looks]
    assert {look.call for look in found if isinstance(look, Withdraw)} == set(calls)
    assert len(found) == len(calls)
    assert len(revoke(town, "psk:alice").sends) == len(calls) + 1


def test_what_is_over_is_not_asked_for(town: Town) -> None:
    assert revoke(town, "psk:bob", NOW + 3601).sends == ()


def test_the_custodian_asks_for_conferences_too(town: Town) -> None:
    key = Uses.keys_for("psk:bob")[5]
    group = bytes(16)
    uses = Uses(conferences=(("sip:focus@ims.example", group, LATER),))
    town.put(key, uses)
    found = [send.message for send in revoke(town, "psk:bob", LATER).sends]
    assert WithdrawMember(key_id="psk:bob", focus="sip:focus@ims.example", group=group) in found


def test_a_grant_that_did_not_know_of_the_revocation_meets_a_conflict() -> None:
    """The custodian writes each record of uses that a grant with the key id would write."""
    town = Town()
    written = {put.key.name for put in revoke(town, "psk:bob", NOW).puts}
    town = Town()
    for number in range(20):
        decision = town.give(town.request(town.run(call=bytes([number]) * 16)))
        uses = {put.key.name for put in decision.puts if put.key.kind is Uses and "bob" in put.key.name}
        assert len(uses) == 1
        assert uses <= written


def test_only_so_many_uses_are_remembered_those_that_end_last() -> None:
    key = Uses.keys_for("psk:bob")[0]
    calls = tuple((ALICE, BOB, number.to_bytes(16, "big"), NOW + number) for number in range(5000))
    kept = put_uses(key, Uses(calls=calls), NOW + 4500).record
    assert kept is not None
    assert [use[3] for use in kept.calls] == list(range(NOW + 4500, NOW + 5000))
    kept = put_uses(key, Uses(calls=calls), NOW).record
    assert kept is not None
    assert [use[3] for use in kept.calls] == list(range(NOW + 4000, NOW + 5000))


# Releases.


TRANSCODER = "sip:transcoder@ims.example"


@pytest.fixture
def released(town: Town) -> Town:
    """Leg keys of the call were given to a transcoder."""
    town.subscribe("psk:transcoder", TRANSCODER, owner=Owner.TRANSCODER)
    change_fork(
        town,
        released=Released(transcoder=TRANSCODER, transcoder_key="psk:transcoder", granted=NOW),
        serial_a=3,
    )
    return town


def change_fork(town: Town, **changes: Any) -> None:
    [run] = runs(town)
    fork: Fork = msgspec.structs.replace(run.forks[0], **changes)
    changed: AgreedRun = msgspec.structs.replace(run, forks=(fork,))
    town.put(Agreement.key_for(ALICE, CALL), Agreement(runs=(changed,)))


def test_revoking_a_release_bars_the_transcoder_and_tells_both_sides_to_renew(released: Town) -> None:
    ordered = custodian_of(released).give(RevokeRelease(caller=ALICE, call=CALL, order=ORDER), LATER)
    [audit] = ordered.audit
    assert (audit.event, audit.transcoder, audit.order) == (AuditEvent.RELEASE_REVOKED, TRANSCODER, ORDER)
    agreement = released.agreement()
    assert agreement is not None
    assert agreement.barred == (TRANSCODER,)
    [look] = [send.message for send in ordered.sends]
    assert isinstance(look, Withdraw)
    assert look == Withdraw(key_id=None, **LOOK)
    first, second = released.give(look, LATER), released.give(look, LATER)
    for decision in (first, second):
        told = notices(decision)
        assert {notice.kind for notice in told.values()} == {NoticeKind.RENEW}
        assert {notice.transcoder for notice in told.values()} == {TRANSCODER}
    [run] = runs(released)
    assert (run.forks[0].serial_a, run.forks[0].serial_b) == (4, 1)
    assert run.forks[0].key is not None, "the call goes on"
    granted(released.give(renewal(released), LATER))
    assert released.agreement().barred == (TRANSCODER,)  # type: ignore[union-attr]


def test_revoking_a_transcoders_key_id_ends_its_releases(released: Town) -> None:
    revoke(released, "psk:transcoder")
    look = Withdraw(key_id="psk:transcoder", **LOOK)
    told = notices(released.give(look, LATER))
    assert {notice.kind for notice in told.values()} == {NoticeKind.RENEW}
    [run] = runs(released)
    assert run.forks[0].released is not None
    assert run.forks[0].released.revoked
    assert run.forks[0].key is not None, "the call goes on"
    assert set(notices(released.give(look, LATER))) == {Role.CALLER, Role.CALLEE}
    assert (run.forks[0].serial_a, run.forks[0].serial_b) == (4, 1)


def test_a_release_since_the_key_id_has_a_new_key_stays(released: Town) -> None:
    revoke(released, "psk:transcoder", NOW - 1)
    assert released.give(Withdraw(key_id="psk:transcoder", **LOOK), LATER) == NOTHING


def test_a_withdraw_of_a_release_that_is_not_revoked_changes_nothing(released: Town) -> None:
    assert released.give(Withdraw(key_id=None, **LOOK), LATER) == NOTHING


def test_revoking_a_release_that_there_is_not(town: Town) -> None:
    before = dict(town.records)
    ordered = custodian_of(town).give(RevokeRelease(caller=ALICE, call=CALL, order=ORDER), LATER)
    [audit] = ordered.audit
    assert (audit.event, audit.check, audit.order) == (AuditEvent.REFUSED, Check.OR_15, ORDER)
    assert ordered.sends == ()
    assert town.records == before


def test_a_key_that_was_destroyed_ends_the_call_whatever_was_revoked_besides(released: Town) -> None:
    custodian_of(released).give(RevokeRelease(caller=ALICE, call=CALL, order=ORDER), LATER)
    revoke(released, "psk:bob")
    released.give(Withdraw(key_id="psk:bob", **LOOK), LATER)
    assert released.give(Withdraw(key_id=None, **LOOK), LATER) == NOTHING


def test_a_repeated_order_asks_again(released: Town) -> None:
    order = Revoke(key_id="psk:bob", order=ORDER)
    stage = custodian_of(released)
    first, second = stage.give(order, LATER), stage.give(order, LATER)
    assert first.sends == second.sends != ()
    assert second.puts == ()
    assert isinstance(released.records[Subscriber.key_for("psk:bob").name], Subscriber)
