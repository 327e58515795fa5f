"""Deferred delivery, section 6: a caller leaves a message in a mailbox that never holds its key.

    2  V -> KMS  DEPOSIT   C, n, ID-A, ID-B, ID-V, KID-A, KID-V, suite, token_a, token_v
    3  KMS -> V            grant_m, receipt_v
    4  V -> A    200 OK    answer, grant_m
    7  B -> KMS  FETCH     C, n, ID-A, ID-B, KID-A, KID-B, suite, token_f
    8  KMS -> B            grant_f
    9  B -> V    COLLECTED ID-A, C, n, proof

In the hardened profile only: the contribution's ten steps have no deferred delivery. What opens a seal raises
Refused with the number of the check that failed.
"""

from __future__ import annotations

import hmac

from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc, enc_body
from protocol.evidence import FetchGrant, FetchToken, Holder, MailboxGrant, MailboxToken, Receipt, Token
from protocol.limits import SKEW_S, TOKEN_AGE_S
from protocol.names import Kind, Role, Run
from protocol.opening import opened
from protocol.sealing import Random, down, kdf, mac, up
from protocol.secret import Secret

# What the mailbox asks, and the KMS judges.


def seal_mailbox_token(
    holder: Holder, run: Run, token: MailboxToken, *, token_a: bytes, random: Random
) -> bytes:
    """token_v. holder: the mailbox with its own key."""
    context = (*run.clear, token.mailbox, holder.key_id, digest(token_a))
    return up(holder.key, run.suite, Role.MAILBOX).seal("token-v", context, enc_body(token), random)


def open_mailbox_token(
    holder: Holder, run: Run, mailbox: str, sealed: bytes, *, token_a: bytes
) -> MailboxToken:
    """The body of token_v under the mailbox's up key, bound to token_a. Raises Refused(OR-05)."""
    context = (*run.clear, mailbox, holder.key_id, digest(token_a))
    channel = up(holder.key, run.suite, Role.MAILBOX)
    return opened(channel, "token-v", context, sealed, MailboxToken, Check.OR_05)  # OR-05


def compare_deposit(run: Run, mailbox: str, token_a: Token, token_v: MailboxToken, now: int) -> None:
    """What both tokens say against the clear values and each other. Raises Refused."""
    if (token_a.call, token_a.n, token_a.caller, token_a.callee) != run.clear:  # OR-06
        raise Refused(Check.OR_06)
    inside = (token_v.call, token_v.n, token_v.caller, token_v.callee, token_v.mailbox)
    if inside != (*run.clear, mailbox):  # OR-07
        raise Refused(Check.OR_07)
    for time in (token_a.time, token_v.time):
        if not now - TOKEN_AGE_S <= time <= now + SKEW_S:  # OR-09
            raise Refused(Check.OR_09, RefusalCode.STALE)
    if token_a.offer_hash != token_v.offer_hash:  # OR-12
        raise Refused(Check.OR_12)


# What the KMS answers, and the caller and the mailbox check.


def seal_mailbox_grant(
    holder: Holder, run: Run, grant: MailboxGrant, *, token_a: bytes, random: Random
) -> bytes:
    """grant_m, for the caller: the same label and key as grant_a, so that a run has one grant of one kind."""
    context = (*run.clear, holder.key_id, digest(token_a))
    return down(holder.key, run.suite, Role.CALLER).seal("grant-a", context, enc_body(grant), random)


def open_mailbox_grant(
    holder: Holder,
    run: Run,
    sealed: bytes,
    *,
    token_a: bytes,
    nonce: bytes,
    mailbox: str,
    answer: bytes,
    now: int,
) -> MailboxGrant:
    """grant_m, if it is for this caller's run, its own token_a and this answer of this mailbox.

    nonce: Na. mailbox, answer: as they came in clear. Raises Refused(OR-20 to OR-24).
    """
    context = (*run.clear, holder.key_id, digest(token_a))
    channel = down(holder.key, run.suite, Role.CALLER)
    grant = opened(channel, "grant-a", context, sealed, MailboxGrant, Check.OR_20)  # OR-20
    if grant.nonce != nonce:  # OR-21
        raise Refused(Check.OR_21)
    if (grant.call, grant.n, grant.caller, grant.callee, grant.mailbox) != (*run.clear, mailbox):  # OR-22
        raise Refused(Check.OR_22)
    if not grant.not_before <= now <= grant.not_after:  # OR-23
        raise Refused(Check.OR_23, RefusalCode.EXPIRED)
    if grant.kind is not Kind.MAILBOX or grant.answer_hash != digest(answer):  # OR-24
        raise Refused(Check.OR_24)
    return grant


