"""The port between an agent's loop and a bus: what `topics/memory.py` and `topics/kafka.py` both keep.

Delivery rules, which the contract suite (tests/topics/bus_contract.py) holds both to:
- Records of one partition arrive in the order in which they were acknowledged.
- A consumer group hands each partition to one member at a time.
- What was received but not committed comes again, to whoever holds the partition next: at least once.
- `send` returns when every record is acknowledged by all in-sync replicas, or raises BusUnavailable. What has
  no topic to go to is handed back.
- `commit` is taken in order and carried out in the background, never past an unacknowledged send, since the
  loop calls it after `send` has returned; it is drained before a partition is given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class BusUnavailable(Exception):  # noqa: N818
    """The bus did not do what was asked within its deadline: come back later."""


class BusRefused(Exception):  # noqa: N818
    """The bus will not do this, now or later: wrong credentials, no such topic, no right to it."""


class NoSuchTopic(BusRefused):
    """There is no such topic, or it has no such partition."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """One record as it came."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None  # None: a tombstone
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0  # since 1970 UTC, by the clock of whoever sent it; 0 on a bus that keeps none
    unreadable: str = ""  # why the bus itself cannot show it: only its place is known then


@dataclass(frozen=True, slots=True)
class Outbound:
    """One record to send; partition: chosen by the sender, from the key (protocol/sharding.py)."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a member is behind, as far as it knows without asking anybody."""

    records: int  # of the partitions held, that are there and were not dealt with
    silent_s: float  # for how long nothing was heard of the partition that was heard of least lately


class Bus(Protocol):
    """One member of a consumer group with the means to send."""

    async def receive(self, limit: int, wait_s: float) -> Sequence[Inbound]:
        """The next records of the partitions held, at most `limit`; none after `wait_s` without any.

        Must not be called again before the last batch was committed or given back. Raises BusUnavailable,
        BusRefused.
        """
        ...

    async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        """Returns when all are acknowledged, but for those that it returns: no such topic or partition.

        A message can name a UE host that does not exist, and must not stop whoever answers it. May be called
        while another call is under way: neither waits for the other or fails with it. Raises BusUnavailable
        (some may have been written), BusRefused.
        """
        ...

    def commit(self, records: Sequence[Inbound]) -> None:
        """The batch is dealt with: it need not come again. In the background, in order."""
        ...

    def give_back(self, records: Sequence[Inbound]) -> None:
        """The batch was not dealt with: it comes again, here or elsewhere."""
        ...

    def partitions(self) -> frozenset[int]:
        """The partitions of the inbox that this member holds now."""
        ...

    def joined(self) -> bool:
        """Whether the group has given this member its share, which may be no partition at all."""
        ...

    def lag(self) -> Lag:
        """How far behind it is."""
        ...

    async def stop(self) -> None:
        """Commit what was handed over, leave the group, close; within seconds, whatever the bus does."""
        ...
