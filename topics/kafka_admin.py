"""What an operator does with topics on Kafka: create and list them, look into them, send to them, and see how
far their readers are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from topics.bus import BusRefused, Inbound, Outbound
from topics.catalogue import Topic
from topics.kafka_clients import KafkaSettings, make_consumer, make_producer, started, translated
from topics.kafka_reading import next_records

_RECORD_OVERHEAD_OCTETS: Final = 1_024  # of a batch around one record, its key included
_EXISTS: Final = kafka_errors.TopicAlreadyExistsError.errno
_FOLLOW_S: Final = 1.0  # a follower asks again after so long without anything
_ASK_AGAIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker has it."""

    name: str
    partitions: int
    records: int  # first to last offset, summed over the partitions


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a consumer group is in one partition."""

    group: str
    topic: str
    partition: int
    first: int  # offset of the oldest record that is still there
    committed: int | None  # of the one that the group takes next; None: it has never committed
    end: int  # of the one that will be written next

    @property
    def lag(self) -> int:
        """Records that the group has yet to take; without a commit it begins with the oldest."""
        return max(0, self.end - max(self.first, self.committed or 0))


def topic_settings(topic: Topic) -> dict[str, str]:
    """The broker's settings of a topic."""
    return {
        "retention.ms": str(1000 * topic.retention_s),
        "max.message.bytes": str(topic.octets_max + _RECORD_OVERHEAD_OCTETS),
        "cleanup.policy": "compact,delete" if topic.latest_only else "delete",
        "compression.type": "uncompressed",  # the broker unpacks: its limits count real octets
    }


async def create_topics(
    settings: KafkaSettings, topics: Sequence[Topic], *, replication: int = 1
) -> tuple[str, ...]:
    """The names of those that were created; one that exists is left as it is. Returns when brokers show them.

    Raises BusUnavailable, BusRefused.
    """
    wanted = [
        NewTopic(
            topic.name,
            topic.partitions,
            replication,
            topic_configs=topic_settings(topic),
        )
        for topic in topics
    ]
    client = AIOKafkaAdminClient(**settings.client)
    async with started(settings, client):
        with translated(settings):
            async with asyncio.timeout(4 * settings.deadline_s):
                answer: Any = await client.create_topics(wanted)
    created = []
    for name, code, *_ in answer.topic_errors:
        if code == 0:
            created.append(name)
        elif code != _EXISTS:
            raise BusRefused(f"{name}: {kafka_errors.for_code(code).__name__}")
    with translated(settings):
        async with asyncio.timeout(settings.deadline_s):
            while not set(created) <= (await _partitions(settings)).keys():  # noqa: ASYNC110
                await asyncio.sleep(_ASK_AGAIN_S)  # a broker tells nobody when it has heard of a topic
    return tuple(created)


async def list_topics(settings: KafkaSettings, prefix: str = "ims.") -> tuple[TopicState, ...]:
    """The topics whose names begin so. Raises BusUnavailable, BusRefused."""
    partitions = await _partitions(settings)
    found = []
    async with started(settings, make_consumer(settings)) as consumer:
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                for name, places in sorted(partitions.items()):
                    if name.startswith(prefix):
                        first = await consumer.beginning_offsets(places)
                        last = await consumer.end_offsets(places)
                        records = sum(last[place] - first[place] for place in places)
                        found.append(TopicState(name, len(places), records))
    return tuple(found)


@asynccontextmanager
async def tail(
    settings: KafkaSettings, topics: Sequence[str], *, from_beginning: bool = False
) -> AsyncIterator[AsyncIterator[Inbound]]:
    """Records of these topics as they come, for ever; none after the context was entered is missed.

    Raises BusUnavailable, BusRefused, also while it is read.
    """
    by_topic = await _places(settings, topics)
    places = [place for name in topics for place in by_topic[name]]
    async with started(settings, make_consumer(settings)) as consumer:
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                consumer.assign(places)
                if not from_beginning:
                    await consumer.seek_to_end(*places)
                for place in places:
                    await consumer.position(place)
        yield _records(settings, consumer)


async def read_all(settings: KafkaSettings, topic: str) -> AsyncIterator[Inbound]:
    """All records that a topic has when it is asked; those of one partition in their order.

    Raises BusUnavailable, BusRefused, also while it is read.
    """
    places = (await _places(settings, [topic]))[topic]
    async with started(settings, make_consumer(settings)) as consumer:
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                first = await consumer.beginning_offsets(places)
                ends = await consumer.end_offsets(places)
        left = {place for place in places if first[place] < ends[place]}
        if left:
            consumer.assign(left)
        while left:
            for record in await _more(settings, consumer, left):
                if record.offset < ends[TopicPartition(record.topic, record.partition)]:
                    yield record
            left = {place for place in left if await consumer.position(place) < ends[place]}