def seal_receipt(holder: Holder, run: Run, receipt: Receipt, *, token_v: bytes, random: Random) -> bytes:
    """receipt_v, for the mailbox."""
    context = (*run.clear, receipt.mailbox, holder.key_id, digest(token_v))
    return down(holder.key, run.suite, Role.MAILBOX).seal("receipt-v", context, enc_body(receipt), random)


def open_receipt(
    holder: Holder, run: Run, mailbox: str, sealed: bytes, *, token_v: bytes, nonce: bytes, now: int
) -> Receipt:
    """receipt_v, if it is for this mailbox's own token_v. nonce: Nv. Raises Refused(OR-20 to OR-23)."""
    context = (*run.clear, mailbox, holder.key_id, digest(token_v))
    channel = down(holder.key, run.suite, Role.MAILBOX)
    receipt = opened(channel, "receipt-v", context, sealed, Receipt, Check.OR_20)  # OR-20
    if receipt.nonce != nonce:  # OR-21
        raise Refused(Check.OR_21)
    inside = (receipt.call, receipt.n, receipt.caller, receipt.callee, receipt.mailbox)
    if inside != (*run.clear, mailbox):  # OR-22
        raise Refused(Check.OR_22)
    if not receipt.not_before <= now <= receipt.not_after:  # OR-23
        raise Refused(Check.OR_23, RefusalCode.EXPIRED)
    return receipt


# Fetching: any device of the callee, until the key ends.


def seal_fetch(holder: Holder, run: Run, token: FetchToken, *, random: Random) -> bytes:
    """token_f. run.suite: the one that the fetching device names, not the one of the call."""
    context = (*run.clear, holder.key_id)
    return up(holder.key, run.suite, Role.CALLEE).seal("token-f", context, enc_body(token), random)


def open_fetch(holder: Holder, run: Run, sealed: bytes) -> FetchToken:
    """The body of token_f under the device's up key. Raises Refused(OR-05)."""
    context = (*run.clear, holder.key_id)
    channel = up(holder.key, run.suite, Role.CALLEE)
    return opened(channel, "token-f", context, sealed, FetchToken, Check.OR_05)  # OR-05


def compare_fetch(run: Run, token: FetchToken, now: int) -> None:
    """What token_f says against the clear values. Raises Refused(OR-07) or (OR-09)."""
    if (token.call, token.n, token.caller, token.callee) != run.clear:  # OR-07
        raise Refused(Check.OR_07)
    if not now - TOKEN_AGE_S <= token.time <= now + SKEW_S:  # OR-09
        raise Refused(Check.OR_09, RefusalCode.STALE)


def seal_fetch_grant(holder: Holder, run: Run, grant: FetchGrant, *, token_f: bytes, random: Random) -> bytes:
    """grant_f, for a device of the callee."""
    context = (*run.clear, holder.key_id, digest(token_f))
    return down(holder.key, run.suite, Role.CALLEE).seal("grant-f", context, enc_body(grant), random)


def open_fetch_grant(
    holder: Holder,
    run: Run,
    sealed: bytes,
    *,
    token_f: bytes,
    nonce: bytes,
    mailbox: str,
    offer: bytes,
    answer: bytes,
    now: int,
) -> FetchGrant:
    """grant_f, if it is for this device's own token_f, and the mailbox tells offer and answer as they were.

    nonce: Nb of token_f. mailbox, offer, answer: as the mailbox told them. Raises Refused(OR-20 to OR-24).
    """
    context = (*run.clear, holder.key_id, digest(token_f))
    channel = down(holder.key, run.suite, Role.CALLEE)
    grant = opened(channel, "grant-f", context, sealed, FetchGrant, Check.OR_20)  # OR-20
    if grant.nonce != nonce:  # OR-21
        raise Refused(Check.OR_21)
    if (grant.call, grant.n, grant.caller, grant.callee, grant.mailbox) != (*run.clear, mailbox):  # OR-22
        raise Refused(Check.OR_22)
    if not grant.not_before <= now <= grant.not_after:  # OR-23
        raise Refused(Check.OR_23, RefusalCode.EXPIRED)
    said = (grant.kind, grant.offer_hash, grant.answer_hash)
    if said != (Kind.MAILBOX, digest(offer), digest(answer)):  # OR-24
        raise Refused(Check.OR_24)
    return grant


# Deleting: whoever holds K, or has kept what follows from it.


def proof_of(key: Secret, run: Run) -> bytes:
    """What shows a mailbox that its message may be deleted: only holders of K can make it, 32 octets."""
    return mac(kdf(key, enc("collected"), 32), enc(run.call, run.n))


def verify_proof(proof_hash: bytes, proof: bytes) -> None:
    """Raises Refused(OR-30) unless the proof is the one that the KMS told the mailbox to wait for."""
    if not hmac.compare_digest(proof_hash, digest(proof)):  # OR-30
        raise Refused(Check.OR_30)
