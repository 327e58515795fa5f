"""`otway keys list`: what the audit says of key ids and of stored keys, in any order and however often."""

from __future__ import annotations

import random

import msgspec
import pytest

from console.operating.known_keys import KeyBook, KeyState, KnownKey, StoredKey
from protocol.checks import Check, RefusalCode
from protocol.names import Owner
from storage.provisioning import FOREVER
from topics.messages import Audit, AuditEvent

NOW = 1_800_000_000
ALICE, BOB, MAILBOX = (f"sip:{name}@ims.example" for name in ("alice", "bob", "voicemail"))
CALL = bytes(16)


def audit(number: int, event: AuditEvent, **fields: object) -> Audit:
    return Audit(id=number.to_bytes(32, "big"), event=event, at=NOW, **fields)  # type: ignore[arg-type]


def granted(number: int, caller_key: str, callee_key: str) -> Audit:
    about = {"call": bytes(16), "run": 0, "caller": ALICE, "callee": BOB, "not_after": NOW + 3600}
    return audit(number, AuditEvent.GRANTED, caller_key=caller_key, callee_key=callee_key, **about)


def of_message(number: int, event: AuditEvent, **fields: object) -> Audit:
    about = {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB, **fields}
    return audit(number, event, **about)


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
    of_message(
        10,
        AuditEvent.DEPOSITED,
        caller_key="a@bsf",
        key_id="psk:voicemail",
        mailbox=MAILBOX,
        not_after=NOW + 99,
    ),
    of_message(
        11,
        AuditEvent.FETCHED,
        caller_key="a@bsf",
        callee_key="psk:dave",
        mailbox=MAILBOX,
        not_after=NOW + 99,
    ),
    audit(12, AuditEvent.REVOKED, key_id="psk:unused", impi="unused-1", not_after=FOREVER),
]


def known(
    key_id: str,
    owner: str | None,
    impi: str | None,
    identities: tuple[str, ...],
    not_after: int | None,
    grants: int,
    state: str,
) -> KnownKey:
    return KnownKey(
        key_id=key_id,
        owner=None if owner is None else Owner(owner),
        impi=impi,
        identities=identities,
        not_after=not_after,
        grants=grants,
        state=KeyState(state),
    )


KNOWN = [
    known("a@bsf", "ue", "alice-1", (ALICE,), NOW + 10, 3, "live"),
    known("b@bsf", "ue", "bob-2", (), NOW - 1, 0, "revoked"),
    known("old@bsf", "ue", "alice-2", (), NOW - 1, 0, "expired"),
    known("psk:bob", "ue", "bob-1", (BOB,), FOREVER, 1, "revoked"),
    known("psk:carol", "ue", None, (BOB,), None, 1, "live"),
    known("psk:dave", "ue", None, (BOB,), None, 1, "live"),
    known("psk:unused", None, "unused-1", (), FOREVER, 0, "revoked"),
    known("psk:voicemail", "mailbox", None, (MAILBOX,), None, 1, "live"),
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


# Keys that are stored for messages

DEPOSITED = next(each for each in AUDITS if each.event is AuditEvent.DEPOSITED)
FETCHED = next(each for each in AUDITS if each.event is AuditEvent.FETCHED)
STORED = StoredKey(
    caller=ALICE,
    callee=BOB,
    call=CALL,
    caller_key="a@bsf",
    mailbox=MAILBOX,
    stored_at=NOW,
    not_after=NOW + 99,
    fetched=0,
    state=KeyState.LIVE,
)


def stored(audits: list[Audit], now: int = NOW) -> list[StoredKey]:
    """The same in any order, and however often it is told."""
    found = []
    for seed in range(5):
        book = KeyBook()
        for each in random.Random(seed).sample([*audits, *audits], 2 * len(audits)):
            book.add(each)
        found.append(list(book.stored(now)))
    assert all(each == found[0] for each in found)
    return found[0]


def test_a_stored_key_and_how_often_it_was_fetched() -> None:
    again = msgspec.structs.replace(FETCHED, id=bytes(32))
    assert stored([DEPOSITED]) == [STORED]
    assert stored([DEPOSITED, FETCHED]) == [msgspec.structs.replace(STORED, fetched=1)]
    assert stored([DEPOSITED, FETCHED, again]) == [msgspec.structs.replace(STORED, fetched=2)]
    assert stored(AUDITS) == [msgspec.structs.replace(STORED, fetched=1)]


@pytest.mark.parametrize(
    ("audits", "now", "state"),
    [
        ([], NOW + 99, "live"),
        ([], NOW + 100, "expired"),
        ([of_message(20, AuditEvent.SETTLED, mailbox=MAILBOX)], NOW, "live"),
        ([of_message(20, AuditEvent.SETTLED, fork=bytes(8))], NOW, "settled-away"),
        ([of_message(20, AuditEvent.SETTLED, fork=bytes(8))], NOW + 100, "settled-away"),
        ([of_message(20, AuditEvent.SETTLED, fork=bytes(8), call=bytes(range(16)))], NOW, "live"),
        ([of_message(20, AuditEvent.SETTLED, fork=bytes(8), caller=BOB)], NOW, "live"),
        ([audit(20, AuditEvent.REVOKED, key_id="a@bsf", not_after=NOW + 10)], NOW, "revoked"),
        ([audit(20, AuditEvent.REVOKED, key_id="psk:bob", not_after=NOW + 10)], NOW, "live"),
    ],
)
def test_whether_a_stored_key_serves(audits: list[Audit], now: int, state: str) -> None:
    [key] = stored([DEPOSITED, FETCHED, *audits], now)
    assert key.state == state


def test_stored_keys_come_the_oldest_first() -> None:
    older = msgspec.structs.replace(DEPOSITED, id=bytes(32), at=NOW - 5, caller=BOB, callee=ALICE)
    fetched = msgspec.structs.replace(FETCHED, caller=BOB, callee=ALICE)
    assert [(key.caller, key.fetched) for key in stored([DEPOSITED, older, fetched])] == [
        (BOB, 1),
        (ALICE, 0),
    ]
