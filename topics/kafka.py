"""The bus on Apache Kafka, by aiokafka. It keeps the rules of `topics/bus.py`.

Records are sent as batches that are built for each partition, which costs half of sending one by one.
Offsets are committed in the background, since an awaited commit takes 5 ms and more on a broker with default
settings.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors as kafka_errors

from topics.bus import BusRefused, BusUnavailable, Inbound, Lag, Outbound
from topics.kafka_clients import KafkaSettings, make_consumer, make_producer, stopped, translated
from topics.kafka_reading import next_records

log = structlog.get_logger()

_COMMIT_EVERY_S: Final = 0.1  # each costs three brokers a write; so much work comes again after a crash
_NEW_TOPICS_S: Final = 1.0  # so long a new topic may be taken for one that does not exist
_FETCH_S: Final = 0.1  # a fetch takes longer only while the group is shared out anew, and then without limit


class _Member(ConsumerRebalanceListener):  # type: ignore[misc]
    """Told by aiokafka when the group is shared out anew."""

    def __init__(self, bus: KafkaBus) -> None:
        self._bus = bus

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  (aiokafka awaits it)
        self, revoked: Collection[TopicPartition]
    ) -> None:
        """Before anybody else gets them."""
        await self._bus.share_taken(some=bool(revoked))

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """From here on they are ours."""
        self._bus.share_given()
        log.info("partitions", held=sorted(partition.partition for partition in assigned))


@dataclass(slots=True, eq=False)
class _Producer:
    """A producer, and how many sends are under way with it."""

    client: AIOKafkaProducer
    sends: int = 0


class KafkaBus:
    """One member of a group on one inbox, with the means to send to any topic."""

    def __init__(self, settings: KafkaSettings, group: str, inbox: str) -> None:
        """Nothing is connected before `start`."""
        self._settings = settings
        self._inbox = inbox
        self._group = group
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: _Producer | None = None
        self._connecting = asyncio.Lock()  # one new producer at a time
        self._retired: set[asyncio.Task[None]] = set()  # producers on their way out
        self._topics: set[str] = set()  # that exist
        self._ask_again_at = 0.0
        self._fetching: asyncio.Task[list[Inbound]] | None = None  # under way since a receive
        self._idle = asyncio.Event()  # no batch is with the loop
        self._idle.set()
        self._dealt_with: dict[TopicPartition, int] = {}  # the next offset of each, not committed yet
        self._reached: dict[TopicPartition, int] = {}  # the next offset to deal with, where it is known
        self._share_given_at: float | None = None  # seconds since 1970 UTC; None: the group has given none
        self._to_commit = asyncio.Event()
        self._committing = asyncio.Lock()
        self._committer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Join the group. Raises BusUnavailable, BusRefused."""
        consumer = make_consumer(self._settings, group=self._group)
        try:
            with translated(self._settings):
                async with asyncio.timeout(self._settings.deadline_s):
                    await consumer.start()
                    self._topics = await consumer.topics()
                    if self._inbox not in self._topics:
                        raise BusRefused(f"no topic {self._inbox}: create it with `otway topics create`")
                self._producer = await self._new_producer()
        except BaseException:
            await stopped(consumer, self._settings.deadline_s)
            raise
        consumer.subscribe([self._inbox], listener=_Member(self))
        self._consumer = consumer
        self._committer = asyncio.create_task(self._keep_committing())

    async def receive(self, limit: int, wait_s: float) -> Sequence[Inbound]:
        """See Bus.receive."""
        assert self._consumer is not None
        assert self._idle.is_set()
        with translated(self._settings):
            if self._fetching is None:
                for where in self._consumer.assignment():
                    if self._consumer.highwater(where) is not None:  # it has a position: this asks nobody
                        self._reached[where] = await self._consumer.position(where)
                self._fetching = asyncio.create_task(next_records(self._consumer, wait_s=wait_s, limit=limit))
            await asyncio.wait({self._fetching}, timeout=wait_s + _FETCH_S)
            if not self._fetching.done():
                return ()
            fetching, self._fetching = self._fetching, None
            records = fetching.result()
        for record in records:
            self._reached.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        if records:
            self._idle.clear()
        return records

    async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        """See Bus.send."""
        if not records:
            return ()
        producer: _Producer | None = None
        try:
            with translated(self._settings):
                async with asyncio.timeout(self._settings.deadline_s):
                    producer = await self._producer_to_use()
                    return await self._send(producer.client, records)
        except (BusUnavailable, BusRefused):
            if producer is self._producer:
                self._producer = None  # a failed batch leaves a gap in its numbers
            raise
        finally:
            if producer is not None:
                producer.sends -= 1
                self._retire(producer)

    def commit(self, records: Sequence[Inbound]) -> None:
        """See Bus.commit."""
        for record in records:
            where = TopicPartition(record.topic, record.partition)
            self._dealt_with[where] = max(record.offset + 1, self._dealt_with.get(where, 0))
            self._reached[where] = self._dealt_with[where]
        self._idle.set()
        if records:
            self._to_commit.set()

    def give_back(self, records: Sequence[Inbound]) -> None:
        """See Bus.give_back."""
        assert self._consumer is not None
        first: dict[TopicPartition, int] = {}
        for record in records:
            where = TopicPartition(record.topic, record.partition)
            first[where] = min(record.offset, first.get(where, record.offset))
        for where, offset in first.items():
            with suppress(kafka_errors.IllegalStateError):  # no longer ours: it comes again elsewhere
                self._consumer.seek(where, offset)
        self._idle.set()

    def partitions(self) -> frozenset[int]:
        """See Bus.partitions."""
        assert self._consumer is not None
        if not self.joined():
            return frozenset()
        return frozenset(where.partition for where in self._consumer.assignment())

    def joined(self) -> bool:
        """See Bus.joined."""
        return self._share_given_at is not None

    def lag(self) -> Lag:
        """See Bus.lag. It is as fresh as the broker's last answer, which comes twice a second at least."""
        assert self._consumer is not None
        now, records, silent_s = time.time(), 0, 0.0
        for where in self._consumer.assignment():
            there, heard_ms = self._consumer.highwater(where), self._consumer.last_poll_timestamp(where)
            behind = 0 if there is None else max(0, there - self._reached.get(where, there))
            records += behind
            if not behind:  # else aiokafka holds records that nobody has taken, and asks for no more
                heard = (self._share_given_at or now) if heard_ms is None else heard_ms / 1000
                silent_s = max(silent_s, now - heard)
        return Lag(records, silent_s)

    async def share_taken(self, *, some: bool) -> None:
        """The group is shared out anew. some: this member had partitions, which go when this returns."""
        self._share_given_at = None
        if some:
            await self._drain(self._settings.deadline_s)

    def share_given(self) -> None:
        """This member has its partitions, or knows that there are none for it."""
        self._share_given_at = time.time()
        self._reached.clear()

    async def stop(self) -> None:
        """See Bus.stop. What is sent afterwards connects once more, until it is stopped again."""
        half_s = self._settings.leave_s / 2
        committer, self._committer = self._committer, None
        if committer is not None:
            await self._drain(half_s)
            committer.cancel()
            with suppress(asyncio.CancelledError):
                await committer
        if self._fetching is not None:
            self._fetching.cancel()
        clients = [self._consumer, self._producer.client if self._producer is not None else None]
        self._producer = None
        await asyncio.gather(*(stopped(client, half_s) for client in clients if client is not None))
        for late in self._retired:
            late.cancel()

    async def _drain(self, within_s: float) -> None:
        """Returns when the batch under way is dealt with and committed, or after so long."""
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
                await self._commit_all()
        except TimeoutError:  # whoever gets the partitions does this batch once more
            log.warning("not drained", within_s=within_s)

    async def _send(self, producer: AIOKafkaProducer, records: Sequence[Outbound]) -> Sequence[Outbound]:
        by_partition: dict[tuple[str, int], list[Outbound]] = defaultdict(list)
        for record in records:
            by_partition[record.topic, record.partition].append(record)
        known = await self._known({topic for topic, _ in by_partition})
        acknowledgements, undeliverable = [], []
        for (topic, partition), batch in by_partition.items():
            if topic not in known or partition not in await self._partitions_of(topic, producer):
                undeliverable += batch
                continue
            for built in _built(producer, batch):
                acknowledgements.append(  # noqa: PERF401  (an async comprehension would hide the order)
                    await producer.send_batch(built, topic, partition=partition)
                )
        await asyncio.gather(*acknowledgements)
        return undeliverable

    async def _known(self, topics: set[str]) -> set[str]:
        """Those that exist. A new name costs the broker a question, and all new names of a second just one:
        the producer itself would wait for each of them until its request times out."""
        assert self._consumer is not None
        now = asyncio.get_running_loop().time()
        if topics - self._topics and now >= self._ask_again_at:
            self._topics = await self._consumer.topics()
            self._ask_again_at = now + _NEW_TOPICS_S
        return topics & self._topics

    async def _partitions_of(self, topic: str, producer: AIOKafkaProducer) -> Collection[int]:
        """Of a topic that was there; none when it has gone. Raises aiokafka's errors."""
        assert self._consumer is not None
        try:
            partitions: Collection[int] = await producer.partitions_for(topic)
        except kafka_errors.UnknownTopicOrPartitionError:  # which it also says when no broker answers
            self._topics = await self._consumer.topics()
            if topic in self._topics:
                raise kafka_errors.LeaderNotAvailableError(topic) from None
            return ()
        return partitions

    async def _producer_to_use(self) -> _Producer:
        """The producer, or a new one in place of one that failed. Counts one send more."""
        async with self._connecting:
            if self._producer is None:
                self._producer = await self._new_producer()
            self._producer.sends += 1
            return self._producer

    async def _new_producer(self) -> _Producer:
        client = make_producer(self._settings)
        try:
            await client.start()
        except BaseException:
            await stopped(client, self._settings.deadline_s)
            raise
        return _Producer(client)

    def _retire(self, producer: _Producer) -> None:
        """End a producer that failed, once no other send is under way with it. Nobody waits for that: it has
        records for a broker that does not answer, and ends when there is an answer."""
        if producer is self._producer or producer.sends:
            return

        async def ended() -> None:
            with suppress(kafka_errors.KafkaError):
                await producer.client.stop()

        ending = asyncio.create_task(ended())
        self._retired.add(ending)
        ending.add_done_callback(self._retired.discard)

    async def _keep_committing(self) -> None:
        while True:
            await self._to_commit.wait()
            await self._commit_all()
            await asyncio.sleep(_COMMIT_EVERY_S)

    async def _commit_all(self) -> None:
        """Commit what was dealt with so far."""
        assert self._consumer is not None
        async with self._committing:
            self._to_commit.clear()
            held = self._consumer.assignment()
            offsets = {where: offset for where, offset in self._dealt_with.items() if where in held}
            self._dealt_with.clear()
            if not offsets:
                return
            try:
                await self._consumer.commit(offsets)
            except (kafka_errors.CommitFailedError, kafka_errors.IllegalStateError) as error:
                log.info("not committed: it comes again elsewhere", why=str(error))
            except kafka_errors.KafkaError as error:  # the group's broker is away: they are committed later
                log.warning("not committed", why=str(error))
                for where, offset in offsets.items():
                    self._dealt_with[where] = max(offset, self._dealt_with.get(where, 0))
                self._to_commit.set()


def _built(producer: AIOKafkaProducer, records: Iterable[Outbound]) -> Iterator[Any]:
    """The records of one partition as full batches, in their order. Raises RecordTooLargeError."""
    batch = producer.create_batch()
    for record in records:
        fields = {
            "timestamp": None,
            "key": record.key,
            "value": record.value,
            "headers": list(record.headers),
        }
        if batch.append(**fields) is None:  # full
            yield batch
            batch = producer.create_batch()
            if batch.append(**fields) is None:
                raise kafka_errors.RecordTooLargeError(f"{len(record.value or b'')} octets")
    yield batch
