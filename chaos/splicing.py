"""An outsider on the bus, who holds no key: takes messages apart and sends what can be made of the parts.

What it sends is well-formed, so it passes the codec and meets the agents: fields of one call in a message of
another, cut and lengthened octets, numbers at their limits, names of nobody, and the right message at the
wrong party.
"""

from __future__ import annotations

import random as seeded
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol.checks import Refused
from topics.bus import Outbound
from topics.codec import decode, encode
from topics.messages import Contact, Message

_NUMBERS: Final = (-1, 0, 1, 2**31, 2**53, 2**63 - 1)
_TEXTS: Final = ("", "a", "sip:nobody@ims.example", "psk:alice", "é", "%s", "{}")
_CONTACTS: Final = (Contact("nowhere", "x"), Contact("alice", "x"), Contact("bob", "alice@ims.example"))


class Splicer:
    """Has seen some records, and makes new ones of them."""

    def __init__(self, seed: int, inboxes: Sequence[str]) -> None:
        self._chance = seeded.Random(f"splices {seed}")
        self._inboxes = inboxes
        self._seen: list[tuple[Outbound, Message]] = []
        self._values: dict[str, list[Any]] = defaultdict(list)  # field name -> what it was in some message
        self.sent: set[bytes] = set()

    def sees(self, record: Outbound) -> None:
        """Take a record apart."""
        message = decode(record.value)
        self._seen.append((record, message))
        for name in message.__struct_fields__:
            self._values[name].append(getattr(message, name))

    def splice(self) -> Outbound | None:
        """A new record, or None when the parts do not make a well-formed one."""
        chance = self._chance
        record, message = chance.choice(self._seen)
        names = [name for name in message.__struct_fields__ if name != "version"]
        chosen = chance.sample(names, min(len(names), chance.randint(0, 3)))
        spliced = msgspec.structs.replace(message, **{name: self._part(message, name) for name in chosen})
        try:
            value = encode(spliced)
            decode(value)
        except (Refused, TypeError, OverflowError, UnicodeEncodeError):
            return None
        self.sent.add(value)
        astray = chance.random() < 0.2
        topic, partition = (chance.choice(self._inboxes), 0) if astray else (record.topic, record.partition)
        return Outbound(topic, partition, record.key, value)

    def _part(self, message: Message, name: str) -> Any:  # noqa: ANN401
        """Another value for this field."""
        value = getattr(message, name)
        kinds = (self._values[name], self._values[self._chance.choice(list(self._values))], self._near(value))
        return self._chance.choice(self._chance.choices(kinds, (6, 1, 3))[0])

    def _near(self, value: object) -> Sequence[Any]:
        """Values that are almost this one, or at the limits of its type."""
        match value:
            case int():
                return (value - 1, value + 1, *_NUMBERS)
            case bytes():
                return (
                    value[:-1],
                    value[1:],
                    value + b"\0",
                    bytes(len(value)),
                    self._chance.randbytes(len(value)),
                )
            case str():
                return (value[:-1], value + "x", *_TEXTS)
            case Contact():
                return _CONTACTS
            case tuple():
                return (value * 2, value[:1], ())
            case _:
                return (None,)
