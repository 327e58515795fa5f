"""The checks of a device that collects a message, each broken alone; and who may refuse it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from agents.alarms import CollectAlarm
from agents.decision import NOTHING
from media.leg import CloseStored
from protocol.checks import Check, RefusalCode
from protocol.deferred import seal_fetch_grant
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest
from protocol.evidence import Holder
from protocol.names import Kind, Role
from protocol.profile import HARDENED
from protocol.secret import Secret
from storage.ue_records import (
    CollectingState,
)
from tests.agents.collector import (
    ABOUT,
    DEVICE,
    KEY_ID,
    PROOF,
    REQUEST,
    RUN,
    SESSION,
    Bob,
    collected_ok,
    delete,
    heard,
    only,
    play,
    refused_by_mailbox,
    report,
    reports,
    secrets_of,
    sent,
    stored,
    waiting,
)
from tests.agents.scene import ANSWER, EVE, NOW, OFFER
from topics.messages import (
    Collected,
    DeleteMessage,
    Fetch,
    FetchResponse,
    PlayMessage,
    Refusal,
    ReportEvent,
    Retrieve,
)

# The checks of grant_f.


def test_or_20_a_grant_under_another_key() -> None:
    bob = Bob()
    fetch = bob.asked()
    wrong = Holder(Role.CALLEE, KEY_ID, Secret(bytes(32)))
    sealed = seal_fetch_grant(wrong, RUN, bob.grant(fetch), token_f=fetch.token_f, random=bob.random)
    stays_unfetched(bob, FetchResponse(grant_f=sealed, to=DEVICE, **ABOUT), Check.OR_20)


def test_or_20_a_grant_for_another_token() -> None:
    """Of an earlier fetch of the same device, with the nonce of this one."""
    bob = Bob()
    fetch = bob.asked()
    sealed = seal_fetch_grant(bob.holder, RUN, bob.grant(fetch), token_f=bytes(60), random=bob.random)
    stays_unfetched(bob, FetchResponse(grant_f=sealed, to=DEVICE, **ABOUT), Check.OR_20)


def test_or_20_a_grant_for_another_role() -> None:
    bob = Bob()
    fetch = bob.asked()
    for role in (Role.CALLER, Role.MAILBOX):
        sealed = HARDENED.seal_refusal(
            Holder(role, KEY_ID, bob.key),
            RUN,
            RefusalCode.DENIED,
            token=fetch.token_f,
            nonce=bytes(16),
            random=bob.random,
        )
        stays_unfetched(bob, FetchResponse(grant_f=sealed, to=DEVICE, **ABOUT), Check.OR_20)


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (Check.OR_21, {"nonce": bytes(16)}),
        (Check.OR_22, {"call": bytes(16)}),
        (Check.OR_22, {"n": 1}),
        (Check.OR_22, {"caller": EVE}),
        (Check.OR_22, {"callee": EVE}),
        (Check.OR_22, {"mailbox": EVE}),
        (Check.OR_23, {"not_after": NOW - 1}),
        (Check.OR_23, {"not_before": NOW + 1}),
        (Check.OR_24, {"kind": Kind.PEER}),
        (Check.OR_24, {"offer_hash": digest(b"another")}),
        (Check.OR_24, {"answer_hash": digest(b"another")}),
    ],
    ids=str,
)
@pytest.mark.parametrize("wish", [play(), delete()], ids=["play", "delete"])
def test_or_21_to_or_24_what_the_grant_says_inside(
    check: Check, changes: dict[str, Any], wish: PlayMessage | DeleteMessage
) -> None:
    bob = Bob()
    stays_unfetched(bob, bob.response(bob.asked(wish), **changes), check)


WEAKER: Final = Description((SrtpSuite.AES_CM_128_HMAC_SHA1_80,), ("PCMU",), Flow.RECVONLY).octets


@pytest.mark.parametrize(
    "lie",
    [
        {"answer": WEAKER},
        {"offer": Description((SrtpSuite.AEAD_AES_256_GCM,), ("PCMU",), Flow.SENDRECV).octets},
        {"mailbox": EVE},
    ],
    ids=str,
)
def test_or_24_a_mailbox_that_tells_another_offer_or_answer(lie: dict[str, Any]) -> None:
    """a16_the_mailboxs_answer: the KMS has sealed what they were."""
    bob = Bob()
    fetch = bob.asked(**lie)
    stays_unfetched(bob, bob.response(fetch), Check.OR_22 if "mailbox" in lie else Check.OR_24)


@pytest.mark.parametrize(
    "answer",
    [
        b"junk",
        Description(("AEAD_AES_256_GCM",), ("PCMU",), Flow.SENDRECV).octets,
        Description(("AEAD_AES_256_GCM",), ("OPUS",), Flow.RECVONLY).octets,
        Description(("NULL_CIPHER",), ("PCMU",), Flow.RECVONLY).octets,
        Description(tuple(SrtpSuite), ("PCMU",), Flow.RECVONLY).octets,
    ],
)
def test_or_24_a_mailbox_that_had_no_answer_to_the_offer_sealed(answer: bytes) -> None:
    """The hashes are right, and it is no answer: nothing is heard under it, yet it can be deleted."""
    bob = Bob()
    fetch = bob.asked(answer=answer)
    stays_unfetched(bob, bob.response(fetch, answer_hash=digest(answer)), Check.OR_24)
    bob = Bob()
    fetch = bob.asked(delete(), answer=answer)
    only(Collected, bob.give(bob.response(fetch, answer_hash=digest(answer))))


def stays_unfetched(bob: Bob, response: FetchResponse, check: Check) -> None:
    """It is refused by this check, and the device waits on as if nothing had come."""
    before = dict(bob.records)
    decision = bob.give(response)
    told = report(decision, ReportEvent.REFUSED)
    assert (told.check, told.request) == (check, REQUEST)
    assert (sent(decision), decision.media, decision.puts, decision.wakes) == ([], (), (), ())
    assert bob.records == before


@pytest.mark.parametrize(
    ("settings", "offer", "answer"),
    [
        ({"codecs": ("PCMA",)}, OFFER, ANSWER),
        ({"srtp_suites": (SrtpSuite.AEAD_AES_256_GCM,)}, OFFER, WEAKER),
        (
            {},
            Description(("AEAD_AES_256_GCM",), ("OPUS",), Flow.SENDRECV).octets,
            Description(("AEAD_AES_256_GCM",), ("OPUS",), Flow.RECVONLY).octets,
        ),
    ],
    ids=str,
)
def test_a_message_that_this_device_cannot_play(
    settings: dict[str, Any], offer: bytes, answer: bytes
) -> None:
    bob = Bob(**settings)
    fetch = bob.asked(offer=offer, answer=answer)
    decision = bob.give(bob.response(fetch, offer_hash=digest(offer), answer_hash=digest(answer)))
    assert report(decision, ReportEvent.FAILED).reason == "nothing-in-common"
    assert (sent(decision), decision.media) == ([], ())
    assert bob.state is CollectingState.DONE
    assert not secrets_of(bob)


# Refusals.


def test_a_refusal_that_the_kms_sealed_ends_it() -> None:
    bob = Bob()
    fetch = bob.asked()
    told = report(bob.give(bob.refusal(fetch, RefusalCode.EXPIRED)), ReportEvent.FAILED)
    assert (told.reason, told.request) == ("expired", REQUEST)
    assert bob.state is CollectingState.DONE
    assert bob.give(bob.response(fetch)) == NOTHING


@pytest.mark.parametrize("code", RefusalCode)
def test_an_unsealed_refusal_is_only_a_hint(code: RefusalCode) -> None:
    """`denied` says that the KMS may not hold this device's key: it is attached again, the fetch goes on."""
    bob = Bob()
    fetch = bob.asked()
    decision = bob.give(Refusal(code=code, sealed=None, to=DEVICE, **ABOUT))
    assert bool(decision.puts) is (code is RefusalCode.DENIED)
    assert reports(decision) == []
    assert bob.state is CollectingState.FETCHING
    only(Retrieve, bob.give(bob.response(fetch)))


