"""HTTP Digest with AKA (RFC 3310, AKAv1-MD5) and qop=auth-int (RFC 2617): RES is the password.

MD5 and the form are the standards'; what is hashed with RES shows that both ends know it, nothing more.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from protocol.checks import Check, Refused
from protocol.secret import Secret

METHOD: Final = "GET"  # of the Ub interface (TS 24.109)
URI: Final = "/"
_QOP: Final = "auth-int"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What both directions of one digest are computed over, besides the method, the bodies and RES."""

    impi: str
    realm: str
    nonce: str
    uri: str
    cnonce: str
    nc: int = 1


def nonce(rand: bytes, autn: bytes) -> str:
    """base64(RAND || AUTN), each 16 octets (RFC 3310, 3.2)."""
    return base64.b64encode(rand + autn).decode()


def read_nonce(text: str) -> tuple[bytes, bytes]:
    """RAND and AUTN. Raises ValueError."""
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"nonce: {error}") from None
    if len(octets) != 32 or nonce(octets[:16], octets[16:]) != text:
        raise ValueError("nonce: not base64 of 32 octets")
    return octets[:16], octets[16:]


def response(res: Secret, exchange: Exchange, *, method: str, body: bytes) -> str:
    """The UE's digest, 32 hexadecimal digits (RFC 2617, 3.2.2)."""
    return _digest(res, exchange, f"{method}:{exchange.uri}", body)


def server_digest(res: Secret, exchange: Exchange, *, body: bytes) -> str:
    """The BSF's digest over its answer's body: response-auth, whose A2 has no method (RFC 2617, 3.2.3)."""
    return _digest(res, exchange, f":{exchange.uri}", body)


def verify_response(res: Secret, exchange: Exchange, told: str, *, method: str, body: bytes) -> None:
    """Raises Refused(OR-31) unless the UE knows RES."""
    if not hmac.compare_digest(response(res, exchange, method=method, body=body), told):  # OR-31
        raise Refused(Check.OR_31)


def verify_server_digest(res: Secret, exchange: Exchange, told: str, *, body: bytes) -> None:
    """Raises Refused(OR-32) unless the BSF knows RES."""
    if not hmac.compare_digest(server_digest(res, exchange, body=body), told):  # OR-32
        raise Refused(Check.OR_32)


def _digest(res: Secret, exchange: Exchange, a2: str, body: bytes) -> str:
    ha1 = _md5(f"{exchange.impi}:{exchange.realm}:".encode() + res.reveal())
    ha2 = _md5(f"{a2}:{_md5(body)}".encode())
    middle = f"{exchange.nonce}:{exchange.nc:08x}:{exchange.cnonce}:{_QOP}"
    return _md5(f"{ha1}:{middle}:{ha2}".encode())


def _md5(octets: bytes) -> str:
    return hashlib.md5(octets, usedforsecurity=False).hexdigest()
