"""What an operator sees of Kafka is what is there, on a real broker."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from tests.servers import Servers
from topics.bus import BusRefused, Inbound, Outbound
from topics.catalogue import BATCH_OCTETS_MAX, Topic
from topics.kafka import KafkaBus
from topics.kafka_admin import create_topics, lags, read_all, sender
from topics.kafka_clients import KafkaSettings, make_producer, started

pytestmark = pytest.mark.servers

PARTITIONS = 3


@pytest.fixture
def kafka(servers: Servers) -> KafkaSettings:
    return KafkaSettings(bootstrap=servers.kafka, session_timeout_s=2.0)


@pytest.fixture
async def topic(kafka: KafkaSettings) -> str:
    """A fresh one, of three partitions."""
    name = f"t-{secrets.token_hex(6)}"
    await create_topics(kafka, [Topic(name, "", PARTITIONS, 600, frozenset(), frozenset())])
    return name


async def fill(kafka: KafkaSettings, topic: str, count: int, *, octets: int = 0) -> None:
    """Records 0 to count - 1, in turn to each partition but the last."""
    async with sender(kafka) as send:
        await send(
            [
                Outbound(topic, n % (PARTITIONS - 1), b"%d" % n, b"%d" % n + bytes(octets), (("h", b"1"),))
                for n in range(count)
            ]
        )


async def all_of(kafka: KafkaSettings, topic: str) -> list[Inbound]:
    async with asyncio.timeout(60):
        return [record async for record in read_all(kafka, topic)]


async def shorten(kafka: KafkaSettings, topic: str, partition: int, first: int) -> None:
    """Have the broker forget what is before an offset, as it does by age."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    async with started(kafka, admin):
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(first)})


async def test_read_all_has_each_record_once_and_ends(kafka: KafkaSettings, topic: str) -> None:
    assert await all_of(kafka, topic) == []
    await fill(kafka, topic, 3000, octets=1000)
    found = await all_of(kafka, topic)
    assert len(found) == 3000
    for partition in range(PARTITIONS - 1):
        mine = [record for record in found if record.partition == partition]
        assert [record.offset for record in mine] == list(range(1500))
        assert [record.key for record in mine] == [b"%d" % (2 * n + partition) for n in range(1500)]
    assert all(record.headers == (("h", b"1"),) for record in found)
    assert all(record.timestamp_ms > 1_600_000_000_000 for record in found)


async def test_read_all_stops_where_the_end_was(kafka: KafkaSettings, topic: str) -> None:
    await fill(kafka, topic, 1000, octets=7000)  # more than is fetched ahead
    found: list[Inbound] = []
    async with asyncio.timeout(60):
        async for record in read_all(kafka, topic):
            if not found:
                await fill(kafka, topic, 1000)
            found.append(record)
    assert len(found) == 1000


async def test_read_all_of_what_is_left(kafka: KafkaSettings, topic: str) -> None:
    await fill(kafka, topic, 10)
    await shorten(kafka, topic, 0, 5)
    await shorten(kafka, topic, 1, 2)
    assert [record.key for record in await all_of(kafka, topic)] == [b"5", b"7", b"9"]


async def test_read_all_of_no_topic(kafka: KafkaSettings, topic: str) -> None:
    with pytest.raises(BusRefused, match=f"{topic}-not"):
        await all_of(kafka, f"{topic}-not")


async def test_what_the_broker_does_not_take_is_not_taken_for_sent(kafka: KafkaSettings, topic: str) -> None:
    async with sender(kafka) as send:
        with pytest.raises(BusRefused):
            await send([Outbound(topic, 0, b"k", bytes(2 * BATCH_OCTETS_MAX))])
    assert await all_of(kafka, topic) == []


async def test_sending_to_no_topic_says_which(kafka: KafkaSettings, topic: str) -> None:
    async with sender(kafka) as send:
        with pytest.raises(BusRefused, match=f"no topic {topic}-not: create it"):
            await send([Outbound(topic, 0, b"k", b"v"), Outbound(f"{topic}-not", 0, b"k", b"v")])


async def test_a_header_without_a_value_is_read_as_an_empty_one(kafka: KafkaSettings, topic: str) -> None:
    """Kafka allows it, and a dead letter has to hold it."""
    async with started(kafka, make_producer(kafka)) as producer:
        await producer.send_and_wait(topic, b"v", key=b"k", partition=0, headers=[("h", None)])
    [record] = await all_of(kafka, topic)
    assert record.headers == (("h", b""),)


async def test_lag_is_what_a_group_has_yet_to_take(kafka: KafkaSettings, topic: str) -> None:
    await fill(kafka, topic, 10)
    bus = KafkaBus(kafka, f"g-{topic}", topic)
    await bus.start()
    taken: list[Inbound] = []
    async with asyncio.timeout(30):
        while len(taken) < 10:
            batch = await bus.receive(200, 0.2)
            taken += batch
            bus.commit(batch)
    await bus.stop()
    await fill(kafka, topic, 4)

    readers = [(f"g-{topic}", topic), (f"nobody-{topic}", topic)]
    found = {(one.group, one.partition): one for one in await lags(kafka, readers)}
    assert len(found) == 2 * PARTITIONS
    here = [found[f"g-{topic}", partition] for partition in range(PARTITIONS)]
    assert [(one.committed, one.end, one.lag) for one in here] == [(5, 7, 2), (5, 7, 2), (None, 0, 0)]
    nobody = [found[f"nobody-{topic}", partition] for partition in range(PARTITIONS)]
    assert [(one.committed, one.first, one.lag) for one in nobody] == [
        (None, 0, 7),
        (None, 0, 7),
        (None, 0, 0),
    ]

    await shorten(kafka, topic, 0, 6)
    found = {(one.group, one.partition): one for one in await lags(kafka, readers)}
    assert found[f"g-{topic}", 0].lag == 1, "what is gone nobody will take"
    assert found[f"nobody-{topic}", 0].lag == 1


async def test_lag_in_no_topic(kafka: KafkaSettings, topic: str) -> None:
    with pytest.raises(BusRefused, match=f"{topic}-not"):
        await lags(kafka, [("g", topic), ("g", f"{topic}-not")])
