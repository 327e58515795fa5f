"""`otway keys list`: what the audit says of key ids, whatever the order and however often it says it."""

from __future__ import annotations

import random

from console.known_keys import KeyBook, KeyState, KnownKey
from protocol.checks import Check, RefusalCode
from storage.provisioning import FOREVER
from topics.messages import Audit, AuditEvent

NOW = 1_800_000_000
ALICE, BOB = "sip:alice@ims.example", "sip:bob@ims.example"


def audit(number: int, event: AuditEvent, **fields: object) -> Audit:
    return Audit(id=number.to_bytes(32, "big"), event=event, at=NOW, **fields)  # type: ignore[arg-type]


def granted(number: int, caller_key: str, callee_key: str) -> Audit:
    about = {"call": bytes(16), "run": 0, "caller": ALICE, "callee": BOB, "not_after": NOW + 3600}
    return audit(number, AuditEvent.GRANTED, caller_key=caller_key, callee_key=callee_key, **about)


AUDITS = [
    audit(1, AuditEvent.ATTACHED, key_id="a@bsf", impi="alice-1", not_after=NOW + 10),
    audit(2, AuditEvent.ATTACHED, key_id="old@bsf", impi="alice-2", not_after=NOW - 1),
    audit(3, AuditEvent.REVOKED, key_id="psk:bob", impi="bob-1", not_after=FOREVER),
    audit(4, AuditEvent.ATTACHED, key_id="b@bsf", impi="bob-2", not_after=NOW - 1),
    audit(5, AuditEvent.REVOKED, key_id="b@bsf", impi="bob-2", not_after=NOW - 1),
    granted(6, "a@bsf", "psk:bob"),
    granted(7, "a@bsf", "psk:carol"),
    audit(8, AuditEvent.REFUSED, key_id="nobody", check=Check.OR_02, code=RefusalCode.NOT_FOUND),
    audit(9, AuditEvent.BOOTSTRAPPED, key_id="new@bsf", impi="alice-1", not_after=NOW + 10),
]


def known(
    key_id: str, impi: str | None, identities: tuple[str, ...], not_after: int | None, grants: int, state: str
) -> KnownKey:
    return KnownKey(
        key_id=key_id,
        impi=impi,
        identities=identities,
        not_after=not_after,
        grants=grants,
        state=KeyState(state),
    )


KNOWN = [
    known("a@bsf", "alice-1", (ALICE,), NOW + 10, 2, "live"),
    known("b@bsf", "bob-2", (), NOW - 1, 0, "revoked"),
    known("old@bsf", "alice-2", (), NOW - 1, 0, "expired"),
    known("psk:bob", "bob-1", (BOB,), FOREVER, 1, "revoked"),
    known("psk:carol", None, (BOB,), None, 1, "live"),
]


def listed(audits: list[Audit]) -> list[KnownKey]:
    book = KeyBook()
    for each in audits:
        book.add(each)
    return list(book.keys(NOW))


def test_the_audit_in_any_order_and_twice() -> None:
    assert listed(AUDITS) == KNOWN
    for seed in range(20):
        audits = [*AUDITS, *AUDITS]
        random.Random(seed).shuffle(audits)
        assert listed(audits) == KNOWN


def test_a_key_serves_to_the_last_second() -> None:
    book = KeyBook()
    book.add(AUDITS[0])
    assert [[key.state for key in book.keys(NOW + later)] for later in (10, 11)] == [["live"], ["expired"]]


def test_nothing_is_known_of_no_audit() -> None:
    assert listed([]) == []
