"""Records out of aiokafka, those included that it cannot read.

A record whose header has a name that is no UTF-8 makes aiokafka raise, at each attempt anew, and whoever may
write to an inbox can send one. It is passed over one offset at a time: what aiokafka will not show becomes an
Inbound that says so, which a loop buries like anything malformed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors

from topics.bus import Inbound

_UNREADABLE: Final = (kafka_errors.CorruptRecordException, ValueError)  # of its two parsers
_LOOK_S: Final = 0.5  # for what is there already: a broker answers in a hundredth of it


async def next_records(
    consumer: AIOKafkaConsumer, *places: TopicPartition, wait_s: float, limit: int | None = None
) -> list[Inbound]:
    """The next records of these partitions, or of all that the consumer holds; none after `wait_s` in vain.

    Raises KafkaError.
    """
    try:
        found = await consumer.getmany(*places, timeout_ms=round(1000 * wait_s), max_records=limit)
    except _UNREADABLE:
        return await _one_of_each(consumer, places or tuple(consumer.assignment()))
    return [inbound(record) for batch in found.values() for record in batch]


async def _one_of_each(consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> list[Inbound]:
    """One record of each partition that has more, readable or not."""
    found: list[Inbound] = []
    for where in places:
        position = await consumer.position(where)
        if position >= (consumer.highwater(where) or 0):
            continue
        try:
            batch = await consumer.getmany(where, timeout_ms=round(1000 * _LOOK_S), max_records=1)
        except _UNREADABLE as error:
            offset = await consumer.position(where)
            consumer.seek(where, offset + 1)
            problem = f"Kafka's client cannot read it: {error}"
            found.append(Inbound(where.topic, where.partition, offset, None, None, unreadable=problem))
        else:
            found += [inbound(record) for record in batch.get(where, ())]
    return found


def inbound(record: Any) -> Inbound:  # noqa: ANN401
    """aiokafka's record as ours. A header without a value, which Kafka allows, becomes an empty one."""
    return Inbound(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        tuple((name, value or b"") for name, value in record.headers),
        record.timestamp,
    )
