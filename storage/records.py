"""What a record is: a frozen struct with a name that begins with the role that owns it.

    kms:{7}:agreement:sip:alice@ims.example/9f...      role, shard, kind, and what it is about

The role first, so that access lists are prefixes; the shard as a hash tag, so that a partition's owner finds
its timers. Records with secrets are wrapped whole under the key-encryption key, bound to their name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec

from protocol.encoding import enc_body
from protocol.secret import Secret
from protocol.sharding import shard_of
from storage.wrapping import Wrapping, WrappingBroken

_KEYS_KEPT: Final = 8192  # a request names the same few records again and again


class Record(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The form that all records have. New fields go last and have a default: older records still read."""

    secret: ClassVar[bool] = False  # True: wrapped in a store


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Key(Generic[R]):
    """The name of a record and what is found there."""

    name: str
    kind: type[R]


@lru_cache(_KEYS_KEPT)
def key_of(kind: type[R], role: str, label: str, about: str, *, shard_by: str | None = None) -> Key[R]:
    """The key of the record `label` about something. shard_by: what decides the shard, if not `about`."""
    return Key(f"{role}:{{{shard_of(about if shard_by is None else shard_by)}}}:{label}:{about}", kind)


class RecordBroken(Exception):  # noqa: N818
    """A stored record does not read: wrapped under another key, changed, or not of this program."""


class RecordCodec:
    """Records as the octets that a store keeps."""

    def __init__(self, wrapping: Wrapping) -> None:
        self._wrapping = wrapping
        self._decoders: dict[type[Record], msgspec.msgpack.Decoder[Any]] = {}

    def encode(self, key: Key[Any], record: Record) -> bytes:
        """What is stored under the key's name."""
        plain = enc_body(record)
        return self._wrapping.wrap(key.name, plain) if key.kind.secret else plain

    def decode(self, key: Key[R], octets: bytes) -> R:
        """Raises RecordBroken."""
        try:
            plain = self._wrapping.unwrap(key.name, octets) if key.kind.secret else octets
        except WrappingBroken as error:
            raise RecordBroken(str(error)) from None
        decoder = self._decoders.get(key.kind)
        if decoder is None:
            decoder = msgspec.msgpack.Decoder(key.kind, dec_hook=_conceal)
            self._decoders[key.kind] = decoder
        try:
            record: R = decoder.decode(plain)
        except msgspec.MsgspecError as error:
            raise RecordBroken(f"{key.name}: {error}") from None
        return record


def _conceal(wanted: type, value: object) -> object:
    if wanted is Secret and isinstance(value, bytes):
        return Secret(value)
    raise NotImplementedError(f"{wanted.__name__} is not read from {type(value).__name__}")
