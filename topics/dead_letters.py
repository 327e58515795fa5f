"""Dead letters: a record that cannot be read is kept as it came, with where it came from and why.

A letter has the name of its original as its key: topic, partition and offset. It is open until a record under
the same key closes it, which has no value and says in the header `closed` what was done. The same letter once
more is no second one, and opens nothing again.

Whoever may bury may also invent: only what the original's topic takes from many senders is ever replayed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from protocol.checks import Refused
from protocol.sharding import shard_of
from topics.bus import Inbound, Outbound
from topics.catalogue import DEAD_LETTERS, INBOXES, ORDERS, Party, ue_inbox
from topics.codec import decode
from topics.messages import Dial, HangUp

_REASON_OCTETS_MAX: Final = 500
_ORIGINAL_OCTETS_MAX: Final = 4_096
_HEADERS_MAX: Final = 16
_ORIGINAL: Final = "original-"
_ID: Final = re.compile(rb"([A-Za-z0-9._-]{1,249})/([0-9]{1,10})/([0-9]{1,19})")
_INBOXES: Final = frozenset(topic.name for topic in INBOXES)
_UE_INBOXES: Final = ue_inbox("").name


class NoLetter(Exception):  # noqa: N818
    """A record in the dead-letter topic that `bury` and `closing` have not written."""


class NotReplayable(Exception):  # noqa: N818
    """A letter that stays where it is; the message says why."""


class Closed(StrEnum):
    """What became of a letter."""

    REPLAYED = "replayed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter with the record that it keeps: topic, partition, offset, key, value, headers."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None  # None: the original was a tombstone
    headers: tuple[tuple[str, bytes], ...]
    buried_by: str
    check: str
    reason: str
    cut: str  # what of the original is missing; empty: nothing
    timestamp_ms: int

    @property
    def id(self) -> str:
        """Topic, partition and offset of the original."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Letters:
    """The dead-letter topic at one moment."""

    open: Mapping[str, Letter]  # by id, the oldest first
    closed: Mapping[str, Closed]  # by id
    others: int  # records that are no letters


def bury(record: Inbound, party: Party, refused: Refused) -> Outbound:
    """The dead letter of a record: the same octets each time, so that a repeat after a crash is recognised.

    Headers: origin topic, partition, offset and key, who buried it, the check that it failed and the reason;
    the record's own headers, as far as they fit, with `original-` before their names; `cut`, if the key or
    some headers did not fit, or the bus could not show the record at all.
    """
    origin = f"{record.topic}/{record.partition}/{record.offset}"
    reason = (refused.detail or str(refused)).encode()[:_REASON_OCTETS_MAX]
    key = record.key or b""
    headers: list[tuple[str, bytes]] = [
        ("origin-topic", record.topic.encode()),
        ("origin-partition", str(record.partition).encode()),
        ("origin-offset", str(record.offset).encode()),
        ("origin-key", key[:_ORIGINAL_OCTETS_MAX]),
        ("buried-by", party.encode()),
        ("check", refused.check.encode()),
        ("reason", reason),
    ]
    room = _ORIGINAL_OCTETS_MAX
    kept: list[tuple[str, bytes]] = []
    for name, value in record.headers[:_HEADERS_MAX]:
        room -= len(name) + len(value)
        if room >= 0:
            kept.append((f"{_ORIGINAL}{name}", value))
    missing = ["all but its place"] if record.unreadable else []
    if len(key) > _ORIGINAL_OCTETS_MAX:
        missing.append("key")
    if len(kept) < len(record.headers):
        missing.append("headers")
    if missing:
        headers.append(("cut", ", ".join(missing).encode()))
    return Outbound(DEAD_LETTERS.name, shard_of(origin), origin.encode(), record.value, (*headers, *kept))


def read_letter(record: Inbound) -> Letter:
    """What `bury` has written. Raises NoLetter."""
    named = _ID.fullmatch(record.key or b"")
    said = dict(record.headers)
    if named is None or not said.keys() >= {"origin-key", "buried-by", "check", "reason"}:
        raise NoLetter
    topic, partition, offset = named.groups()
    return Letter(
        topic=topic.decode(),
        partition=int(partition),
        offset=int(offset),
        key=said["origin-key"],
        value=record.value,
        headers=tuple(
            (name.removeprefix(_ORIGINAL), value)
            for name, value in record.headers
            if name.startswith(_ORIGINAL)
        ),
        buried_by=said["buried-by"].decode(errors="replace"),
        check=said["check"].decode(errors="replace"),
        reason=said["reason"].decode(errors="replace"),
        cut=said.get("cut", b"").decode(errors="replace"),
        timestamp_ms=record.timestamp_ms,
    )


def sort_letters(records: Iterable[Inbound]) -> Letters:
    """records: all of the topic, those of one partition in their order."""
    found: dict[str, Letter] = {}
    closed: dict[str, Closed] = {}
    others = 0
    for record in records:
        how = dict(record.headers).get("closed")
        try:
            if how is None:
                letter = read_letter(record)
                found.setdefault(letter.id, letter)
            else:
                closed[_id(record)] = _closed(how)
        except NoLetter:
            others += 1
    still_open = [letter for letter in found.values() if letter.id not in closed]
    still_open.sort(key=lambda each: (each.timestamp_ms, each.topic, each.partition, each.offset))
    return Letters({letter.id: letter for letter in still_open}, closed, others)


def original(letter: Letter) -> Outbound:
    """The record as it once came, for the partition that it came from. Raises NotReplayable."""
    if letter.cut:
        raise NotReplayable(f"not all of it was kept ({letter.cut})")
    if letter.topic == ORDERS.name:
        raise NotReplayable("an order is given anew, not replayed")
    if letter.topic not in _INBOXES and not letter.topic.startswith(_UE_INBOXES):
        raise NotReplayable(f"{letter.topic} is nobody's inbox")
    if _is_a_wish(letter.value):  # any UE host may write dead letters, and would have an operator dial for it
        raise NotReplayable("what a user wants is said anew, not replayed")
    return Outbound(letter.topic, letter.partition, letter.key, letter.value, letter.headers)


def _is_a_wish(octets: bytes | None) -> bool:
    try:
        return isinstance(decode(octets), Dial | HangUp)
    except Refused:
        return False


def closing(letter: Letter, how: Closed) -> Outbound:
    """What says from now on that this letter needs nobody."""
    return Outbound(
        DEAD_LETTERS.name, shard_of(letter.id), letter.id.encode(), None, (("closed", how.encode()),)
    )


def _id(record: Inbound) -> str:
    """Raises NoLetter."""
    named = _ID.fullmatch(record.key or b"")
    if named is None or record.value is not None:
        raise NoLetter
    return named.group().decode()


def _closed(how: bytes) -> Closed:
    """Raises NoLetter."""
    try:
        return Closed(how.decode())
    except ValueError:
        raise NoLetter from None
