"""grant_m, receipt_v and grant_f: what their receivers check, each broken alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from protocol import deferred
from protocol.checks import Check, Refused
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest, enc_body
from protocol.evidence import FetchGrant, Receipt
from protocol.limits import SKEW_S
from protocol.names import Kind, Role, Suite
from protocol.sealing import down
from protocol.secret import Secret
from tests.agents.scene import (
    ANSWER,
    EVE,
    KEEP_S,
    MAILBOX,
    NOW,
    OFFER,
    Town,
    deposited,
    fetched,
    granted,
)

INSIDE = [{"call": bytes(16)}, {"n": 1}, {"caller": EVE}, {"callee": EVE}, {"mailbox": EVE}]
KINDS = ("grant_m", "receipt_v", "grant_f")


class Left:
    """A message of alice that bob fetches: its three grants as their receivers have them."""

    def __init__(self, town: Town) -> None:
        deposit, body_f = town.deposit(), town.body_f(town.run())
        fetch = town.fetch(body=body_f)
        response = deposited(town.give(deposit))
        answered = fetched(town.give(fetch))
        grant, receipt = town.left(deposit, response)
        about = {"run": town.run(), "now": NOW}
        self.random = town.random
        self.bodies = {
            "grant_m": grant,
            "receipt_v": receipt,
            "grant_f": town.heard(fetch, body_f, answered),
        }
        self.given: dict[str, dict[str, Any]] = {
            "grant_m": {
                **about,
                "holder": town.holder(Role.CALLER, "psk:alice"),
                "sealed": response.grant_m,
                "token_a": deposit.token_a,
                "nonce": grant.nonce,
                "mailbox": MAILBOX,
                "answer": ANSWER,
            },
            "receipt_v": {
                **about,
                "holder": town.holder(Role.MAILBOX, "psk:voicemail"),
                "sealed": response.receipt_v,
                "token_v": deposit.token_v,
                "nonce": receipt.nonce,
                "mailbox": MAILBOX,
            },
            "grant_f": {
                **about,
                "holder": town.holder(Role.CALLEE, "psk:bob"),
                "sealed": answered.grant_f,
                "token_f": fetch.token_f,
                "nonce": body_f.nonce,
                "mailbox": MAILBOX,
                "offer": OFFER,
                "answer": ANSWER,
            },
        }

    def open(self, which: str, /, **changes: Any) -> object:
        """As the receiver does; changes: of what it is given. Raises Refused."""
        openers: dict[str, Callable[..., object]] = {
            "grant_m": deferred.open_mailbox_grant,
            "receipt_v": deferred.open_receipt,
            "grant_f": deferred.open_fetch_grant,
        }
        return openers[which](**{**self.given[which], **changes})

    def sealed(self, which: str, /, **changes: Any) -> bytes:
        """As the KMS does, with another body in the same context."""
        given, body = self.given[which], self.bodies[which]
        label, token = {
            "grant_m": ("grant-a", "token_a"),
            "receipt_v": ("receipt-v", "token_v"),
            "grant_f": ("grant-f", "token_f"),
        }[which]
        holder, run = given["holder"], given["run"]
        mailbox = (MAILBOX,) if which == "receipt_v" else ()
        context = (*run.clear, *mailbox, holder.key_id, digest(given[token]))
        octets = enc_body(msgspec.structs.replace(body, **changes))
        return down(holder.key, run.suite, holder.role).seal(label, context, octets, self.random)


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def left(town: Town) -> Left:
    return Left(town)


def broken(check: Check, opening: Callable[[], object]) -> None:
    """This check refuses it."""
    with pytest.raises(Refused) as refusal:
        opening()
    assert refusal.value.check is check


@pytest.mark.parametrize("kind", KINDS)
def test_each_grant_opens_for_its_receiver(left: Left, kind: str) -> None:
    assert left.open(kind) == left.bodies[kind]
    assert left.open(kind, sealed=left.sealed(kind)) == left.bodies[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["key", "key id", "run", "suite", "token", "seal"])
def test_or_20_what_a_grant_binds(left: Left, kind: str, part: str) -> None:
    given = left.given[kind]
    token = next(name for name in given if name.startswith("token"))
    changes: dict[str, dict[str, Any]] = {
        "key": {"holder": replace(given["holder"], key=Secret(bytes(32)))},
        "key id": {"holder": replace(given["holder"], key_id="psk:other")},
        "run": {"run": msgspec.structs.replace(given["run"], call=bytes(16))},
        "suite": {"run": msgspec.structs.replace(given["run"], suite=Suite.CHACHA20_POLY1305)},
        "token": {token: bytes(100)},
        "seal": {"sealed": given["sealed"][:-1] + bytes([given["sealed"][-1] ^ 1])},
    }
    broken(Check.OR_20, lambda: left.open(kind, **changes[part]))


@pytest.mark.parametrize("kind", KINDS)
def test_or_20_a_grant_is_none_of_another_kind(left: Left, kind: str) -> None:
    for other in KINDS:
        if other != kind:
            broken(Check.OR_20, lambda: left.open(kind, sealed=left.given[other]["sealed"]))  # noqa: B023


def test_or_20_a_receipt_is_for_one_mailbox(left: Left) -> None:
    broken(Check.OR_20, lambda: left.open("receipt_v", mailbox="sip:other@ims.example"))


@pytest.mark.parametrize("kind", KINDS)
def test_or_21_its_own_nonce_is_inside(left: Left, kind: str) -> None:
    broken(Check.OR_21, lambda: left.open(kind, sealed=left.sealed(kind, nonce=bytes(16))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inside", INSIDE, ids=str)
def test_or_22_what_a_grant_says_inside(left: Left, kind: str, inside: dict[str, Any]) -> None:
    broken(Check.OR_22, lambda: left.open(kind, sealed=left.sealed(kind, **inside)))


@pytest.mark.parametrize("kind", KINDS)
def test_or_23_the_time_of_a_grant(left: Left, kind: str) -> None:
    for now in (NOW - SKEW_S, NOW + KEEP_S):
        left.open(kind, now=now)
    for now in (NOW - SKEW_S - 1, NOW + KEEP_S + 1):
        broken(Check.OR_23, lambda: left.open(kind, now=now))  # noqa: B023


@pytest.mark.parametrize("kind", ["grant_m", "grant_f"])
def test_or_24_a_grant_of_a_call_is_none_of_a_message(left: Left, kind: str) -> None:
    broken(Check.OR_24, lambda: left.open(kind, sealed=left.sealed(kind, kind=Kind.PEER)))


@pytest.mark.parametrize(
    ("kind", "what"), [("grant_m", "answer"), ("grant_f", "answer"), ("grant_f", "offer")]
)
def test_or_24_the_answer_and_the_offer_are_those_of_the_message(left: Left, kind: str, what: str) -> None:
    """A16: a mailbox's answer changed to a weaker suite."""
    weaker = Description((SrtpSuite.AES_CM_128_HMAC_SHA1_80,), ("PCMU",), Flow.RECVONLY).octets
    broken(Check.OR_24, lambda: left.open(kind, **{what: weaker}))


