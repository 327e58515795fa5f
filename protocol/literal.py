"""The ten steps of the contribution as they are written (section 13). For the lab only.

    E(X) = AES-256-GCM under the long-term key itself, a random nonce, no associated data
    2      A -> B     ID-A, ID-B, Ea(ID-A, I, ID-B)                 I = (C, n)
    4      B -> KMS   ID-A, ID-B, Ea(ID-A, I, ID-B), Eb(ID-A, ID-B)
    6, 8   KMS -> B   Ea(K), Eb(K);   B -> A   Ea(K)

No nonce, no confirmation, no lifetime inside: what that costs is what this profile is there to show.
The messages and the agents are those of the hardened profile; what is not carried reads as zero here.
"""

# ruff: noqa: ARG002  (the parameters are those of the hardened profile; what the ten steps ignore is the lesson)

from __future__ import annotations

from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import BodyMalformed, dec_body, enc, enc_body
from protocol.evidence import Grant, Holder, Token
from protocol.exchange import Settlement
from protocol.limits import LIFE_S, SKEW_S
from protocol.names import Identity, Kind, Role, Run
from protocol.sealing import NONCE_OCTETS, Random, SealBroken
from protocol.secret import Secret

_NO_HASH: Final = bytes(32)
_NO_NONCE: Final = bytes(16)
_NO_PROOF: Final = bytes(32)


class _Ea(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    caller: Identity
    run: bytes  # I
    callee: Identity


class _Eb(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    caller: Identity
    callee: Identity


class Literal:
    """Same methods as `Hardened`; every agent refuses to start with it unless `--lab` is given."""

    name: Final = "literal"
    lab_only: Final = True

    def seal_token(
        self, holder: Holder, run: Run, token: Token, *, binds: bytes | None, random: Random
    ) -> bytes:
        """Ea(ID-A, I, ID-B), or Eb(ID-A, ID-B)."""
        body = (
            _Ea(token.caller, enc(token.call, token.n), token.callee)
            if holder.role is Role.CALLER
            else _Eb(token.caller, token.callee)
        )
        return _encrypt(holder.key, enc_body(body), random)

    def open_token(self, holder: Holder, run: Run, sealed: bytes, *, binds: bytes | None) -> Token:
        """The identities inside; nothing looks at I, since step 5 does not."""
        caller = holder.role is Role.CALLER
        try:
            plain = _decrypt(holder.key, sealed)
            body = dec_body(plain, _Ea) if caller else dec_body(plain, _Eb)
        except (SealBroken, BodyMalformed):
            raise Refused(Check.OR_04 if caller else Check.OR_05) from None
        return Token(run.call, run.n, body.caller, body.callee, _NO_NONCE, 0, (), _NO_HASH)

    def compare(self, run: Run, token_a: Token, token_b: Token, now: int) -> None:
        """Step 5: the identities in clear are those that were encrypted."""
        if (token_a.caller, token_a.callee) != (run.caller, run.callee):  # OR-06
            raise Refused(Check.OR_06)
        if (token_b.caller, token_b.callee) != (run.caller, run.callee):  # OR-07
            raise Refused(Check.OR_07)

    def seal_grant(self, holder: Holder, run: Run, grant: Grant, *, token: bytes, random: Random) -> bytes:
        """Ea(K) or Eb(K)."""
        return _encrypt(holder.key, grant.key.reveal(), random)

    def open_grant(
        self, holder: Holder, run: Run, sealed: bytes, *, token: bytes, nonce: bytes, fork: bytes, now: int
    ) -> Grant:
        """Whatever decrypts is taken for K: no type, no run, no peer and no time is inside."""
        try:
            key = Secret(_decrypt(holder.key, sealed))
        except SealBroken:  # OR-20
            raise Refused(Check.OR_20) from None
        return Grant(
            *run.clear,
            nonce=_NO_NONCE,
            key=key,
            now=now,
            not_before=now - SKEW_S,
            not_after=now + LIFE_S,
            fork=fork,
            kind=Kind.PEER,
        )

    def confirm(self, key: Secret, role: Role, transcript: bytes) -> bytes:
        """Zeros: nothing is confirmed."""
        return _NO_PROOF

    def verify_confirm(self, key: Secret, role: Role, transcript: bytes, confirmation: bytes) -> None:
        """Accepts anything."""

    def bye(self, key: Secret, role: Role, run: Run, fork: bytes) -> bytes:
        """Zeros: a BYE is not authenticated."""
        return _NO_PROOF

    def verify_bye(self, key: Secret, role: Role, run: Run, fork: bytes, proof: bytes) -> None:
        """Accepts anything."""

    def seal_settled(
        self, caller: Holder, run: Run, *, token_a: bytes, nonce: bytes, fork: bytes | None, random: Random
    ) -> bytes:
        """The fork, encrypted: the contribution has no such message, the agents need its effect."""
        return _encrypt(caller.key, fork or b"", random)

    def open_settled(self, caller: Holder, run: Run, sealed: bytes, *, token_a_hash: bytes) -> Settlement:
        """Raises Refused(OR-17) when it does not decrypt to a fork's name."""
        try:
            fork = _decrypt(caller.key, sealed)
        except SealBroken:  # OR-17
            raise Refused(Check.OR_17) from None
        return Settlement(run.call, run.n, fork or None, _NO_NONCE)

    def seal_refusal(
        self, holder: Holder, run: Run, code: RefusalCode, *, token: bytes, nonce: bytes, random: Random
    ) -> bytes:
        """The code, encrypted."""
        return _encrypt(holder.key, code.encode(), random)

    def open_refusal(
        self, holder: Holder, run: Run, sealed: bytes, *, token: bytes, nonce: bytes
    ) -> RefusalCode:
        """Raises Refused(OR-20) when it does not decrypt to a code."""
        try:
            return RefusalCode(_decrypt(holder.key, sealed).decode())
        except (SealBroken, ValueError):  # OR-20
            raise Refused(Check.OR_20) from None


def _encrypt(key: Secret, plaintext: bytes, random: Random) -> bytes:
    nonce = random(NONCE_OCTETS)
    return nonce + AESGCM(key.reveal()).encrypt(nonce, plaintext, None)


def _decrypt(key: Secret, sealed: bytes) -> bytes:
    try:
        return AESGCM(key.reveal()).decrypt(sealed[:NONCE_OCTETS], sealed[NONCE_OCTETS:], None)
    except (InvalidTag, ValueError):
        raise SealBroken("E") from None
