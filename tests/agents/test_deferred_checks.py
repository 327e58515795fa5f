"""The KMS's numbered checks of DEPOSIT and FETCH, each broken alone; who settles; and how keys end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agents.alarms import KeysEnd
from agents.decision import Decision
from agents.kms import KmsSettings
from protocol import deferred
from protocol.checks import Check, RefusalCode
from protocol.encoding import digest, enc_body
from protocol.limits import KEEP_S_MAX, RING_S, SEEN_S, SKEW_S, TOKEN_AGE_S
from protocol.literal import Literal
from protocol.names import Owner, Permit, Role, Suite
from protocol.sealing import up
from storage.kms_records import AgreedRun, Deposited, Site, Subscriber
from tests.agents.scene import (
    ALICE,
    BOB,
    CALL,
    EVE,
    KEEP_S,
    MAILBOX,
    NOW,
    OFFER,
    Town,
    deposited,
    expect,
    fetched,
    granted,
    refused,
)
from topics.messages import AuditEvent, Deposit, Fetch, SettledOk

DEFERRED = (Permit.DEFERRED,)
INSIDE = [{"call": bytes(16)}, {"n": 1}, {"caller": EVE}, {"callee": EVE}]
DAY_S = 86_400


@pytest.fixture
def town() -> Town:
    return Town()


def run_0(town: Town) -> AgreedRun:
    agreement = town.agreement()
    assert agreement is not None
    [agreed] = agreement.runs
    return agreed


def kept(town: Town) -> Deposited:
    """What the KMS has of the deposit."""
    deposit = run_0(town).deposit
    assert deposit is not None
    return deposit


def leave(town: Town) -> Deposit:
    """A message is left."""
    deposit = town.deposit()
    deposited(town.give(deposit))
    return deposit


# A good one


@pytest.mark.parametrize("suite", Suite)
def test_a_message_is_left_and_heard_under_one_key(town: Town, suite: Suite) -> None:
    deposit = town.deposit(town.run(suite=suite))
    decision = town.give(deposit)
    grant, receipt = town.left(deposit, deposited(decision))
    assert len(grant.key) == 32
    assert (grant.now, grant.not_before, grant.not_after) == (NOW, NOW - SKEW_S, NOW + KEEP_S)
    assert (receipt.not_before, receipt.not_after) == (NOW - SKEW_S, NOW + KEEP_S)
    deferred.verify_proof(receipt.proof_hash, deferred.proof_of(grant.key, town.run(suite=suite)))
    [audit] = decision.audit
    assert (audit.caller_key, audit.key_id, audit.callee_key) == ("psk:alice", "psk:voicemail", None)
    assert (audit.mailbox, audit.not_after, audit.at) == (MAILBOX, NOW + KEEP_S, NOW)

    for other in Suite:  # a device names its own suite
        body = town.body_f(town.run(suite=other), time=NOW + DAY_S)
        fetch = town.fetch(town.run(suite=other), body=body)
        decision = town.give(fetch, NOW + DAY_S)
        heard = town.heard(fetch, body, fetched(decision), NOW + DAY_S)
        assert heard.key == grant.key
        assert (heard.now, heard.not_before, heard.not_after) == (NOW + DAY_S, NOW - SKEW_S, NOW + KEEP_S)
        [audit] = decision.audit
        assert (audit.caller_key, audit.callee_key) == ("psk:alice", "psk:bob")
        assert (audit.mailbox, audit.not_after, audit.at) == (MAILBOX, NOW + KEEP_S, NOW + DAY_S)


@pytest.mark.parametrize(
    ("days", "keep_s", "kept_s"),
    [(7, 60, 60), (7, 30 * DAY_S, 7 * DAY_S), (1, 2 * DAY_S, DAY_S), (90, 2**31, KEEP_S_MAX)],
)
def test_the_shortest_wish_is_how_long_a_message_is_kept(days: int, keep_s: int, kept_s: int) -> None:
    town = Town(KmsSettings(deferred_days_max=days))
    town.change("psk:alice", not_after=NOW + 5)  # the end of no key id shortens it
    town.change("psk:voicemail", not_after=NOW + 5)
    deposit = town.deposit(body_v=town.body_v(town.run(), keep_s=keep_s))
    for sealed in town.left(deposit, deposited(town.give(deposit))):
        assert sealed.not_after == NOW + kept_s


# OR-01


def test_or_01_a_suite_that_is_not_allowed() -> None:
    town = Town(KmsSettings(suites=frozenset({Suite.CHACHA20_POLY1305})))
    expect(town.give(town.deposit()), Check.OR_01, RefusalCode.UNSUPPORTED, sealed=False)
    run = town.run(suite=Suite.CHACHA20_POLY1305)
    deposited(town.give(town.deposit(run)))
    expect(town.give(town.fetch()), Check.OR_01, RefusalCode.UNSUPPORTED, sealed=False)
    fetched(town.give(town.fetch(run)))


# OR-02, OR-03: the key ids


@pytest.mark.parametrize(("field", "sealed"), [("caller_key", True), ("mailbox_key", False)])
def test_or_02_a_deposit_under_an_unknown_key_id(town: Town, field: str, sealed: bool) -> None:  # noqa: FBT001
    deposit = msgspec.structs.replace(town.deposit(), **{field: "psk:nobody"})
    expect(town.give(deposit), Check.OR_02, RefusalCode.DENIED, sealed=sealed)


@pytest.mark.parametrize("key_id", ["psk:alice", "psk:voicemail"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"not_before": NOW + 1}, RefusalCode.EXPIRED_KEY),
        ({"not_after": NOW - 1}, RefusalCode.EXPIRED_KEY),
        ({"revoked": True}, RefusalCode.DENIED),
    ],
    ids=["early", "late", "revoked"],
)
def test_or_02_a_deposit_under_a_key_id_that_does_not_serve(
    town: Town, key_id: str, change: dict[str, Any], code: RefusalCode
) -> None:
    town.change(key_id, **change)
    expect(town.give(town.deposit()), Check.OR_02, code, sealed=key_id == "psk:alice")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"not_before": NOW + 1}, RefusalCode.EXPIRED_KEY),
        ({"not_after": NOW - 1}, RefusalCode.EXPIRED_KEY),
        ({"revoked": True}, RefusalCode.DENIED),
    ],
    ids=["early", "late", "revoked"],
)
def test_or_02_a_fetch_under_a_key_id_that_does_not_serve(
    town: Town, change: dict[str, Any], code: RefusalCode
) -> None:
    leave(town)
    town.change("psk:bob", **change)
    expect(town.give(town.fetch()), Check.OR_02, code, sealed=False)
    unknown = msgspec.structs.replace(town.fetch(), callee_key="psk:nobody")
    expect(town.give(unknown), Check.OR_02, RefusalCode.DENIED, sealed=False)
    fetched(town.give(town.fetch(callee_key="psk:bob2")))


def test_or_02_a_revoked_key_of_the_caller_ends_the_message(town: Town) -> None:
    leave(town)
    town.change("psk:alice", revoked=True)
    expect(town.give(town.fetch()), Check.OR_02, RefusalCode.DENIED, sealed=True)
    town.change("psk:alice", not_after=NOW - 1)
    expect(town.give(town.fetch()), Check.OR_02, RefusalCode.DENIED, sealed=True)


def test_or_02_a_revocation_ends_the_message_also_when_the_key_id_has_a_new_key(town: Town) -> None:
    leave(town)
    town.change("psk:alice", revoked=False, revoked_at=NOW, key=town.key())
    expect(town.give(town.fetch()), Check.OR_02, RefusalCode.DENIED, sealed=True)
    town.change("psk:alice", revoked_at=NOW - 1)
    fetched(town.give(town.fetch()))


def test_or_02_a_message_outlives_the_key_of_the_caller(town: Town) -> None:
    leave(town)
    town.change("psk:alice", not_after=NOW - 1)
    fetched(town.give(town.fetch()))
    del town.records[Subscriber.key_for("psk:alice").name]
    fetched(town.give(town.fetch()))


@pytest.mark.parametrize(
    ("key_id", "change"),
    [
        ("psk:alice", {"identities": (EVE,)}),
        ("psk:alice", {"owner": Owner.MAILBOX}),
        ("psk:voicemail", {"identities": (EVE,)}),
        ("psk:voicemail", {"owner": Owner.UE}),
    ],
    ids=str,
)
def test_or_03_a_deposit_under_a_key_id_that_may_not(town: Town, key_id: str, change: dict[str, Any]) -> None:
    town.change(key_id, **change)
    sealed = key_id == "psk:alice"
    expect(town.give(town.deposit()), Check.OR_03, RefusalCode.NOT_AUTHORISED, sealed=sealed)


def test_or_03_a_subscriber_is_no_mailbox(town: Town) -> None:
    """Eve would have the key of a message to bob be made for her own."""
    deposit = town.deposit(mailbox=EVE, mailbox_key="psk:eve")
    expect(town.give(deposit), Check.OR_03, RefusalCode.NOT_AUTHORISED, sealed=False)


@pytest.mark.parametrize("change", [{"identities": (EVE,)}, {"owner": Owner.MAILBOX}], ids=str)
def test_or_03_a_fetch_under_a_key_id_that_may_not(town: Town, change: dict[str, Any]) -> None:
    leave(town)
    town.change("psk:bob", **change)
    expect(town.give(town.fetch()), Check.OR_03, RefusalCode.NOT_AUTHORISED, sealed=False)


def test_or_03_a_mailbox_fetches_nothing(town: Town) -> None:
    """Not even if it may act as the callee: it would hold K."""
    leave(town)
    town.change("psk:voicemail", identities=(MAILBOX, BOB))
    fetch = town.fetch(callee_key="psk:voicemail")
    expect(town.give(fetch), Check.OR_03, RefusalCode.NOT_AUTHORISED, sealed=False)


@pytest.mark.parametrize("field", ["caller_key", "callee_key"])
def test_or_03_a_mailbox_makes_and_takes_no_call(town: Town, field: str) -> None:
    town.change("psk:voicemail", identities=(ALICE, BOB))
    request = town.request(**{field: "psk:voicemail"})  # type: ignore[arg-type]
    sealed = field == "caller_key"
    expect(town.give(request), Check.OR_03, RefusalCode.NOT_AUTHORISED, sealed=sealed)


# OR-04, OR-05: the tokens open, the requester's first


def test_or_04_token_a_of_another_key(town: Town) -> None:
    run = town.run()
    foreign = town.profile.seal_token(
        town.holder(Role.CALLER, "psk:eve"),
        run,
        town.body(run, permits=DEFERRED),
        binds=None,
        random=town.random,
    )
    expect(town.give(town.deposit(run, token_a=foreign)), Check.OR_04, RefusalCode.DENIED, sealed=True)


def test_or_05_token_v_is_tried_first(town: Town) -> None:
    deposit = msgspec.structs.replace(town.deposit(), token_a=bytes(100), token_v=bytes(100))
    expect(town.give(deposit), Check.OR_05, RefusalCode.DENIED, sealed=False)


@pytest.mark.parametrize("part", ["token_a", "mailbox", "key", "run"])
def test_or_05_what_token_v_binds(town: Town, part: str) -> None:
    town.subscribe("psk:voicemail2", MAILBOX, owner=Owner.MAILBOX)
    town.change("psk:voicemail", identities=(MAILBOX, "sip:other@ims.example"))
    changes: dict[str, dict[str, Any]] = {
        "token_a": {"token_a": town.token_a(town.run(), town.body(town.run(), permits=DEFERRED))},
        "mailbox": {"mailbox": "sip:other@ims.example"},
        "key": {"mailbox_key": "psk:voicemail2"},
        "run": {"call": bytes(16)},
    }
    deposit = msgspec.structs.replace(town.deposit(), **changes[part])
    expect(town.give(deposit), Check.OR_05, RefusalCode.DENIED, sealed=False)


@pytest.mark.parametrize("part", ["key", "run", "token"])
def test_or_05_what_token_f_binds(town: Town, part: str) -> None:
    leave(town)
    changes: dict[str, dict[str, Any]] = {
        "key": {"callee_key": "psk:bob2"},
        "run": {"call": bytes(16)},
        "token": {"token_f": town.request().token_b},  # what asks for a call is no fetch
    }
    fetch = msgspec.structs.replace(town.fetch(), **changes[part])
    expect(town.give(fetch), Check.OR_05, RefusalCode.DENIED, sealed=False)


# OR-06, OR-07: what the tokens say inside


@pytest.mark.parametrize("inside", INSIDE, ids=str)
def test_or_06_what_token_a_says_inside(town: Town, inside: dict[str, Any]) -> None:
    body = town.body(town.run(**inside), permits=DEFERRED)
    expect(town.give(town.deposit(body_a=body)), Check.OR_06, RefusalCode.DENIED, sealed=True)


@pytest.mark.parametrize("inside", [*INSIDE, {"mailbox": EVE}], ids=str)
def test_or_07_what_token_v_says_inside(town: Town, inside: dict[str, Any]) -> None:
    run = town.run()
    token_a = town.token_a(run, town.body(run, permits=DEFERRED))
    mailbox = town.holder(Role.MAILBOX, "psk:voicemail")
    token_v = up(mailbox.key, run.suite, Role.MAILBOX).seal(
        "token-v",
        (*run.clear, MAILBOX, mailbox.key_id, digest(token_a)),
        enc_body(msgspec.structs.replace(town.body_v(run), **inside)),
        town.random,
    )
    deposit = town.deposit(run, token_a=token_a, token_v=token_v)
    expect(town.give(deposit), Check.OR_07, RefusalCode.DENIED, sealed=True)


@pytest.mark.parametrize("inside", INSIDE, ids=str)
def test_or_07_what_token_f_says_inside(town: Town, inside: dict[str, Any]) -> None:
    leave(town)
    fetch = town.fetch(body=town.body_f(town.run(**inside)))
    expect(town.give(fetch), Check.OR_07, RefusalCode.DENIED, sealed=True)


# OR-08: different parties


@pytest.mark.parametrize("same", ["caller and callee", "caller and mailbox", "callee and mailbox"])
def test_or_08_all_identities_of_a_deposit_differ(town: Town, same: str) -> None:
    town.change("psk:voicemail", identities=(MAILBOX, ALICE, BOB))
    deposits: dict[str, Callable[[], Deposit]] = {
        "caller and callee": lambda: town.deposit(town.run(callee=ALICE)),
        "caller and mailbox": lambda: town.deposit(mailbox=ALICE),
        "callee and mailbox": lambda: town.deposit(mailbox=BOB),
    }
    expect(town.give(deposits[same]()), Check.OR_08, RefusalCode.DENIED, sealed=True)


def test_or_08_all_parties_of_a_fetch_differ(town: Town) -> None:
    town.subscribe("psk:alice2", ALICE)
    own = town.fetch(town.run(callee=ALICE), callee_key="psk:alice2")
    expect(town.give(own), Check.OR_08, RefusalCode.DENIED, sealed=True)
    leave(town)
    town.change("psk:alice", identities=(ALICE, BOB))
    fetch = town.fetch(callee_key="psk:alice")
    expect(town.give(fetch), Check.OR_08, RefusalCode.DENIED, sealed=True)


# OR-09: time


@pytest.mark.parametrize("who", ["body_a", "body_v"])
@pytest.mark.parametrize("off", [-TOKEN_AGE_S - 1, SKEW_S + 1])
def test_or_09_a_deposit_too_old_or_of_the_future(town: Town, who: str, off: int) -> None:
    run = town.run()
    bodies: dict[str, Any] = {
        "body_a": town.body(run, permits=DEFERRED, time=NOW + off),
        "body_v": town.body_v(run, time=NOW + off),
    }
    expect(town.give(town.deposit(**{who: bodies[who]})), Check.OR_09, RefusalCode.STALE, sealed=True)


@pytest.mark.parametrize("off", [-TOKEN_AGE_S - 1, SKEW_S + 1])
def test_or_09_a_fetch_too_old_or_of_the_future(town: Town, off: int) -> None:
    leave(town)
    expect(town.give(town.fetch(time=NOW + off)), Check.OR_09, RefusalCode.STALE, sealed=True)


@pytest.mark.parametrize("off", [-TOKEN_AGE_S, SKEW_S])
def test_or_09_the_last_moments_that_are_accepted(town: Town, off: int) -> None:
    run = town.run()
    body_a, body_v = town.body(run, permits=DEFERRED, time=NOW + off), town.body_v(run, time=NOW + off)
    deposited(town.give(town.deposit(body_a=body_a, body_v=body_v)))
    fetched(town.give(town.fetch(time=NOW + off)))


# OR-10: one deposit for a run


def test_or_10_the_same_deposit_gets_the_same_key(town: Town) -> None:
    deposit = town.deposit()
    first, second = town.give(deposit), town.give(deposit, NOW + 5)
    assert first.audit == second.audit, "one fact, however often it is told"
    assert deposited(first).grant_m != deposited(second).grant_m, "freshly sealed"
    grant, receipt = town.left(deposit, deposited(first))
    again, receipt_again = town.left(deposit, deposited(second), NOW + 5)
    assert again == msgspec.structs.replace(grant, now=NOW + 5), "the same key, and not a longer life"
    assert receipt_again == receipt


def test_or_10_one_deposit_for_a_run(town: Town) -> None:
    """Another token_v is refused, of the same mailbox and of another one."""
    deposit = leave(town)
    other = town.deposit(token_a=deposit.token_a)
    expect(town.give(other), Check.OR_10, RefusalCode.REPLAY, sealed=True)
    town.subscribe("psk:voicemail2", "sip:voicemail2@ims.example", owner=Owner.MAILBOX)
    other = town.deposit(
        token_a=deposit.token_a, mailbox="sip:voicemail2@ims.example", mailbox_key="psk:voicemail2"
    )
    expect(town.give(other), Check.OR_10, RefusalCode.REPLAY, sealed=True)


def test_or_10_a_second_token_a_for_the_run(town: Town) -> None:
    leave(town)
    expect(town.give(town.deposit()), Check.OR_10, RefusalCode.REPLAY, sealed=True)
    expect(town.give(town.request()), Check.OR_10, RefusalCode.REPLAY, sealed=True)


@pytest.mark.parametrize("first", ["deposit", "request"])
def test_or_10_a_deposit_and_the_forks_of_a_run_share_its_token_a(town: Town, first: str) -> None:
    """Whichever came first; each has a key of its own."""
    deposit = town.deposit()
    request = town.request(token_a=deposit.token_a)
    for message in (deposit, request) if first == "deposit" else (request, deposit):
        assert [audit.event for audit in town.give(message).audit] != [AuditEvent.REFUSED]
    agreed = run_0(town)
    assert agreed.token_a_hash == digest(deposit.token_a)
    assert agreed.deposit is not None
    [fork] = agreed.forks
    assert fork.key is not None
    assert fork.key != agreed.deposit.key
    run = town.run()
    assert (
        agreed.nonce_a
        == town.profile.open_token(
            town.holder(Role.CALLER, "psk:alice"), run, deposit.token_a, binds=None
        ).nonce
    )


@pytest.mark.parametrize("took", ["device", "mailbox"])
def test_or_10_no_deposit_and_no_fork_after_settled(town: Town, took: str) -> None:
    deposit = town.deposit()
    request = town.request(token_a=deposit.token_a)
    if took == "device":
        town.give(town.settled(request, granted(town.give(request)).fork))
    else:
        deposited(town.give(deposit))
        town.give(town.settled(deposit, None))
    late = deposit if took == "device" else request
    expect(town.give(late), Check.OR_10, RefusalCode.REPLAY, sealed=True)
    again = town.give(request if took == "device" else deposit)
    assert [audit.event for audit in again.audit] != [AuditEvent.REFUSED], "a repeat is answered still"


def test_or_10_a_deposit_that_has_ended_is_not_made_anew(town: Town) -> None:
    run = town.run()
    deposit = town.deposit(run, body_v=town.body_v(run, keep_s=60))
    deposited(town.give(deposit))
    deposited(town.give(deposit, NOW + 60))
    expect(town.give(deposit, NOW + 61), Check.OR_10, RefusalCode.EXPIRED, sealed=True)
    request = town.request(token_a=deposit.token_a)
    town.give(town.settled(request, granted(town.give(request)).fork))
    expect(town.give(deposit), Check.OR_10, RefusalCode.EXPIRED, sealed=True)


@pytest.mark.parametrize("who", ["body_a", "body_v"])
def test_or_10_a_store_that_is_new_refuses_older_tokens(town: Town, who: str) -> None:
    run = town.run()
    bodies = {"body_a": town.body(run, permits=DEFERRED), "body_v": town.body_v(run)}
    bodies[who] = msgspec.structs.replace(bodies[who], time=NOW + 1)
    deposit = town.deposit(**bodies)  # type: ignore[arg-type]
    site = town.records[Site.key().name]
    town.put(Site.key(), msgspec.structs.replace(site, founded=NOW + 1))
    expect(town.give(deposit), Check.OR_10, RefusalCode.STALE, sealed=True)
    town.put(Site.key(), msgspec.structs.replace(site, founded=NOW))
    deposited(town.give(deposit))
    town.put(Site.key(), msgspec.structs.replace(site, founded=NOW + 1))
    expect(town.give(town.fetch()), Check.OR_10, RefusalCode.STALE, sealed=True)
    fetched(town.give(town.fetch(time=NOW + 1)))


def test_or_10_a_kms_that_was_not_provisioned_grants_nothing(town: Town) -> None:
    leave(town)
    del town.records[Site.key().name]
    run = town.run(call=bytes(16))
    for message in (town.deposit(run), town.fetch()):
        expect(town.give(message), Check.OR_10, RefusalCode.STALE, sealed=True)


# OR-11: limits


def test_or_11_deposits_a_second_of_a_mailbox() -> None:
    town = Town(KmsSettings(mailbox_requests_per_s=3))
    deposits = [town.deposit(town.run(call=bytes([number]) * 16)) for number in range(4)]
    for deposit in deposits[:3]:
        deposited(town.give(deposit))
    expect(town.give(deposits[3]), Check.OR_11, RefusalCode.TOO_MANY, sealed=True)
    deposited(town.give(deposits[3], NOW + 1))


def test_or_11_deposits_a_second_of_a_caller() -> None:
    """They count with her calls; a mailbox, which serves many, has a limit of its own."""
    town = Town(KmsSettings(key_requests_per_s=2))
    town.subscribe("psk:alice2", ALICE)
    granted(town.give(town.request(town.run(call=bytes(16)))))
    deposits = [town.deposit(town.run(call=bytes([number]) * 16)) for number in range(1, 3)]
    deposited(town.give(deposits[0]))
    expect(town.give(deposits[1]), Check.OR_11, RefusalCode.TOO_MANY, sealed=True)
    deposited(town.give(town.deposit(town.run(call=bytes([4]) * 16), caller_key="psk:alice2")))


def test_or_11_fetches_a_second_of_a_key_id() -> None:
    town = Town(KmsSettings(key_requests_per_s=2))
    leave(town)
    for _ in range(2):
        fetched(town.give(town.fetch()))
    expect(town.give(town.fetch()), Check.OR_11, RefusalCode.TOO_MANY, sealed=True)
    fetched(town.give(town.fetch(callee_key="psk:bob2")))
    fetched(town.give(town.fetch(), NOW + 1))


@pytest.mark.parametrize("what", ["deposit", "fetch"])
def test_or_11_what_does_not_open_counts_against_the_sender_on_the_bus(what: str) -> None:
    town = Town(KmsSettings(host_requests_per_s=2, key_requests_per_s=2, mailbox_requests_per_s=2))
    leave(town)
    good: dict[str, Callable[[], Deposit | Fetch]] = {
        "deposit": lambda: town.deposit(town.run(call=bytes(16))),
        "fetch": town.fetch,
    }
    token = {"deposit": "token_v", "fetch": "token_f"}[what]
    junk = msgspec.structs.replace(good[what](), **{token: bytes(100)})
    for _ in range(2):
        expect(town.give(junk, NOW + 1), Check.OR_05, RefusalCode.DENIED, sealed=False)
    expect(town.give(junk, NOW + 1), Check.OR_11, RefusalCode.TOO_MANY, sealed=False)
    told = [audit.event for audit in town.give(good[what](), NOW + 1).audit]
    assert told != [AuditEvent.REFUSED], "who is only named in it has nothing to wait for"


# OR-12, OR-13, OR-14


def test_or_12_the_offer_is_the_one_that_the_caller_made(town: Town) -> None:
    weaker = town.body_v(town.run(), offer_hash=digest(OFFER + b"x"))
    expect(town.give(town.deposit(body_v=weaker)), Check.OR_12, RefusalCode.DENIED, sealed=True)


@pytest.mark.parametrize("permits", [(), (Permit.CONFERENCE, Permit.TRANSCODE)])
def test_or_13_the_caller_does_not_permit_it(town: Town, permits: tuple[Permit, ...]) -> None:
    body = town.body(town.run(), permits=permits)
    expect(town.give(town.deposit(body_a=body)), Check.OR_13, RefusalCode.NOT_PERMITTED, sealed=True)


def test_or_13_among_other_things_that_she_permits(town: Town) -> None:
    deposited(town.give(town.deposit(body_a=town.body(town.run(), permits=tuple(Permit)))))


def test_or_14_an_operator_who_wants_no_messages() -> None:
    town = Town(KmsSettings(deferred_days_max=0))
    expect(town.give(town.deposit()), Check.OR_14, RefusalCode.NOT_PERMITTED, sealed=True)


@pytest.mark.parametrize("mailbox", ["sip:voicemail@ims.example.net", "sip:voicemail@example"])
def test_or_14_a_mailbox_of_another_domain(town: Town, mailbox: str) -> None:
    town.subscribe("psk:elsewhere", mailbox, owner=Owner.MAILBOX)
    deposit = town.deposit(mailbox=mailbox, mailbox_key="psk:elsewhere")
    expect(town.give(deposit), Check.OR_14, RefusalCode.NOT_PERMITTED, sealed=True)


def test_or_14_the_ten_steps_have_no_deferred_delivery() -> None:
    town = Town(profile=Literal())
    refusal = expect(town.give(town.deposit()), Check.OR_14, RefusalCode.NOT_PERMITTED, sealed=True)
    assert refusal.sealed is not None
    mailbox = town.holder(Role.MAILBOX, "psk:voicemail")
    opened = town.profile.open_refusal(mailbox, town.run(), refusal.sealed, token=b"", nonce=b"")
    assert opened is RefusalCode.NOT_PERMITTED
    expect(town.give(town.fetch()), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


# OR-15: a fetch is served what a deposit has left


def test_or_15_a_run_that_is_no_first_one(town: Town) -> None:
    expect(town.give(town.deposit(town.run(n=1))), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)
    leave(town)
    expect(town.give(town.fetch(town.run(n=1))), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_a_fetch_of_nothing(town: Town) -> None:
    expect(town.give(town.fetch()), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)
    assert town.agreement() is None, "a fetch draws no key"


def test_or_15_a13_a_fetch_of_a_live_call_is_refused(town: Town) -> None:
    """A13: a losing device asks for the winner's key as if it were a message's."""
    request = town.request()
    winner = granted(town.give(request))
    for fetch in (town.fetch(), town.fetch(callee_key="psk:bob2")):
        expect(town.give(fetch), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)
    town.give(town.settled(request, winner.fork))
    for fetch in (town.fetch(), town.fetch(callee_key="psk:bob2")):
        expect(town.give(fetch), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_a_device_that_was_called_too_hears_the_message_and_no_more(town: Town) -> None:
    deposit = leave(town)
    granted(town.give(town.request(token_a=deposit.token_a)))
    body = town.body_f(town.run())
    fetch = town.fetch(body=body)
    assert town.heard(fetch, body, fetched(town.give(fetch))).key == kept(town).key


def test_or_15_a_message_for_another(town: Town) -> None:
    leave(town)
    fetch = town.fetch(town.run(callee=EVE), callee_key="psk:eve")
    expect(town.give(fetch), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_the_callers_key_id_is_the_one_that_the_message_was_left_under(town: Town) -> None:
    """Else a mailbox could name one that is not revoked."""
    leave(town)
    town.subscribe("psk:alice2", ALICE)
    fetch = town.fetch(caller_key="psk:alice2")
    expect(town.give(fetch), Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_nothing_is_fetched_after_its_end(town: Town) -> None:
    leave(town)
    for key_id in ("psk:alice", "psk:bob"):
        town.change(key_id, not_after=NOW + 2 * KEEP_S)
    end = NOW + KEEP_S
    fetched(town.give(town.fetch(time=end), end))
    late = town.give(town.fetch(time=end + 1), end + 1)
    expect(late, Check.OR_15, RefusalCode.EXPIRED, sealed=True)
    town.give(KeysEnd(ALICE, CALL), end + 1)
    assert town.agreement() is None
    late = town.give(town.fetch(time=end + 1), end + 1)
    expect(late, Check.OR_15, RefusalCode.NOT_FOUND, sealed=True)


def test_or_15_a_message_that_a_device_has_made_needless(town: Town) -> None:
    deposit = leave(town)
    request = town.request(token_a=deposit.token_a)
    town.give(town.settled(request, granted(town.give(request)).fork))
    expect(town.give(town.fetch()), Check.OR_15, RefusalCode.EXPIRED, sealed=True)


def test_any_device_of_the_callee_fetches_as_often_as_it_likes(town: Town) -> None:
    leave(town)
    facts = set()
    for key_id in ("psk:bob", "psk:bob2", "psk:bob", "psk:bob2"):
        body = town.body_f(town.run())
        fetch = town.fetch(body=body, callee_key=key_id)
        first, again = town.give(fetch), town.give(fetch, NOW + 2)
        assert town.heard(fetch, body, fetched(first)).key == kept(town).key
        assert town.heard(fetch, body, fetched(again), NOW + 2).key == kept(town).key
        assert first.audit[0].id == again.audit[0].id
        facts.add(first.audit[0].id)
    assert len(facts) == 4, "each token is one fact"


# OR-16: the loop has the audit acknowledged first


@pytest.mark.parametrize("what", ["deposit", "fetch"])
def test_or_16_the_audit_knows_of_every_grant(town: Town, what: str) -> None:
    decision = town.give(town.deposit())
    if what == "fetch":
        decision = town.give(town.fetch())
    [event] = [audit.event for audit in decision.audit]
    assert event == {"deposit": AuditEvent.DEPOSITED, "fetch": AuditEvent.FETCHED}[what]
    assert len(decision.sends) == 1


# OR-17: SETTLED, and the end of keys


def test_or_17_settled_for_the_mailbox_destroys_the_forks(town: Town) -> None:
    deposit = leave(town)
    for key_id in ("psk:bob", "psk:bob2"):
        granted(town.give(town.request(token_a=deposit.token_a, callee_key=key_id)))
    facts = set()
    for _ in range(2):  # a repeat is answered again
        decision = town.give(town.settled(deposit, None))
        [told] = [send.message for send in decision.sends]
        assert isinstance(told, SettledOk)
        [audit] = decision.audit
        assert (audit.event, audit.fork, audit.mailbox) == (AuditEvent.SETTLED, None, MAILBOX)
        facts.add(audit.id)
    assert len(facts) == 1
    agreed = run_0(town)
    assert [fork.key for fork in agreed.forks] == [None, None]
    assert agreed.settled == b""
    assert kept(town).key is not None
    fetched(town.give(town.fetch()))


def test_or_17_settled_for_a_device_destroys_the_key_of_the_message(town: Town) -> None:
    deposit = leave(town)
    request = town.request(token_a=deposit.token_a)
    decision = town.give(town.settled(request, granted(town.give(request)).fork))
    assert [audit.mailbox for audit in decision.audit] == [None]
    assert kept(town).key is None
    assert [fork.key is not None for fork in run_0(town).forks] == [True]


@pytest.mark.parametrize("first", ["device", "mailbox"])
def test_or_17_the_first_one_counts(town: Town, first: str) -> None:
    deposit = leave(town)
    request = town.request(token_a=deposit.token_a)
    device = town.settled(request, granted(town.give(request)).fork)
    mailbox = town.settled(deposit, None)
    counts, late = (device, mailbox) if first == "device" else (mailbox, device)
    town.give(counts)
    before = town.agreement()
    expect(town.give(late), Check.OR_17, RefusalCode.DENIED, sealed=False)
    assert town.agreement() == before


def test_or_17_nobody_took_a_mailbox_where_there_is_none(town: Town) -> None:
    request = town.request()
    granted(town.give(request))
    expect(town.give(town.settled(request, None)), Check.OR_17, RefusalCode.DENIED, sealed=False)


@pytest.mark.parametrize("wrong", [{"nonce": bytes(16)}, {"token_a": bytes(100)}], ids=["nonce", "token_a"])
def test_or_17_each_part_of_settled_for_the_mailbox(town: Town, wrong: dict[str, Any]) -> None:
    settled = town.settled(leave(town), None, **wrong)
    expect(town.give(settled), Check.OR_17, RefusalCode.DENIED, sealed=False)


def test_a_message_needs_no_settled(town: Town) -> None:
    """RING_S ends a device that nobody settled for, and not a message."""
    deposit = leave(town)
    granted(town.give(town.request(token_a=deposit.token_a)))
    town.give(KeysEnd(ALICE, CALL), NOW + RING_S + 1)
    assert [fork.key for fork in run_0(town).forks] == [None]
    fetched(town.give(town.fetch(time=NOW + RING_S + 1), NOW + RING_S + 1))


def woken(decision: Decision) -> int:
    """When the KMS wants to look at this call's keys again."""
    [wake] = decision.wakes
    assert wake.alarm == KeysEnd(ALICE, CALL)
    assert wake.at is not None
    return wake.at


