"""Messages as octets, read strictly (OR-01).

A record on the bus is well formed if it is exactly what we would have written: it decodes into a known
message, and that message encodes to the same octets. The second half refuses duplicate keys, another order,
longer forms and whatever else says the same thing twice.
"""

from __future__ import annotations

import msgspec

from protocol.checks import Check, RefusalCode, Refused
from protocol.limits import MESSAGE_OCTETS_MAX
from topics.messages import Message, Wire

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def encode(message: Wire) -> bytes:
    """The octets of a message: a msgpack map with short text keys, in the order of the declaration."""
    return _encoder.encode(message)


def decode(octets: bytes | None) -> Message:
    """The message. octets: a record's value; None is a tombstone.

    Raises Refused(OR-01) with what is wrong in `detail`.
    """
    if octets is None:  # OR-01
        raise _malformed("tombstone")
    if len(octets) > MESSAGE_OCTETS_MAX:  # OR-01
        raise _malformed(f"oversize: {len(octets)} octets, at most {MESSAGE_OCTETS_MAX}")
    try:
        message: Message = _decoder.decode(octets)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:  # OR-01
        raise _malformed(str(error)) from None
    if _encoder.encode(message) != octets:  # OR-01
        raise _malformed("not the canonical form")
    return message


def _malformed(detail: str) -> Refused:
    return Refused(Check.OR_01, RefusalCode.MALFORMED, detail)
