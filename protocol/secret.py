"""Octets that must not be seen: keys, and whatever keys can be made from."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Octets that do not print, do not compare early and cannot be encoded into a message.

    `reveal()` is the one way out: grep for it to see each place that handles a key in the clear.
    """

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def reveal(self) -> bytes:
        """The octets themselves, for a cryptographic primitive or for sealed storage."""
        return self._octets

    def __len__(self) -> int:
        return len(self._octets)

    def __repr__(self) -> str:
        return f"Secret(*** {len(self._octets)} octets)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._octets, other._octets)

    def __hash__(self) -> int:  # for bounded caches of ciphers; keyed anew in each process
        return hash(self._octets)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied out of its process")
