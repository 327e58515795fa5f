"""A bus in this process: the demo's and the simulator's. It keeps the rules of `topics/bus.py`.

With `wait_s` 0 no method waits for anything: a coroutine of this bus runs to its end at the first step, so
that the simulator can drive it by hand.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from topics.bus import BusRefused, Inbound, Lag, NoSuchTopic, Outbound
from topics.catalogue import Topic


@dataclass(slots=True)
class _Group:
    """One consumer group on one topic: how far it has committed, and who holds what."""

    committed: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    members: list[MemoryBus] = field(default_factory=list)


class MemoryBroker:
    """Topics with partitions, append-only logs and consumer groups."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._logs: dict[tuple[str, int], list[Inbound]] = {
            (topic.name, partition): []
            for topic in self._topics.values()
            for partition in range(topic.partitions)
        }
        self._groups: dict[tuple[str, str], _Group] = defaultdict(_Group)
        self.on_append: list[Callable[[Inbound], None]] = []

    def takes(self, topic: str, partition: int) -> bool:
        """Whether there is such a partition."""
        return (topic, partition) in self._logs

    def append(self, record: Outbound) -> None:
        """Write one record. Raises NoSuchTopic, and BusRefused when the record is too large."""
        if not self.takes(record.topic, record.partition):
            raise NoSuchTopic(f"{record.topic}/{record.partition}")
        topic, log = self._topics[record.topic], self._logs[record.topic, record.partition]
        if record.value is not None and len(record.value) > topic.octets_max:
            raise BusRefused(f"{record.topic}: {len(record.value)} octets, at most {topic.octets_max}")
        inbound = Inbound(record.topic, record.partition, len(log), record.key, record.value, record.headers)
        log.append(inbound)
        for told in self.on_append:
            told(inbound)
        for (_, name), group in self._groups.items():
            if name == record.topic:
                for member in group.members:
                    member.wake()

    def records(self, topic: str) -> list[Inbound]:
        """All records of a topic, partition by partition."""
        return [record for (name, _), log in self._logs.items() if name == topic for record in log]

    def join(self, member: MemoryBus) -> None:
        """A member joins its group; the partitions are shared out anew."""
        group = self._groups[member.group, member.inbox]
        group.members.append(member)
        self._rebalance(member.inbox, group)

    def leave(self, member: MemoryBus) -> None:
        """A member leaves; what it held and did not commit goes to the others."""
        group = self._groups[member.group, member.inbox]
        if member in group.members:
            group.members.remove(member)
            member.hold(())
            self._rebalance(member.inbox, group)

    def has(self, member: MemoryBus) -> bool:
        """Whether it has joined and not left."""
        return member in self._groups[member.group, member.inbox].members

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The next offset of each partition for this group."""
        return self._groups[group, topic].committed

    def log(self, topic: str, partition: int) -> list[Inbound]:
        """One partition's records, by offset."""
        return self._logs[topic, partition]

    def _rebalance(self, inbox: str, group: _Group) -> None:
        for index, member in enumerate(group.members):
            member.hold(range(index, self._topics[inbox].partitions, len(group.members)))


class MemoryBus:
    """One member of a group on one inbox, with the means to send to any topic."""

    def __init__(self, broker: MemoryBroker, group: str, inbox: str) -> None:
        self.group = group
        self.inbox = inbox
        self._broker = broker
        self._held: tuple[int, ...] = ()
        self._next: dict[int, int] = {}  # of the partitions held, the offset to read next
        self._arrived = asyncio.Event()
        broker.join(self)

    async def receive(self, limit: int, wait_s: float) -> Sequence[Inbound]:
        """See Bus.receive."""
        records = self._take(limit)
        if not records and wait_s > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                return ()
            records = self._take(limit)
        return records

    async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        """See Bus.send."""
        undeliverable = []
        for record in records:
            try:
                self._broker.append(record)
            except NoSuchTopic:
                undeliverable.append(record)
        return undeliverable

    def commit(self, records: Sequence[Inbound]) -> None:
        """See Bus.commit; what was taken away meanwhile comes again to its new holder."""
        committed = self._broker.committed(self.group, self.inbox)
        for record in records:
            if record.partition in self._next:
                committed[record.partition] = max(committed[record.partition], record.offset + 1)

    def give_back(self, records: Sequence[Inbound]) -> None:
        """See Bus.give_back."""
        for record in records:
            if record.partition in self._next:
                self._next[record.partition] = min(self._next[record.partition], record.offset)
        self.wake()

    def partitions(self) -> frozenset[int]:
        """See Bus.partitions."""
        return frozenset(self._held)

    def joined(self) -> bool:
        """See Bus.joined."""
        return self._broker.has(self)

    def lag(self) -> Lag:
        """See Bus.lag; a bus in this process is never silent."""
        committed = self._broker.committed(self.group, self.inbox)
        return Lag(sum(len(self._broker.log(self.inbox, p)) - committed[p] for p in self._held), 0.0)

    async def stop(self) -> None:
        """See Bus.stop."""
        self.abandon()

    def abandon(self) -> None:
        """Leave as a crash does: what was not committed comes again elsewhere."""
        self._broker.leave(self)

    def hold(self, partitions: Iterable[int]) -> None:
        """The group's assignment: what is kept goes on, what is new starts where it was committed."""
        committed = self._broker.committed(self.group, self.inbox)
        self._held = tuple(partitions)
        self._next = {p: self._next.get(p, committed[p]) for p in self._held}
        self.wake()

    def wake(self) -> None:
        """Something may have arrived."""
        self._arrived.set()

    def _take(self, limit: int) -> list[Inbound]:
        taken: list[Inbound] = []
        for partition in self._held:
            start = self._next[partition]
            records = self._broker.log(self.inbox, partition)[start : start + limit - len(taken)]
            self._next[partition] = start + len(records)
            taken += records
        return taken
