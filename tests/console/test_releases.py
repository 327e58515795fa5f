"""`otway releases list`: what the audit says of releases, in any order and however often."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from console.operating.releases import KnownRelease, ReleaseBook, ReleaseState
from topics.messages import Audit, AuditEvent

NOW = 1_800_000_000
ALICE, BOB, ONE, OTHER = (f"sip:{name}@ims.example" for name in ("alice", "bob", "transcoder", "other"))
CALL = bytes(range(16))


def audit(number: int, event: AuditEvent, **fields: Any) -> Audit:
    about: dict[str, Any] = {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB, **fields}
    return Audit(**{"id": number.to_bytes(32, "big"), "event": event, "at": NOW, **about})


def released(number: int, **fields: Any) -> Audit:
    about = {"fork": bytes(8), "transcoder": ONE, "not_after": NOW + 99, **fields}
    return audit(number, AuditEvent.RELEASED, **about)


def known(**fields: Any) -> KnownRelease:
    return KnownRelease(
        **{
            "caller": ALICE,
            "callee": BOB,
            "call": CALL,
            "run": 0,
            "transcoder": ONE,
            "released_at": NOW,
            "not_after": NOW + 99,
            "releases": 1,
            "state": ReleaseState.LIVE,
            **fields,
        }
    )


def listed(audits: list[Audit], now: int = NOW) -> list[KnownRelease]:
    """The same in any order, and however often it is told."""
    found = []
    for seed in range(10):
        book = ReleaseBook()
        for each in random.Random(seed).sample([*audits, *audits], 2 * len(audits)):
            book.add(each)
        found.append(list(book.releases(now)))
    assert all(each == found[0] for each in found)
    return found[0]


def test_who_listens_in_since_when_and_until_when() -> None:
    assert listed([]) == []
    assert listed([released(1)]) == [known()]
    told = listed([released(1)])[0].line()
    for part in (CALL.hex(), "live", "2027-01-15T08:00:00Z until 2027-01-15T08:01:39Z", ALICE, BOB, ONE):
        assert part in told


def test_an_instance_that_took_over_has_asked_again() -> None:
    assert listed([released(1), released(2, at=NOW + 5)]) == [known(releases=2)]


def test_each_run_and_each_transcoder_is_a_release_of_its_own() -> None:
    audits = [released(1), released(2, run=1, at=NOW + 1), released(3, transcoder=OTHER, at=NOW + 2)]
    told = [(each.run, each.transcoder, each.state) for each in listed(audits)]
    assert told == [(0, ONE, "renewed"), (1, ONE, "live"), (0, OTHER, "renewed")]
    revoked = audit(9, AuditEvent.RELEASE_REVOKED, transcoder=ONE)
    assert [each.state for each in listed([*audits, revoked])] == ["revoked", "live", "renewed"]
    elsewhere = [released(1), released(2, run=1, caller=BOB)]
    assert [each.state for each in listed(elsewhere)] == ["live", "live"]


@pytest.mark.parametrize(
    ("later", "now", "state"),
    [
        ([], NOW + 99, "live"),
        ([], NOW + 100, "expired"),
        ([audit(9, AuditEvent.RELEASE_REVOKED, run=None, transcoder=ONE)], NOW, "revoked"),
        ([audit(9, AuditEvent.RELEASE_REVOKED, run=1, transcoder=ONE)], NOW, "live"),
        ([audit(9, AuditEvent.RELEASE_REVOKED, run=None)], NOW, "revoked"),
        ([audit(9, AuditEvent.RELEASE_REVOKED, run=None)], NOW + 100, "revoked"),
        ([audit(9, AuditEvent.RELEASE_REVOKED, run=None, transcoder=OTHER)], NOW, "live"),
        ([audit(9, AuditEvent.RELEASE_REVOKED, run=None, caller=BOB)], NOW, "live"),
        ([audit(9, AuditEvent.RELEASE_REVOKED, run=None, call=bytes(16))], NOW, "live"),
        ([audit(9, AuditEvent.WITHDRAWN)], NOW, "revoked"),
        ([audit(9, AuditEvent.WITHDRAWN, run=1)], NOW, "live"),
        ([audit(9, AuditEvent.SETTLED)], NOW, "live"),
    ],
)
def test_whether_a_transcoder_can_listen_in(later: list[Audit], now: int, state: str) -> None:
    [release] = listed([released(1), *later], now)
    assert release.state == state


def test_a_program_reads_the_same() -> None:
    told = msgspec.json.decode(msgspec.json.encode(known().told()))
    assert (told["call"], told["released_at"], told["state"]) == (CALL.hex(), "2027-01-15T08:00:00Z", "live")
    assert known(not_after=None).told()["not_after"] is None
