"""Every seal of section 6, octet for octet, against tests/vectors/otway1.json."""

from __future__ import annotations

from typing import Any

from protocol import deferred
from protocol.encoding import digest
from protocol.evidence import (
    FetchGrant,
    FetchToken,
    Holder,
    MailboxGrant,
    MailboxToken,
    Receipt,
    Token,
)
from protocol.exchange import Hardened
from protocol.names import Kind, Permit, Role, Run, Suite
from protocol.secret import Secret
from tests.protocol.test_vectors import nonce_of, octets, vector

__all__ = ["vector"]


def test_deferred_delivery_octet_for_octet(vector: dict[str, Any]) -> None:
    told, now, not_before = vector["deferred"], vector["now"], vector["not_before"]
    call = Run(
        call=octets(told, "C"),
        n=vector["n"],
        caller=vector["ID_A"],
        callee=vector["ID_B"],
        suite=Suite(vector["suite"]),
    )
    mailbox, offer, answer = vector["ID_V"], octets(vector, "offer"), octets(vector, "answer")
    a, b, v = (
        Holder(role, vector["KID"][name], Secret(octets(vector, f"K{name.lower()}")))
        for role, name in ((Role.CALLER, "A"), (Role.CALLEE, "B"), (Role.MAILBOX, "V"))
    )
    na, nv, nf = (octets(told, name) for name in ("Na", "Nv", "Nf"))
    token_a, token_v, token_f = (octets(told, name) for name in ("token_a", "token_v", "token_f"))
    key, until, fetched = Secret(octets(told, "K")), told["not_after"], told["fetch_time"]

    permits = tuple(Permit(name) for name in vector["permits"])
    body_a = Token(*call.clear, na, now, permits, digest(offer))
    sealed = Hardened().seal_token(a, call, body_a, binds=None, random=nonce_of(token_a))
    assert sealed == token_a

    body_v = MailboxToken(*call.clear, mailbox, nv, now, told["keep_s"], digest(offer), digest(answer))
    assert deferred.seal_mailbox_token(v, call, body_v, token_a=token_a, random=nonce_of(token_v)) == token_v
    assert deferred.open_mailbox_token(v, call, mailbox, token_v, token_a=token_a) == body_v

    proof = octets(told, "proof")
    assert deferred.proof_of(key, call) == proof
    deferred.verify_proof(digest(proof), proof)

    grant = MailboxGrant(*call.clear, na, key, now, not_before, until, Kind.MAILBOX, mailbox, digest(answer))
    grant_m = octets(told, "grant_m")
    assert deferred.seal_mailbox_grant(a, call, grant, token_a=token_a, random=nonce_of(grant_m)) == grant_m
    opened = deferred.open_mailbox_grant(
        a, call, grant_m, token_a=token_a, nonce=na, mailbox=mailbox, answer=answer, now=now
    )
    assert opened == grant

    receipt = Receipt(*call.clear, mailbox, nv, not_before, until, digest(proof))
    receipt_v = octets(told, "receipt_v")
    assert deferred.seal_receipt(v, call, receipt, token_v=token_v, random=nonce_of(receipt_v)) == receipt_v
    assert deferred.open_receipt(v, call, mailbox, receipt_v, token_v=token_v, nonce=nv, now=now) == receipt

    body_f = FetchToken(*call.clear, nf, fetched)
    assert deferred.seal_fetch(b, call, body_f, random=nonce_of(token_f)) == token_f
    assert deferred.open_fetch(b, call, token_f) == body_f

    fetch = FetchGrant(
        *call.clear,
        nf,
        key,
        fetched,
        not_before,
        until,
        Kind.MAILBOX,
        mailbox,
        digest(offer),
        digest(answer),
    )
    grant_f = octets(told, "grant_f")
    assert deferred.seal_fetch_grant(b, call, fetch, token_f=token_f, random=nonce_of(grant_f)) == grant_f
    got = deferred.open_fetch_grant(
        b,
        call,
        grant_f,
        token_f=token_f,
        nonce=nf,
        mailbox=mailbox,
        offer=offer,
        answer=answer,
        now=fetched,
    )
    assert got == fetch
