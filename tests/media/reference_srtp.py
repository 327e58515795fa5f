"""SRTP a second time, by the cipher alone (RFC 3711, RFC 7714): what libsrtp's packets are held against."""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR


def keystream(key: bytes, iv: bytes, octets: int) -> bytes:
    """AES in counter mode, RFC 3711 4.1.1. iv: 16 octets, the last two zero."""
    return Cipher(AES(key), CTR(iv)).encryptor().update(bytes(octets))


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def derive(master: bytes, salt: bytes, label: int, octets: int) -> bytes:
    """A session key, RFC 3711 4.3 with a key derivation rate of 0. salt: 14 octets, or 12 (RFC 7714, 11)."""
    x = xor(salt.ljust(14, b"\0"), bytes([*bytes(7), label, *bytes(6)]))
    return keystream(master, x + bytes(2), octets)


def gcm_iv(salt: bytes, ssrc: int, roc: int, sequence: int) -> bytes:
    """RFC 7714, 8.1."""
    return xor(
        bytes(2) + ssrc.to_bytes(4, "big") + roc.to_bytes(4, "big") + sequence.to_bytes(2, "big"), salt
    )


def protect_gcm(master: bytes, salt: bytes, packet: bytes) -> bytes:
    """AEAD_AES_256_GCM, rollover counter 0."""
    header, payload = packet[:12], packet[12:]
    key, session_salt = derive(master, salt, 0, 32), derive(master, salt, 2, 12)
    iv = gcm_iv(session_salt, int.from_bytes(header[8:12], "big"), 0, int.from_bytes(header[2:4], "big"))
    return header + AESGCM(key).encrypt(iv, payload, header)


def protect_cm(master: bytes, salt: bytes, packet: bytes) -> bytes:
    """AES_CM_128_HMAC_SHA1_80, rollover counter 0."""
    header, payload = packet[:12], packet[12:]
    key, auth = derive(master, salt, 0, 16), derive(master, salt, 1, 20)
    session_salt = derive(master, salt, 2, 14)
    index = bytes(4) + header[8:12] + bytes(4) + header[2:4]  # SSRC and the 48 bits of the packet's index
    iv = xor(session_salt, index) + bytes(2)
    sealed = header + xor(payload, keystream(key, iv, len(payload)))
    return sealed + hmac.digest(auth, sealed + bytes(4), "sha1")[:10]
