"""A record that aiokafka itself cannot read stops nobody: it is passed over, and its place is known."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from aiokafka.record.util import calc_crc32c

from tests.servers import Servers
from topics.bus import Inbound
from topics.catalogue import Topic
from topics.kafka import KafkaBus
from topics.kafka_admin import create_topics, read_all, tail
from topics.kafka_clients import KafkaSettings, make_producer, started

pytestmark = pytest.mark.servers


SPOILT = "spoilt"
PARTITIONS = 6
CHECKSUM = 17  # where a batch of format 2 has it; it covers what follows


@pytest.fixture
async def town(servers: Servers) -> tuple[KafkaSettings, str]:
    settings = KafkaSettings(bootstrap=servers.kafka, session_timeout_s=2.0)
    name = f"t-{secrets.token_hex(6)}"
    await create_topics(settings, [Topic(name, "", PARTITIONS, 60, frozenset(), frozenset())])
    return settings, name


async def send(settings: KafkaSettings, topic: str, partition: int, *values: bytes) -> None:
    """As one batch. A value that begins with `bad` has a header whose name is no UTF-8."""
    async with started(settings, make_producer(settings)) as producer:
        batch = producer.create_batch()
        for value in values:
            name = SPOILT if value.startswith(b"bad") else "x"
            batch.append(timestamp=None, key=b"k", value=value, headers=[(name, b"1")])
        build = batch._build
        batch._build = lambda: spoilt(build())  # aiokafka's own producer writes text only
        await (await producer.send_batch(batch, topic, partition=partition))


def spoilt(batch: bytearray) -> bytes:
    """The batch with other octets for the name of such headers, and a checksum that is right again."""
    octets = bytearray(batch.replace(SPOILT.encode(), b"\xff" * len(SPOILT)))
    octets[CHECKSUM : CHECKSUM + 4] = calc_crc32c(octets[CHECKSUM + 4 :]).to_bytes(4, "big")
    return bytes(octets)


async def everything(bus: KafkaBus, count: int) -> list[Inbound]:
    found: list[Inbound] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            batch = await bus.receive(200, 0.2)
            found += batch
            bus.commit(batch)
    return found


async def test_what_cannot_be_read_is_passed_over_and_told(town: tuple[KafkaSettings, str]) -> None:
    settings, topic = town
    await send(settings, topic, 0, b"one")
    await send(settings, topic, 0, b"two", b"bad three", b"four")
    await send(settings, topic, 0, b"bad five")
    await send(settings, topic, 0, b"six")
    await send(settings, topic, 1, b"other")
    bus = KafkaBus(settings, "g", topic)
    await bus.start()
    found = await everything(bus, 7)
    assert [record.value for record in found if record.partition == 1] == [b"other"]
    first = [record for record in found if record.partition == 0]
    assert [record.offset for record in first] == [0, 1, 2, 3, 4, 5]
    assert [record.value for record in first] == [b"one", b"two", None, None, None, b"six"], (
        "what follows in the batch of such a record is its sender's too, and cannot be read either"
    )
    assert [bool(record.unreadable) for record in first] == [False, False, True, True, True, False]
    await bus.stop()
    again = KafkaBus(settings, "g", topic)
    await again.start()
    await send(settings, topic, 0, b"seven")
    assert [record.value for record in await everything(again, 1)] == [b"seven"], "it was committed"
    await again.stop()


@pytest.mark.parametrize("bad", range(PARTITIONS))
async def test_what_others_have_sent_is_not_lost_by_it(town: tuple[KafkaSettings, str], bad: int) -> None:
    """aiokafka takes from one partition after the other, and forgets all of it when one raises."""
    settings, topic = town
    for partition in range(PARTITIONS):
        await send(settings, topic, partition, *[b"%d %d" % (partition, number) for number in range(3)])
    await send(settings, topic, bad, b"bad")
    for partition in range(PARTITIONS):
        await send(settings, topic, partition, *[b"%d %d" % (partition, number) for number in range(3, 6)])
    bus = KafkaBus(settings, "g", topic)
    await bus.start()
    found = await everything(bus, 6 * PARTITIONS + 1)
    values = [record.value for record in found if record.value is not None]
    assert sorted(values) == sorted(b"%d %d" % (p, n) for p in range(PARTITIONS) for n in range(6))
    [unreadable] = [record for record in found if record.unreadable]
    assert (unreadable.partition, unreadable.offset) == (bad, 3)
    await bus.stop()
    async with asyncio.timeout(30):
        read = [record.value async for record in read_all(settings, topic) if not record.unreadable]
    assert sorted(value for value in read if value is not None) == sorted(values)


async def test_an_operator_reads_past_it(town: tuple[KafkaSettings, str]) -> None:
    settings, topic = town
    await send(settings, topic, 0, b"one", b"bad two")
    await send(settings, topic, 0, b"three")
    async with asyncio.timeout(30):
        found = [record.value async for record in read_all(settings, topic)]
    assert found == [b"one", None, b"three"]
    async with asyncio.timeout(30), tail(settings, [topic], from_beginning=True) as records:
        followed = [(await anext(records)).value for _ in range(3)]
    assert followed == found
