"""Bootstrapping and registration (section 3): UE, BSF, KMS and CSCF."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.checks import RefusalCode
from protocol.names import Identity, Impi, KeyId, Nonce, Time
from topics.messages.form import Contact, HexDigest, Sealed, Text, Wire


class BootstrapRequest(Wire, tag="bootstrap", frozen=True, kw_only=True):
    """UE -> BSF. attempt: drawn by the UE, the same in all four messages of one bootstrapping."""

    attempt: Nonce
    impi: Impi
    sender: Contact


class BootstrapChallenge(Wire, tag="bootstrap-challenge", frozen=True, kw_only=True):
    """BSF -> UE. nonce: base64(RAND || AUTN), as RFC 3310 has it."""

    attempt: Nonce
    to: Impi
    realm: Text
    nonce: Text


class BootstrapAnswer(Wire, tag="bootstrap-answer", frozen=True, kw_only=True):
    """UE -> BSF: the Digest AKA response, or AUTS when the SQN is out of step (response over no password)."""

    attempt: Nonce
    impi: Impi
    nonce: Text
    cnonce: HexDigest
    response: HexDigest
    auts: Annotated[bytes, Meta(min_length=14, max_length=14)] | None
    sender: Contact


class BootstrapDone(Wire, tag="bootstrap-done", frozen=True, kw_only=True):
    """BSF -> UE. server_digest covers B-TID and not_after."""

    attempt: Nonce
    to: Impi
    btid: KeyId
    not_after: Time
    server_digest: HexDigest


class BootstrapRefusal(Wire, tag="bootstrap-refusal", frozen=True, kw_only=True):
    """BSF -> UE; a hint, since nothing seals it."""

    attempt: Nonce
    to: Impi
    code: RefusalCode


class Attach(Wire, tag="attach", frozen=True, kw_only=True):
    """UE -> KMS: fetch my key now, before the first call."""

    btid: KeyId
    sender: Contact


class ZnRequest(Wire, tag="zn-request", frozen=True, kw_only=True):
    """KMS -> BSF."""

    btid: KeyId
    naf_id: Annotated[bytes, Meta(min_length=6, max_length=255)]
    sealed: Sealed


class ZnResponse(Wire, tag="zn-response", frozen=True, kw_only=True):
    """BSF -> KMS."""

    btid: KeyId
    sealed: Sealed


class Attached(Wire, tag="attached", frozen=True, kw_only=True):
    """KMS -> UE."""

    btid: KeyId
    to: Impi
    sealed: Sealed


class AttachRefusal(Wire, tag="attach-refusal", frozen=True, kw_only=True):
    """KMS -> UE; a hint, since nothing seals it."""

    btid: KeyId
    to: Impi
    code: RefusalCode


class Register(Wire, tag="register", frozen=True, kw_only=True):
    """UE -> CSCF: this device takes calls for this identity, for so long."""

    identity: Identity
    expires_s: Annotated[int, Meta(ge=0, le=86_400)]
    sender: Contact


class Registered(Wire, tag="registered", frozen=True, kw_only=True):
    """CSCF -> UE."""

    identity: Identity
    to: Impi
    not_after: Time
