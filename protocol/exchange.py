"""The exchange of section 4 in the hardened profile, with the end of section 5 and the refusals of 11.

    1  A   -> B   INVITE    C, n, ID-A, ID-B, KID-A, suite, offer, token_a
    2  B   -> KMS REQUEST   C, n, ID-A, ID-B, KID-A, KID-B, suite, token_a, token_b
    3  KMS -> B   RESPONSE  C, n, F, grant_a, grant_b
    4  B   -> A   200 OK    C, n, F, Nb, answer, grant_a, confirm_b
    5  A   -> B   ACK       C, n, F, confirm_a

A token or grant of the caller has the context C, n, ID-A, ID-B, KID-A; the callee's token binds token_a
besides, and a grant binds the token that asked for it: that is `binds` below.
"""

from __future__ import annotations

import hmac
from typing import Final

import msgspec

from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import BodyMalformed, dec_body, digest, enc, enc_body
from protocol.evidence import Grant, Holder, MailboxGrant, Token
from protocol.limits import SKEW_S, TOKEN_AGE_S
from protocol.names import CallId, ForkName, Kind, Nonce, Role, Run, RunNumber
from protocol.sealing import VERSION, Random, SealBroken, down, kdf, mac, up
from protocol.secret import Secret

_LETTER: Final = {Role.CALLER: "a", Role.CALLEE: "b"}


class Settlement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of SETTLED: the fork whose answer the caller took, and the nonce of its token_a."""

    call: CallId
    n: RunNumber
    fork: ForkName | None  # None: it took the mailbox
    nonce: Nonce


class _RefusalBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    nonce: Nonce
    code: RefusalCode


class Hardened:
    """The profile that runs everywhere; see protocol/literal.py for the other one."""

    name: Final = "hardened"
    lab_only: Final = False

    # Tokens: sealed by the caller and the callee, opened by the KMS.

    def seal_token(
        self, holder: Holder, run: Run, token: Token, *, binds: bytes | None, random: Random
    ) -> bytes:
        """token_a, or token_b. binds: the token_a that a callee answers; None for a caller."""
        channel = up(holder.key, run.suite, holder.role)
        return channel.seal(
            f"token-{_LETTER[holder.role]}", _context(run, holder, binds), enc_body(token), random
        )

    def open_token(self, holder: Holder, run: Run, sealed: bytes, *, binds: bytes | None) -> Token:
        """The body of a token under its holder's up key. Raises Refused(OR-04); for a callee's, (OR-05)."""
        check = Check.OR_04 if holder.role is Role.CALLER else Check.OR_05
        channel = up(holder.key, run.suite, holder.role)
        try:
            body = channel.unseal(f"token-{_LETTER[holder.role]}", _context(run, holder, binds), sealed)
            return dec_body(body, Token)
        except (SealBroken, BodyMalformed):  # OR-04, OR-05
            raise Refused(check) from None

    def compare(self, run: Run, token_a: Token, token_b: Token, now: int) -> None:
        """Step 5 of the contribution, and what the hardened tokens carry besides."""
        if (token_a.call, token_a.n, token_a.caller, token_a.callee) != run.clear:  # OR-06
            raise Refused(Check.OR_06)
        if (token_b.call, token_b.n, token_b.caller, token_b.callee) != run.clear:  # OR-07
            raise Refused(Check.OR_07)
        for token in (token_a, token_b):
            if not now - TOKEN_AGE_S <= token.time <= now + SKEW_S:  # OR-09
                raise Refused(Check.OR_09, RefusalCode.STALE)
        if token_a.offer_hash != token_b.offer_hash:  # OR-12
            raise Refused(Check.OR_12)

    # Grants: sealed by the KMS, opened by whom they are for.

    def seal_grant(self, holder: Holder, run: Run, grant: Grant, *, token: bytes, random: Random) -> bytes:
        """grant_a or grant_b. token: the holder's own token, which the grant binds."""
        channel = down(holder.key, run.suite, holder.role)
        return channel.seal(
            f"grant-{_LETTER[holder.role]}", _context(run, holder, token), enc_body(grant), random
        )

    def open_grant(
        self, holder: Holder, run: Run, sealed: bytes, *, token: bytes, nonce: bytes, fork: bytes, now: int
    ) -> Grant:
        """The grant, if it is for this holder, this run, this token and this moment. Raises Refused.

        token, nonce: the holder's own, for this run. fork: F as it came in clear.
        """
        channel = down(holder.key, run.suite, holder.role)
        try:
            body = channel.unseal(f"grant-{_LETTER[holder.role]}", _context(run, holder, token), sealed)
        except SealBroken:  # OR-20
            raise Refused(Check.OR_20) from None
        grant = _peer_grant(body)
        if grant.nonce != nonce:  # OR-21
            raise Refused(Check.OR_21)
        if (grant.call, grant.n, grant.caller, grant.callee, grant.fork) != (*run.clear, fork):  # OR-22
            raise Refused(Check.OR_22)
        if not grant.not_before <= now <= grant.not_after:  # OR-23
            raise Refused(Check.OR_23, RefusalCode.EXPIRED)
        if grant.kind is not Kind.PEER:  # OR-24
            raise Refused(Check.OR_24)
        return grant

    # Confirmation: each end shows the other that it holds K, over the same transcript.

    def confirm(self, key: Secret, role: Role, transcript: bytes) -> bytes:
        """confirm_a or confirm_b, 32 octets."""
        return mac(kdf(key, enc("confirm", role), 32), transcript)

    def verify_confirm(self, key: Secret, role: Role, transcript: bytes, confirmation: bytes) -> None:
        """Raises Refused(OR-25) unless the end in `role` holds this key and saw this transcript."""
        if not hmac.compare_digest(self.confirm(key, role, transcript), confirmation):  # OR-25
            raise Refused(Check.OR_25)

    def bye(self, key: Secret, role: Role, run: Run, fork: bytes) -> bytes:
        """The MAC of a BYE by the end in `role`, 32 octets."""
        return mac(kdf(key, enc("bye", role), 32), enc(run.call, run.n, fork))

    def verify_bye(self, key: Secret, role: Role, run: Run, fork: bytes, proof: bytes) -> None:
        """Raises Refused(OR-25) unless the end in `role` itself hangs up."""
        if not hmac.compare_digest(self.bye(key, role, run, fork), proof):  # OR-25
            raise Refused(Check.OR_25)

    # SETTLED: the caller tells the KMS whose answer it took.

    def seal_settled(
        self, caller: Holder, run: Run, *, token_a: bytes, nonce: bytes, fork: bytes | None, random: Random
    ) -> bytes:
        """The sealed part of SETTLED. nonce: Na of the run. fork: F, or None for the mailbox."""
        body = enc_body(Settlement(run.call, run.n, fork, nonce))
        channel = up(caller.key, run.suite, Role.CALLER)
        return channel.seal("settled", _context(run, caller, token_a), body, random)

    def open_settled(self, caller: Holder, run: Run, sealed: bytes, *, token_a_hash: bytes) -> Settlement:
        """Raises Refused(OR-17). Whether Na and the fork are the run's is for the KMS to compare."""
        context = (*run.clear, caller.key_id, token_a_hash)
        try:
            return dec_body(
                up(caller.key, run.suite, Role.CALLER).unseal("settled", context, sealed), Settlement
            )
        except (SealBroken, BodyMalformed):  # OR-17
            raise Refused(Check.OR_17) from None

    # Refusals: sealed where the requester's token has opened, else only a hint.

    def seal_refusal(
        self, holder: Holder, run: Run, code: RefusalCode, *, token: bytes, nonce: bytes, random: Random
    ) -> bytes:
        """The sealed part of REFUSAL, for the requester."""
        context = (run.call, run.n, holder.key_id, digest(token))
        body = enc_body(_RefusalBody(nonce, code))
        return down(holder.key, run.suite, holder.role).seal("refuse", context, body, random)

    def open_refusal(
        self, holder: Holder, run: Run, sealed: bytes, *, token: bytes, nonce: bytes
    ) -> RefusalCode:
        """The code that the KMS sealed for this token. Raises Refused(OR-20) or (OR-21)."""
        context = (run.call, run.n, holder.key_id, digest(token))
        try:
            body = down(holder.key, run.suite, holder.role).unseal("refuse", context, sealed)
            refusal = dec_body(body, _RefusalBody)
        except (SealBroken, BodyMalformed):  # OR-20
            raise Refused(Check.OR_20) from None
        if refusal.nonce != nonce:  # OR-21
            raise Refused(Check.OR_21)
        return refusal.code