def test_the_alarm_destroys_a_message_and_then_the_record(town: Town) -> None:
    run = town.run()
    deposit = town.deposit(run, body_v=town.body_v(run, keep_s=60))
    assert woken(town.give(deposit)) == NOW + 61
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + 60)) == NOW + 61, "it is too early"
    assert kept(town).key is not None
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + 61)) == NOW + SEEN_S + SKEW_S
    assert kept(town).key is None
    expect(town.give(deposit, NOW + 61), Check.OR_10, RefusalCode.EXPIRED, sealed=True)
    town.give(KeysEnd(ALICE, CALL), NOW + SEEN_S + SKEW_S - 1)
    assert kept(town).key is None
    last = town.give(KeysEnd(ALICE, CALL), NOW + SEEN_S + SKEW_S)
    assert town.agreement() is None
    assert last.wakes == ()
    expect(town.give(deposit, NOW + SEEN_S + SKEW_S), Check.OR_09, RefusalCode.STALE, sealed=True)
    assert town.give(KeysEnd(ALICE, CALL), NOW + KEEP_S) == Decision(), "what is gone is not missed"


def test_the_alarm_sees_to_each_key_in_turn(town: Town) -> None:
    deposit = leave(town)
    first = town.give(town.request(token_a=deposit.token_a))
    assert woken(first) == NOW + RING_S + 1
    second = town.give(town.request(token_a=deposit.token_a, callee_key="psk:bob2"), NOW + 50)
    assert woken(second) == NOW + RING_S + 1, "the next end, not the last"
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + RING_S + 1)) == NOW + 50 + RING_S + 1
    assert [fork.key is None for fork in run_0(town).forks] == [True, False]
    assert woken(town.give(KeysEnd(ALICE, CALL), NOW + 50 + RING_S + 1)) == NOW + KEEP_S + 1
    assert [fork.key is None for fork in run_0(town).forks] == [True, True]
    assert kept(town).key is not None
    town.give(KeysEnd(ALICE, CALL), NOW + KEEP_S + 1)
    assert town.agreement() is None


