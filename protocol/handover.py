"""How the KMS gets a bootstrapped key from the BSF, and shows the UE that it has it (section 3).

    KMS -> BSF   request  = Seal(up(K_zn,"naf"), "zn-req"; NAF_Id; enc(B-TID, NAF_Id, Nk, time))
    BSF -> KMS   Seal(down(K_zn,"naf"), "zn-rsp"; NAF_Id, H(request);
                      enc(B-TID, NAF_Id, Nk, Ks_NAF, IMPI, identities, not_after))
    KMS -> UE    Seal(down(Ka,"ue"), "attached"; B-TID; enc(B-TID, IMPI, identities, now, not_after))

Suite 1 throughout. For a B-TID that the BSF does not know, Ks_NAF and what follows are nil.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import BodyMalformed, dec_body, digest, enc_body
from protocol.limits import SKEW_S, TOKEN_AGE_S
from protocol.names import Identity, Impi, KeyId, Nonce, Role, Suite, Time
from protocol.sealing import Random, SealBroken, down, up
from protocol.secret import Secret

_SUITE = Suite.AES_256_GCM
Identities = Annotated[tuple[Identity, ...], Meta(max_length=16)]
NafId = Annotated[bytes, Meta(min_length=6, max_length=255)]


class Question(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of zn-req."""

    btid: KeyId
    naf_id: NafId
    nonce: Nonce  # Nk
    time: Time


class Handover(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of zn-rsp; all after the nonce is None for a B-TID that the BSF does not know."""

    btid: KeyId
    naf_id: NafId
    nonce: Nonce  # Nk
    ks_naf: Secret | None
    impi: Impi | None
    identities: Identities | None
    not_after: Time | None


class Attachment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of attached: what the KMS now holds for this UE."""

    btid: KeyId
    impi: Impi
    identities: Identities
    now: Time
    not_after: Time


def seal_question(k_zn: Secret, question: Question, random: Random) -> bytes:
    """zn-req."""
    return up(k_zn, _SUITE, Role.NAF).seal("zn-req", (question.naf_id,), enc_body(question), random)


def open_question(k_zn: Secret, naf_id: bytes, sealed: bytes, now: int) -> Question:
    """What the KMS asks. naf_id: the one that belongs to k_zn. Raises Refused(OR-33)."""
    try:
        question = dec_body(up(k_zn, _SUITE, Role.NAF).unseal("zn-req", (naf_id,), sealed), Question)
    except (SealBroken, BodyMalformed):  # OR-33
        raise Refused(Check.OR_33) from None
    if question.naf_id != naf_id:  # OR-33
        raise Refused(Check.OR_33)
    if not now - TOKEN_AGE_S <= question.time <= now + SKEW_S:  # OR-33
        raise Refused(Check.OR_33, RefusalCode.STALE)
    return question


def seal_handover(k_zn: Secret, handover: Handover, *, request: bytes, random: Random) -> bytes:
    """zn-rsp. request: the zn-req that it answers, as it came."""
    context = (handover.naf_id, digest(request))
    return down(k_zn, _SUITE, Role.NAF).seal("zn-rsp", context, enc_body(handover), random)


def open_handover(k_zn: Secret, asked: Question, sealed: bytes, *, request: bytes) -> Handover:
    """The answer to `asked`, which went out as `request`. Raises Refused(OR-33)."""
    context = (asked.naf_id, digest(request))
    try:
        handover = dec_body(down(k_zn, _SUITE, Role.NAF).unseal("zn-rsp", context, sealed), Handover)
    except (SealBroken, BodyMalformed):  # OR-33
        raise Refused(Check.OR_33) from None
    if (handover.btid, handover.naf_id, handover.nonce) != (asked.btid, asked.naf_id, asked.nonce):  # OR-33
        raise Refused(Check.OR_33)
    return handover


def seal_attachment(ka: Secret, attachment: Attachment, random: Random) -> bytes:
    """The sealed part of ATTACHED."""
    return down(ka, _SUITE, Role.UE).seal("attached", (attachment.btid,), enc_body(attachment), random)


def open_attachment(ka: Secret, *, btid: str, impi: str, sealed: bytes) -> Attachment:
    """What the KMS holds under `btid`. Raises Refused(OR-20), or (OR-22) when it is for another device."""
    try:
        attachment = dec_body(down(ka, _SUITE, Role.UE).unseal("attached", (btid,), sealed), Attachment)
    except (SealBroken, BodyMalformed):  # OR-20
        raise Refused(Check.OR_20) from None
    if (attachment.btid, attachment.impi) != (btid, impi):  # OR-22
        raise Refused(Check.OR_22)
    return attachment
