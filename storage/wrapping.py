"""Records with secrets, sealed whole before a store sees them.

    wrapped = 01 || id of the key-encryption key (4) || nonce (12) || AES-256-GCM ciphertext || tag (16)
    associated data = 01 || id || name of the record

So a record opens under its own name only: whoever can write to the store cannot put one subscriber's key in
another's place. An older version of a record under its own name does open; the store's versions are no
defence against whoever owns the store.

Nonces are random, 12 octets: NIST SP 800-38D (8.3) allows 2^32 seals for each key, for a chance of 2^-32 that
a nonce comes twice. That is 49 days of 1,000 records a second without a pause: change it before
(storage/key_file.py). Opening does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.secret import Secret

KEY_OCTETS: Final = 32
KEY_ID_OCTETS: Final = 4
WRAPPING_OCTETS: Final = 33  # how much longer a wrapped record is
_FORMAT: Final = b"\x01"
_NONCE_OCTETS: Final = 12
_HEADER_OCTETS: Final = len(_FORMAT) + KEY_ID_OCTETS


class WrappingBroken(Exception):  # noqa: N818
    """A wrapped record does not open. The message names the record and says what was seen of the cause."""


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """A key that wraps records."""

    id: bytes  # 4 octets, unique among the keys that are in use at a time
    key: Secret  # 32 octets
    created: int  # seconds since 1970 UTC

    def __post_init__(self) -> None:
        if len(self.id) != KEY_ID_OCTETS or len(self.key) != KEY_OCTETS:
            raise ValueError("a key-encryption key has 32 octets and an id of 4")


class Wrapping:
    """The vault: several key-encryption keys at a time, the first seals and all of them open."""

    def __init__(self, keys: Sequence[KeyEncryptionKey], random: Callable[[int], bytes]) -> None:
        """random: gives so many random octets; a repeated stream under the same key reveals what was wrapped.

        Raises ValueError without a key, or with two of the same id.
        """
        if not keys:
            raise ValueError("no key-encryption key")
        self._ciphers = {key.id: AESGCM(key.key.reveal()) for key in keys}
        if len(self._ciphers) != len(keys):
            raise ValueError("two key-encryption keys have the same id")
        self._sealing = keys[0].id
        self._random = random

    def wrap(self, name: str, plaintext: bytes) -> bytes:
        """What to store under this name: WRAPPING_OCTETS longer than the plaintext."""
        header = _FORMAT + self._sealing
        nonce = self._random(_NONCE_OCTETS)
        return header + nonce + self._ciphers[self._sealing].encrypt(nonce, plaintext, header + name.encode())

    def unwrap(self, name: str, octets: bytes) -> bytes:
        """The plaintext that was wrapped for this name, or WrappingBroken."""
        if len(octets) < WRAPPING_OCTETS or octets[:1] != _FORMAT:
            raise WrappingBroken(f"{name}: not a wrapped record, or of a later format")
        header, nonce, sealed = (
            octets[:_HEADER_OCTETS],
            octets[_HEADER_OCTETS : _HEADER_OCTETS + _NONCE_OCTETS],
            octets[_HEADER_OCTETS + _NONCE_OCTETS :],
        )
        key_id = header[1:]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            known = ", ".join(known.hex() for known in self._ciphers)
            raise WrappingBroken(
                f"{name}: wrapped under key {key_id.hex()}, which is not here (here: {known})"
            )
        try:
            return cipher.decrypt(nonce, sealed, header + name.encode())
        except InvalidTag:
            raise WrappingBroken(
                f"{name}: changed, or another record's, or not by the key {key_id.hex()} that is here"
            ) from None
