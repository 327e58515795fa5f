"""enc() and H of section 2: one value, one string of octets.

The bodies of seals are array-like structs, so that a body's declaration is its encoding. A body that is
read must be written back to the same octets: that one comparison refuses every non-canonical form.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import msgspec

from protocol.secret import Secret

Body = TypeVar("Body", bound=msgspec.Struct)


def _reveal(value: object) -> bytes:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(f"{type(value).__name__} has no encoding")


def _conceal(wanted: type, value: object) -> object:
    if wanted is Secret and isinstance(value, bytes):
        return Secret(value)
    raise NotImplementedError(f"{wanted.__name__} is not read from {type(value).__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_reveal)
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}


class BodyMalformed(Exception):  # noqa: N818
    """A sealed body opened, but is not the canonical encoding of what it should be."""


def enc(*values: object) -> bytes:
    """The msgpack array of the arguments in its shortest form. Secrets among them are written in the clear:
    the result is for a cipher, a MAC or a hash."""
    return _encoder.encode(values)


def enc_body(body: msgspec.Struct) -> bytes:
    """enc() of an array-like struct's fields, in their order."""
    return _encoder.encode(body)


def dec_body(octets: bytes, body: type[Body]) -> Body:
    """The struct whose `enc_body` is exactly `octets`.

    Raises BodyMalformed for a wrong type, length or count of fields, and for any other encoding of the same
    values.
    """
    decoder = _decoders.get(body)
    if decoder is None:
        decoder = _decoders[body] = msgspec.msgpack.Decoder(body, dec_hook=_conceal)
    try:
        value: Body = decoder.decode(octets)
    except msgspec.MsgspecError as error:
        raise BodyMalformed(str(error)) from None
    if _encoder.encode(value) != octets:
        raise BodyMalformed("not the canonical form")
    return value


def digest(octets: bytes) -> bytes:
    """H: SHA-256, 32 octets; of a seal over all its octets, nonce first."""
    return hashlib.sha256(octets).digest()