def transcript(
    run: Run, *, offer: bytes, answer: bytes, fork: bytes, token_a: bytes, nonce_b: bytes, grant_a: bytes
) -> bytes:
    """What both ends saw of the exchange, 32 octets: the subject of both confirmations."""
    return digest(
        enc(
            VERSION,
            *run.clear,
            run.suite,
            offer,
            answer,
            fork,
            digest(token_a),
            nonce_b,
            digest(grant_a),
        )
    )


def fork_name(key_f: Secret, run: Run, impi: str) -> bytes:
    """F, 8 octets: names one answering device of ID-B to the caller without revealing it (section 1).

    key_f: K_F, which only the KMS has. The same for every n of a call.
    """
    return mac(key_f, enc(run.caller, run.call, impi))[:8]


def _peer_grant(body: bytes) -> Grant:
    """The body of a grant for a call between two ends. Raises Refused(OR-20), or (OR-24) for another kind."""
    try:
        return dec_body(body, Grant)
    except BodyMalformed:
        pass
    try:
        dec_body(body, MailboxGrant)
    except BodyMalformed:  # OR-20
        raise Refused(Check.OR_20) from None
    raise Refused(Check.OR_24)  # OR-24


def _context(run: Run, holder: Holder, binds: bytes | None) -> tuple[object, ...]:
    clear = (*run.clear, holder.key_id)
    return clear if binds is None else (*clear, digest(binds))
