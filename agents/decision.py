"""What an agent is: a function from a message, records, time and chance to a decision.

    reads(message)                        -> the keys of the records it will need
    handle(message, records, now, random) -> Decision

For the same arguments the same decision, octet for octet. A handler answers a repeat with the same answer,
so that a loop that crashed may do anything since `decode` once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from agents.alarms import Alarm
from media.leg import MediaEvent, MediaInstruction
from protocol.sealing import Random
from protocol.sharding import shard_of
from storage.records import Key, Record
from topics.catalogue import Party, Topic, ue_inbox
from topics.messages import Audit, Contact, Message, Wire

R = TypeVar("R", bound=Record)
Keys = tuple[Key[Any], ...]
Input = Message | Alarm | MediaEvent


class Records:
    """The records that `reads` named, as they stand when the message is handled."""

    def __init__(self, found: Mapping[str, Record]) -> None:
        self._found = found

    def get(self, key: Key[R]) -> R | None:
        """The record, or None when there is none."""
        record = self._found.get(key.name)
        assert record is None or isinstance(record, key.kind)
        return record


@dataclass(frozen=True, slots=True)
class Send:
    """A message for a topic; key: what decides the partition."""

    topic: Topic
    key: str
    message: Wire

    @property
    def partition(self) -> int:
        """The shard of the key, or 0 in an inbox that has one partition."""
        return shard_of(self.key) % self.topic.partitions


def to_device(contact: Contact, message: Wire) -> Send:
    """A message for the inbox of the device's host."""
    return Send(ue_inbox(contact.host), contact.device, message)


@dataclass(frozen=True, slots=True)
class Put(Generic[R]):
    """Write a record; None deletes it. expires: when a store may sweep it, seconds since 1970 UTC."""

    key: Key[R]
    record: R | None
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class Wake:
    """Remember to do something later. about: one alarm for each; a new time replaces the old, None clears it.
    shard_by: what decides the shard, so that the owner of the call's partition is woken. soon_ms: while it
    lives, this process does it already after so long; the stored alarm is for the case that it does not."""

    about: str
    shard_by: str
    at: int | None
    alarm: Alarm | None = None
    soon_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to store, remember to do later, tell the audit, send, and do with media; in that order."""

    puts: tuple[Put[Any], ...] = ()
    wakes: tuple[Wake, ...] = ()
    audit: tuple[Audit, ...] = ()
    sends: tuple[Send, ...] = ()
    media: tuple[MediaInstruction, ...] = ()

    def __add__(self, other: Decision) -> Decision:
        return Decision(
            self.puts + other.puts,
            self.wakes + other.wakes,
            self.audit + other.audit,
            self.sends + other.sends,
            self.media + other.media,
        )


NOTHING = Decision()


class Agent(Protocol):
    """One role."""

    party: ClassVar[Party]
    """Whose inbox it reads, as whose group."""
    accepts: ClassVar[frozenset[type]]
    """The messages that have a meaning in its inbox; any other is malformed there."""

    def reads(self, message: Input) -> Keys:
        """The keys of all records that `handle` will look at or write."""
        ...

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        """What follows from the message. now: whole seconds since 1970 UTC."""
        ...