@pytest.mark.parametrize("code", [RefusalCode.BUSY, RefusalCode.TOO_MANY])
def test_what_the_kms_does_later_is_asked_again(code: RefusalCode) -> None:
    bob = Bob()
    fetch = bob.asked()
    assert bob.give(bob.refusal(fetch, code)) == NOTHING
    assert only(Fetch, bob.give(CollectAlarm(SESSION), now=NOW + 2)) == fetch


@pytest.mark.parametrize(
    ("check", "changes"), [(Check.OR_20, {"token": bytes(60)}), (Check.OR_21, {"nonce": bytes(16)})], ids=str
)
def test_or_20_or_21_a_refusal_for_another_token(check: Check, changes: dict[str, Any]) -> None:
    bob = Bob()
    fetch = bob.asked()
    decision = bob.give(bob.refusal(fetch, RefusalCode.EXPIRED, **changes))
    assert report(decision, ReportEvent.REFUSED).check is check
    assert bob.state is CollectingState.FETCHING


@pytest.mark.parametrize("code", [RefusalCode.NOT_FOUND, RefusalCode.DENIED])
def test_a_mailbox_that_does_not_hand_it_out(code: RefusalCode) -> None:
    """What has come is played, and the user may ask again."""
    bob = Bob()
    bob.fetched()
    bob.give(stored(0))
    decision = bob.give(refused_by_mailbox(code))
    assert report(decision, ReportEvent.FAILED).reason == code
    assert decision.media == (CloseStored(SESSION),)
    assert not secrets_of(bob)
    assert bob.give(heard(whole=False)) == NOTHING
    only(Fetch, bob.give(play(request=b"s" * 16)))


def test_a_mailbox_that_is_busy_is_asked_again() -> None:
    bob = Bob()
    bob.fetched()
    assert bob.give(refused_by_mailbox(RefusalCode.BUSY)) == NOTHING
    assert only(Retrieve, bob.give(CollectAlarm(SESSION), now=NOW + 2)).part == 0


def test_a_mailbox_that_does_not_delete() -> None:
    """The message was heard: it is not new again, whatever the mailbox does; the user may try once more."""
    bob = Bob()
    bob.retrieved()
    bob.give(heard())
    assert report(bob.give(refused_by_mailbox(RefusalCode.DENIED)), ReportEvent.FAILED).reason == "denied"
    assert not secrets_of(bob)
    assert bob.give(waiting()) == NOTHING
    listed = report(bob.give(waiting(request=REQUEST)), ReportEvent.WAITING)
    assert listed.reason == "collected"
    fetch = only(Fetch, bob.give(delete(request=b"s" * 16)))
    assert only(Collected, bob.give(bob.response(fetch))).proof == PROOF
    bob.give(collected_ok())
    assert bob.give(waiting(request=REQUEST)) == NOTHING
