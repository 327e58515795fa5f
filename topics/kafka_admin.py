"""What an operator does with topics on Kafka: create them from the catalogue, list them, look into them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from topics.bus import BusRefused, Inbound
from topics.catalogue import Topic
from topics.kafka import KafkaSettings, inbound, make_consumer, started, translated

_RECORD_OVERHEAD_OCTETS: Final = 1_024  # of a batch around one record, its key included
_EXISTS: Final = kafka_errors.TopicAlreadyExistsError.errno


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker has it."""

    name: str
    partitions: int
    records: int  # first to last offset, summed over the partitions


async def create_topics(
    settings: KafkaSettings, topics: Sequence[Topic], *, replication: int = 1
) -> tuple[str, ...]:
    """The names of those that were created; one that exists is left as it is.

    Raises BusUnavailable, BusRefused.
    """
    wanted = [
        NewTopic(
            topic.name,
            topic.partitions,
            replication,
            topic_configs={
                "retention.ms": str(1000 * topic.retention_s),
                "max.message.bytes": str(topic.octets_max + _RECORD_OVERHEAD_OCTETS),
            },
        )
        for topic in topics
    ]
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap, client_id=settings.client_id)
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
    partitions = await _partitions(settings)
    missing = [name for name in topics if name not in partitions]
    if missing:
        raise BusRefused(f"no topic {', '.join(missing)}: create it with `otway topics create`")
    places = [place for name in topics for place in partitions[name]]
    async with started(settings, make_consumer(settings)) as consumer:
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                consumer.assign(places)
                if not from_beginning:
                    await consumer.seek_to_end(*places)
                for place in places:
                    await consumer.position(place)
        yield _records(settings, consumer)


async def _records(settings: KafkaSettings, consumer: AIOKafkaConsumer) -> AsyncIterator[Inbound]:
    while True:
        with translated(settings):
            record = await consumer.getone()
        yield inbound(record)


async def _partitions(settings: KafkaSettings) -> dict[str, list[TopicPartition]]:
    """Of every topic, by its name."""
    client = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap, client_id=settings.client_id)
    async with started(settings, client):
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                described = await client.describe_topics()
    return {
        topic["topic"]: [TopicPartition(topic["topic"], each["partition"]) for each in topic["partitions"]]
        for topic in described
    }
