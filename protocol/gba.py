"""The key derivation of the generic bootstrapping architecture (TS 33.220, Annex B)."""

from __future__ import annotations

import base64
import hmac
from typing import Final

from protocol.secret import Secret

KMS_HOST: Final = "kms.ims.example"
_FC: Final = b"\x01"
_UA_IMS_KMS: Final = bytes.fromhex("0100000006")  # Ua security protocol identifier (TS 33.220, Annex H)


def ks(ck: Secret, ik: Secret) -> Secret:
    """Ks = CK || IK, 32 octets."""
    return Secret(ck.reveal() + ik.reveal())


def naf_id(host: str) -> bytes:
    """NAF_Id of a KMS: its host name and the identifier of the protocol that the key is for."""
    return host.encode() + _UA_IMS_KMS


def btid(rand: bytes, bsf_host: str) -> str:
    """B-TID = base64(RAND)@bsf-host (TS 33.220, 4.5.2)."""
    return f"{base64.b64encode(rand).decode()}@{bsf_host}"


def ks_naf(ks: Secret, *, rand: bytes, impi: str, naf_id: bytes) -> Secret:
    """Ks_NAF, 32 octets: HMAC-SHA-256 of Ks over "gba-me", RAND, IMPI and NAF_Id, each with its length."""
    fields = (b"gba-me", rand, impi.encode(), naf_id)
    text = _FC + b"".join(field + len(field).to_bytes(2, "big") for field in fields)
    return Secret(hmac.digest(ks.reveal(), text, "sha256"))