def test_or_24_a_message_is_no_call(town: Town, left: Left) -> None:
    """grant_m in the 200 OK of a device: alice would call bob, and a mailbox would answer."""
    given = left.given["grant_m"]
    broken(
        Check.OR_24,
        lambda: town.profile.open_grant(
            given["holder"],
            given["run"],
            given["sealed"],
            token=given["token_a"],
            nonce=given["nonce"],
            fork=bytes(8),
            now=NOW,
        ),
    )


def test_or_24_a_call_is_no_message(town: Town) -> None:
    """grant_a in the 200 OK of a mailbox."""
    request = town.request()
    grant_a = granted(town.give(request)).grant_a
    caller = town.holder(Role.CALLER, "psk:alice")
    nonce = town.profile.open_token(caller, town.run(), request.token_a, binds=None).nonce
    broken(
        Check.OR_20,
        lambda: deferred.open_mailbox_grant(
            caller,
            town.run(),
            grant_a,
            token_a=request.token_a,
            nonce=nonce,
            mailbox=MAILBOX,
            answer=ANSWER,
            now=NOW,
        ),
    )


def test_or_30_only_a_holder_of_k_can_have_the_message_deleted(left: Left) -> None:
    receipt, heard = left.bodies["receipt_v"], left.bodies["grant_f"]
    assert isinstance(receipt, Receipt)
    assert isinstance(heard, FetchGrant)
    run = left.given["grant_f"]["run"]
    deferred.verify_proof(receipt.proof_hash, deferred.proof_of(heard.key, run))
    for wrong in (
        bytes(32),
        receipt.proof_hash,
        deferred.proof_of(Secret(bytes(32)), run),
        deferred.proof_of(heard.key, msgspec.structs.replace(run, call=bytes(16))),
    ):
        broken(Check.OR_30, lambda: deferred.verify_proof(receipt.proof_hash, wrong))  # noqa: B023
