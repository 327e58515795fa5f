"""The custodian: a key id that an operator has revoked is good for nothing from then on; and how long the KMS
remembers key ids."""

from __future__ import annotations

import msgspec
import pytest

from agents.custodian import Custodian
from agents.decision import Decision
from agents.kms import audit_send
from protocol.checks import Check, RefusalCode
from protocol.limits import KEEP_S_MAX, SEEN_S
from storage.kms_records import Rate, Subscriber
from storage.provisioning import FOREVER
from tests.agents.scene import KEEP_S, NOW, Stage, Town, deposited, expect, fetched, granted
from tests.agents.test_bootstrap_checks import asked_for, handed_over
from topics.catalogue import ORDERS, Party
from topics.codec import decode, encode
from topics.messages import (
    Attach,
    Attached,
    AttachRefusal,
    Audit,
    AuditEvent,
    Contact,
    Revoke,
    RevokeRelease,
    Withdraw,
)

ORDER = b"an order of mine"
REVOKE = Revoke(key_id="psk:bob", order=ORDER)
AT = Contact("bob", "bob@ims.example")


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def custodian(town: Town) -> Stage:
    """The custodian of the town's KMS: both have the same records."""
    stage = Stage(Custodian())
    stage.records = town.records
    return stage


def noted(decision: Decision) -> Audit:
    """The one thing that is told, but to the KMS that it may have keys to withdraw."""
    assert all(isinstance(send.message, Withdraw) for send in decision.sends)
    assert decision.wakes == ()
    [audit] = decision.audit
    return audit


def test_or_02_nothing_is_granted_with_a_revoked_key_id(town: Town, custodian: Stage) -> None:
    granted(town.give(town.request()))
    audit = noted(custodian.give(REVOKE))
    assert (audit.event, audit.key_id, audit.impi) == (AuditEvent.REVOKED, "psk:bob", "bob@ims.example")
    assert (audit.order, audit.not_after, audit.code) == (ORDER, NOW + 100_000, None)
    another = town.run(call=bytes(16))
    expect(town.give(town.request(another)), Check.OR_02, RefusalCode.DENIED, sealed=False)
    as_caller = town.request(
        town.run(caller=another.callee, callee=another.caller), caller_key="psk:bob", callee_key="psk:alice"
    )
    expect(town.give(as_caller), Check.OR_02, RefusalCode.DENIED, sealed=True)
    granted(town.give(town.request(another, callee_key="psk:bob2")))


def test_or_02_a_revoked_key_id_is_not_attached(town: Town, custodian: Stage) -> None:
    attach = Attach(btid="psk:bob", sender=AT)
    [before] = [send.message for send in town.give(attach).sends]
    assert isinstance(before, Attached)
    custodian.give(REVOKE)
    decision = town.give(attach)
    [told] = [send.message for send in decision.sends]
    assert told == AttachRefusal(btid="psk:bob", to=AT.device, code=RefusalCode.DENIED)
    assert [put.key for put in decision.puts] == [Rate.key_for("host bob")], "it is counted, nothing more"


def test_or_02_a_message_of_a_revoked_key_id_is_heard_no_more(town: Town, custodian: Stage) -> None:
    """Also when the key id itself has ended since."""
    deposited(town.give(town.deposit()))
    town.change("psk:alice", not_after=NOW + 10)
    town.change("psk:bob", not_after=NOW + KEEP_S)
    later = NOW + KEEP_S - 1
    fetched(town.give(town.fetch(time=later), later))
    noted(custodian.give(Revoke(key_id="psk:alice", order=ORDER), later))
    expect(town.give(town.fetch(time=later), later), Check.OR_02, RefusalCode.DENIED, sealed=True)


def test_or_02_a_key_id_that_is_over_is_not_attached(town: Town) -> None:
    """It is remembered for what was left under it, and serves nobody."""
    town.change("psk:bob", not_after=NOW)
    [told] = asked_for(town, "psk:bob")
    assert isinstance(told, Attached)
    [told] = asked_for(town, "psk:bob", NOW + 1)
    assert isinstance(told, AttachRefusal)
    assert told.code is RefusalCode.EXPIRED_KEY


def test_or_02_an_unknown_key_id_is_told_to_the_audit(town: Town, custodian: Stage) -> None:
    decision = custodian.give(Revoke(key_id="psk:nobody", order=ORDER))
    audit = noted(decision)
    assert decision.puts == ()
    assert (audit.event, audit.key_id, audit.order) == (AuditEvent.REFUSED, "psk:nobody", ORDER)
    assert (audit.check, audit.code) == (Check.OR_02, RefusalCode.NOT_FOUND)
    assert "psk:nobody" not in str(town.records)


def test_a_repeat_is_told_alike_and_changes_nothing(custodian: Stage) -> None:
    first = custodian.give(REVOKE)
    after = dict(custodian.records)
    second, later = custodian.give(REVOKE), custodian.give(REVOKE, NOW + 5)
    assert noted(second) == noted(first)
    assert noted(later).id == noted(first).id, "one fact, however often it is told"
    assert second.puts == later.puts == ()
    assert custodian.records == after
    unknown = Revoke(key_id="psk:nobody", order=ORDER)
    assert noted(custodian.give(unknown)) == noted(custodian.give(unknown))


def test_each_order_has_its_own_answer(custodian: Stage) -> None:
    for key_id in ("psk:bob", "psk:nobody"):
        orders = [Revoke(key_id=key_id, order=bytes([number]) * 16) for number in range(3)]
        audits = [noted(custodian.give(order)) for order in orders]
        assert [audit.order for audit in audits] == [order.order for order in orders]
        assert len({audit.id for audit in audits}) == len(orders)


@pytest.mark.parametrize(
    ("not_after", "expires"),
    [(NOW + 100, NOW + 100 + KEEP_S_MAX + SEEN_S), (FOREVER, None)],
    ids=["bootstrapped", "psk"],
)
def test_what_is_revoked_is_remembered_as_long_as_a_message_that_was_left_under_it(
    town: Town, custodian: Stage, not_after: int, expires: int | None
) -> None:
    town.change("psk:bob", not_after=not_after)
    before = town.subscriber("psk:bob")
    [put] = [put for put in custodian.give(REVOKE).puts if put.key.kind is Subscriber]
    assert put.key == Subscriber.key_for("psk:bob")
    revoked = msgspec.structs.replace(before, revoked=True, revoked_at=NOW)
    assert put.record == revoked, "and nothing else of it has changed"
    assert put.expires == expires


def test_what_was_attached_is_remembered_as_long_as_a_message_that_was_left_under_it(town: Town) -> None:
    [request] = asked_for(town, "b@bsf")
    puts = handed_over(town, request, not_after=NOW + 100).puts
    assert [put.expires for put in puts if put.key == Subscriber.key_for("b@bsf")] == [
        NOW + 100 + KEEP_S_MAX + SEEN_S
    ]


def test_where_orders_come_in_and_outcomes_go(custodian: Stage) -> None:
    assert ORDERS.writers == {Party.OPERATOR}
    assert ORDERS.readers - {Party.OPERATOR} == {Custodian.party}
    assert Custodian.accepts == {type(decode(encode(REVOKE))), RevokeRelease}
    assert audit_send(noted(custodian.give(REVOKE))).key == "psk:bob"
