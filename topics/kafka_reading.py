"""Records out of aiokafka, those included that it cannot read.

A record whose header has a name that is no UTF-8, or a batch that is packed in a way that aiokafka does not
know, makes it raise, at each attempt anew, and whoever may write to an inbox can send one. It is passed over
one offset at a time: what aiokafka will not show becomes an Inbound that says so, which a loop buries like
anything malformed. What aiokafka has taken from other partitions when it raises is lost, so all positions are
put back first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors

from topics.bus import Inbound

_UNREADABLE: Final = (  # the second is what its parser in C raises for the first
    kafka_errors.CorruptRecordException,
    ValueError,
    kafka_errors.UnsupportedCodecError,
)
_LOOK_S: Final = 0.5  # for what is there already: a broker answers in a hundredth of it
_PASS_S: Final = 0.2  # so long one partition may hold up the others at a time


async def next_records(
    consumer: AIOKafkaConsumer, *places: TopicPartition, wait_s: float, limit: int | None = None
) -> list[Inbound]:
    """The next records of these partitions, or of all that the consumer holds; none after `wait_s` in vain.

    Raises KafkaError.
    """
    before = await _positions(consumer, places or consumer.assignment())
    try:
        return await _taken(consumer, *places, wait_s=wait_s, limit=limit)
    except _UNREADABLE:
        await _put_back(consumer, before)
    found: list[Inbound] = []
    for where, position in (await _positions(consumer, places or consumer.assignment())).items():
        left = None if limit is None else limit - len(found)
        if left == 0:
            break
        try:
            if where in consumer.assignment() and position < (consumer.highwater(where) or 0):
                found += await _in_turn(consumer, where, position, left)
        except kafka_errors.KafkaError:  # such as a partition that was taken away
            if not found:
                raise
    return found


async def _in_turn(
    consumer: AIOKafkaConsumer, where: TopicPartition, position: int, limit: int | None
) -> list[Inbound]:
    """The next records of one partition: together, or one by one where that cannot be."""
    try:
        return await _taken(consumer, where, wait_s=_LOOK_S, limit=limit)
    except _UNREADABLE:
        consumer.seek(where, position)
        return await _one_by_one(consumer, where, limit)


async def _one_by_one(consumer: AIOKafkaConsumer, where: TopicPartition, limit: int | None) -> list[Inbound]:
    """The next records of one partition, readable or not, for a short time."""
    found: list[Inbound] = []
    until = asyncio.get_running_loop().time() + _PASS_S
    while not found or (asyncio.get_running_loop().time() < until and len(found) != limit):
        try:
            one = await _taken(consumer, where, wait_s=_LOOK_S, limit=1)
        except _UNREADABLE as error:
            offset = await consumer.position(where)
            consumer.seek(where, offset + 1)
            problem = f"Kafka's client cannot read it: {error}"
            one = [Inbound(where.topic, where.partition, offset, None, None, unreadable=problem)]
        except kafka_errors.KafkaError:
            if not found:
                raise
            one = []
        if not one:
            break
        found += one
    return found


async def _taken(
    consumer: AIOKafkaConsumer, *places: TopicPartition, wait_s: float, limit: int | None
) -> list[Inbound]:
    found = await consumer.getmany(*places, timeout_ms=round(1000 * wait_s), max_records=limit)
    return [inbound(record) for batch in found.values() for record in batch]


async def _positions(
    consumer: AIOKafkaConsumer, places: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where each of them goes on; without those that are taken away meanwhile."""
    found = {}
    for where in places:
        with suppress(kafka_errors.IllegalStateError):
            found[where] = await consumer.position(where)
    return found


async def _put_back(consumer: AIOKafkaConsumer, positions: dict[TopicPartition, int]) -> None:
    """As if nothing had been taken. What the group has given meanwhile begins where it was committed; where
    that cannot be learned, with all that is there: rather twice than not at all."""
    for where, position in positions.items():
        with suppress(kafka_errors.IllegalStateError):  # it was taken away
            consumer.seek(where, position)
    for where in consumer.assignment() - positions.keys():
        committed = None
        with suppress(kafka_errors.KafkaError):
            committed = await consumer.committed(where)
        with suppress(kafka_errors.IllegalStateError):
            consumer.seek(where, committed or 0)


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
