"""One bit of one part of a call, changed on its way: each part has a numbered check that must notice."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from chaos.wiretap import flip_a_bit
from topics.messages import Ack, Bye, Invite, KeyRequest, KeyResponse, Message, Ok, Settled


class Part(StrEnum):
    """What can be changed, by its name in the protocol."""

    TOKEN_A = "token_a"
    TOKEN_B = "token_b"
    GRANT_B = "grant_b"
    GRANT_A = "grant_a"
    ANSWER = "answer"
    CONFIRM_B = "confirm_b"
    CONFIRM_A = "confirm_a"
    SETTLED = "settled"
    BYE = "bye"
    SRTP = "srtp"  # every media packet, on its way through a wiretap


_CARRIER: Final[dict[Part, tuple[type[msgspec.Struct], str]]] = {
    Part.TOKEN_A: (Invite, "token_a"),
    Part.TOKEN_B: (KeyRequest, "token_b"),
    Part.GRANT_B: (KeyResponse, "grant_b"),
    Part.GRANT_A: (Ok, "grant_a"),
    Part.ANSWER: (Ok, "answer"),
    Part.CONFIRM_B: (Ok, "confirm_b"),
    Part.CONFIRM_A: (Ack, "confirm_a"),
    Part.SETTLED: (Settled, "sealed"),
    Part.BYE: (Bye, "proof"),
}


def tamper(part: Part, message: Message) -> Message:
    """The message with one bit of the part changed, where it carries it on its first way."""
    if part not in _CARRIER:
        return message
    kind, field = _CARRIER[part]
    forwarded = not isinstance(message, KeyResponse) and getattr(message, "to", None) is not None
    if not isinstance(message, kind) or forwarded:  # a second change would undo the first
        return message
    return msgspec.structs.replace(message, **{field: flip_a_bit(getattr(message, field))})
