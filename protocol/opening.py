"""What is in a seal, or the refusal with the number of the check that it fails."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from protocol.checks import Check, Refused
from protocol.encoding import BodyMalformed, dec_body
from protocol.sealing import Channel, SealBroken

Body = TypeVar("Body", bound=msgspec.Struct)


def opened(
    channel: Channel, label: str, context: tuple[object, ...], sealed: bytes, body: type[Body], check: Check
) -> Body:
    """The body of a seal. Raises Refused(check) if it does not open, or is not what it should be."""
    try:
        return dec_body(channel.unseal(label, context, sealed), body)
    except (SealBroken, BodyMalformed):
        raise Refused(check) from None