def test_a_store_sweeps_nothing_before_the_last_end(town: Town) -> None:
    deposit = town.deposit()
    puts = [put for put in town.give(deposit).puts if ":agreement:" in put.key.name]
    assert [put.expires for put in puts] == [NOW + KEEP_S + 1]
    run = town.run(call=bytes(16))
    short = town.deposit(run, body_v=town.body_v(run, keep_s=1))
    puts = [put for put in town.give(short).puts if ":agreement:" in put.key.name]
    assert [put.expires for put in puts] == [NOW + SEEN_S + SKEW_S]


# Refusals


def test_a_refusal_goes_to_the_mailbox_that_may_open_it(town: Town) -> None:
    run = town.run()
    body_v = town.body_v(run)
    deposit = town.deposit(run, body_a=town.body(run), body_v=body_v)
    decision = town.give(deposit)
    [send] = decision.sends
    assert (send.topic.name, send.key) == ("ims.voicemail", BOB)
    refusal, audit = refused(decision)
    assert refusal.to is None
    assert (audit.key_id, audit.mailbox, audit.caller_key) == ("psk:voicemail", MAILBOX, "psk:alice")
    assert refusal.sealed is not None
    mailbox = town.holder(Role.MAILBOX, "psk:voicemail")
    opened = town.profile.open_refusal(
        mailbox, run, refusal.sealed, token=deposit.token_v, nonce=body_v.nonce
    )
    assert opened is RefusalCode.NOT_PERMITTED


def test_a_refused_fetch_goes_to_the_device_that_may_open_it(town: Town) -> None:
    run = town.run()
    body = town.body_f(run)
    fetch = town.fetch(run, body=body)
    decision = town.give(fetch)
    [send] = decision.sends
    assert (send.topic.name, send.key) == ("ims.ue.bob", "bob@ims.example")
    refusal, audit = refused(decision)
    assert refusal.to == "bob@ims.example"
    assert (audit.caller_key, audit.callee_key) == ("psk:alice", "psk:bob")
    assert refusal.sealed is not None
    device = town.holder(Role.CALLEE, "psk:bob")
    opened = town.profile.open_refusal(device, run, refusal.sealed, token=fetch.token_f, nonce=body.nonce)
    assert opened is RefusalCode.NOT_FOUND
