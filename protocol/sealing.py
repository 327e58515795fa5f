"""Seal, KDF, MAC and the sub-keys of section 2.

up(K_x, role)   = KDF(K_x, enc(suite, role, "up"), 32)        and down(...) likewise
Seal(key, label; context; plaintext)
                = nonce || AEAD(key, nonce, plaintext, aad = enc("otway/1", suite, label, ...context))
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.encoding import enc
from protocol.names import Role, Suite
from protocol.secret import Secret

Random = Callable[[int], bytes]
"""Gives so many random octets; `os.urandom` in a running agent, a seeded stream in a simulated one."""

VERSION: Final = "otway/1"
NONCE_OCTETS: Final = 12
_CHANNELS_KEPT: Final = 4096  # 2.3 KB each; a busy KMS meets the same long-term keys again and again


class SealBroken(Exception):  # noqa: N818
    """A seal did not open: another key, another context, or changed octets; which one is not to be known."""


def kdf(key: Secret, info: bytes, octets: int) -> Secret:
    """KDF(k, info, n): HKDF-SHA-256 (RFC 5869) with salt `otway/1`."""
    return Secret(HKDF(SHA256(), octets, VERSION.encode(), info).derive(key.reveal()))


def mac(key: Secret, message: bytes) -> bytes:
    """MAC(k, m): HMAC-SHA-256, 32 octets."""
    return hmac.digest(key.reveal(), message, "sha256")


class Channel:
    """One sub-key as a cipher: what seals in one direction, for one role, under one suite."""

    __slots__ = ("_cipher", "_suite")

    def __init__(self, key: Secret, suite: Suite) -> None:
        """key: 32 octets."""
        cipher = AESGCM if suite is Suite.AES_256_GCM else ChaCha20Poly1305
        self._cipher = cipher(key.reveal())
        self._suite = suite

    def seal(self, label: str, context: tuple[object, ...], plaintext: bytes, random: Random) -> bytes:
        """12 octets of nonce, the ciphertext, 16 octets of tag."""
        nonce = random(NONCE_OCTETS)
        return nonce + self._cipher.encrypt(nonce, plaintext, enc(VERSION, self._suite, label, *context))

    def unseal(self, label: str, context: tuple[object, ...], sealed: bytes) -> bytes:
        """The plaintext, or SealBroken."""
        aad = enc(VERSION, self._suite, label, *context)
        try:
            return self._cipher.decrypt(sealed[:NONCE_OCTETS], sealed[NONCE_OCTETS:], aad)
        except (InvalidTag, ValueError):  # ValueError: shorter than a nonce and a tag
            raise SealBroken(label) from None


@lru_cache(_CHANNELS_KEPT)
def up(key: Secret, suite: Suite, role: Role) -> Channel:
    """What the holder of long-term key K_x seals with in `role`, towards the server."""
    return Channel(kdf(key, enc(suite, role, "up"), 32), suite)


@lru_cache(_CHANNELS_KEPT)
def down(key: Secret, suite: Suite, role: Role) -> Channel:
    """What the server seals with for the holder of K_x in `role`."""
    return Channel(down_key(key, suite, role), suite)


def down_key(key: Secret, suite: Suite, role: Role) -> Secret:
    """down(K_x, role) itself, 32 octets: what a server keeps that will have to say more, and needs no K_x."""
    return kdf(key, enc(suite, role, "down"), 32)