@asynccontextmanager
async def sender(
    settings: KafkaSettings,
) -> AsyncIterator[Callable[[Sequence[Outbound]], Awaitable[None]]]:
    """Gives a function that sends records to partitions that exist, and returns when all are acknowledged.

    Raises BusUnavailable, BusRefused, also when the function is called: some may have been written then.
    """
    async with started(settings, make_producer(settings)) as producer:

        async def send(records: Sequence[Outbound]) -> None:
            with translated(settings):
                async with asyncio.timeout(settings.deadline_s):
                    await asyncio.gather(*[await _sent(producer, record) for record in records])

        yield send


async def lags(
    settings: KafkaSettings, groups_and_topics: Sequence[tuple[str, str]]
) -> tuple[PartitionLag, ...]:
    """How far each group is in each partition of its topic. Raises BusUnavailable, BusRefused."""
    read = await _places(settings, {topic for _, topic in groups_and_topics})
    places = [place for each in read.values() for place in each]
    admin = AIOKafkaAdminClient(**settings.client)
    async with started(settings, make_consumer(settings)) as consumer, started(settings, admin):
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                committed = await asyncio.gather(
                    *(_committed(admin, group, read[topic]) for group, topic in groups_and_topics)
                )
                first = await consumer.beginning_offsets(places)
                ends = await consumer.end_offsets(places)  # last: no lag is too small
    return tuple(
        PartitionLag(group, topic, place.partition, first[place], offsets[place], ends[place])
        for (group, topic), offsets in zip(groups_and_topics, committed, strict=True)
        for place in read[topic]
    )


async def _sent(producer: AIOKafkaProducer, record: Outbound) -> Awaitable[Any]:
    """Its acknowledgement. Raises BusRefused, KafkaError."""
    try:
        acknowledgement: Awaitable[Any] = await producer.send(
            record.topic, record.value, record.key, record.partition, headers=list(record.headers)
        )
    except kafka_errors.UnknownTopicOrPartitionError:
        raise _missing([record.topic]) from None
    return acknowledgement


async def _more(
    settings: KafkaSettings, consumer: AIOKafkaConsumer, places: Collection[TopicPartition]
) -> list[Inbound]:
    """What comes next of these partitions; nothing where what was there is gone."""
    with translated(settings):
        async with asyncio.timeout(settings.deadline_s):
            before = [await consumer.position(place) for place in places]
            while True:
                found = await next_records(consumer, *places, wait_s=_ASK_AGAIN_S)
                if found or before != [await consumer.position(place) for place in places]:
                    return found


async def _committed(
    admin: AIOKafkaAdminClient, group: str, places: Sequence[TopicPartition]
) -> dict[TopicPartition, int | None]:
    """The offset that a group has committed in each partition; asks until there is an answer.

    Raises KafkaError.
    """
    while True:
        try:
            found = await admin.list_consumer_group_offsets(group, partitions=list(places))
        except kafka_errors.KafkaError as error:  # a broker that is new to its groups looks for them first
            if not error.retriable:
                raise
            found = {}
        if found.keys() >= set(places):  # an error of the whole group looks like no partitions at all
            return {place: None if found[place].offset < 0 else found[place].offset for place in places}
        await asyncio.sleep(_ASK_AGAIN_S)


async def _records(settings: KafkaSettings, consumer: AIOKafkaConsumer) -> AsyncIterator[Inbound]:
    while True:
        with translated(settings):
            records = await next_records(consumer, wait_s=_FOLLOW_S)
        for record in records:
            yield record


async def _partitions(settings: KafkaSettings) -> dict[str, list[TopicPartition]]:
    """Of every topic, by its name."""
    client = AIOKafkaAdminClient(**settings.client)
    async with started(settings, client):
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                described = await client.describe_topics()
    return {
        topic["topic"]: [TopicPartition(topic["topic"], each["partition"]) for each in topic["partitions"]]
        for topic in described
    }


async def _places(settings: KafkaSettings, topics: Collection[str]) -> dict[str, list[TopicPartition]]:
    """All partitions of these topics, by topic. Raises BusUnavailable, BusRefused."""
    found = await _partitions(settings)
    missing = [name for name in topics if name not in found]
    if missing:
        raise _missing(missing)
    return {name: found[name] for name in topics}


def _missing(topics: Sequence[str]) -> BusRefused:
    return BusRefused(f"no topic {', '.join(topics)}: create it with `otway topics create`")
