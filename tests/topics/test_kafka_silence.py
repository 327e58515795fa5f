"""A broker that says nothing: the bus knows for how long, waits for nothing without limit, and comes back."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.agents.test_leaving import paused
from tests.servers import Servers
from tests.topics.bus_contract import PARTITIONS, receive, record, until_held
from tests.topics.test_kafka_bus import KafkaTown
from topics.bus import BusUnavailable
from topics.kafka import KafkaBus
from topics.kafka_clients import KafkaSettings

pytestmark = pytest.mark.servers


async def test_silence_is_measured_and_ends(servers: Servers) -> None:
    town = KafkaTown(KafkaSettings(bootstrap=servers.kafka, session_timeout_s=6.0, deadline_s=1.0))
    await town.start()
    bus = await town.join("g")
    await until_held([bus], [PARTITIONS])
    assert bus.lag().silent_s < 2
    async with paused(servers, "kafka-1"):
        began = time.monotonic()
        while bus.lag().silent_s < 3:
            assert list(await bus.receive(10, 0.1)) == [], "it returns though nobody answers"
            assert time.monotonic() - began < 10
        assert time.monotonic() - began > 1.5
        with pytest.raises(BusUnavailable):
            await bus.send([record(town, 0, b"lost, or not")])
    async with asyncio.timeout(30):
        while bus.lag().silent_s > 1:
            bus.give_back(await bus.receive(10, 0.1))
    await bus.send([record(town, 1, b"after")])
    async with asyncio.timeout(30):
        seen: set[bytes | None] = set()
        while b"after" not in seen:
            seen |= {each.value for each in await receive(bus, 1, limit=1)}
    await town.stop()


async def test_a_member_that_the_group_keeps_waiting_still_turns(servers: Servers) -> None:
    """A rebalance takes as long as its slowest member; meanwhile aiokafka's fetch returns nothing at all."""
    town = KafkaTown(KafkaSettings(bootstrap=servers.kafka, session_timeout_s=6.0))
    await town.start()
    slow = await town.join("g")
    await until_held([slow], [PARTITIONS])
    await slow.send([record(town, 0, b"x")])
    async with asyncio.timeout(30):
        while not (batch := await slow.receive(1, 0.1)):
            pass
    joining = KafkaBus(town.settings, f"{town.topic}-g", town.topic)  # waits until `slow` has done its batch
    await joining.start()
    town.joined.append(joining)
    began = time.monotonic()
    turns = 0
    while time.monotonic() - began < 2:
        assert list(await joining.receive(10, 0.1)) == []
        turns += 1
    assert turns >= 8
    assert not joining.joined()
    assert joining.partitions() == frozenset()
    slow.commit(batch)
    await until_held([slow, joining], [PARTITIONS // 2] * 2)
    await town.stop()


async def test_what_is_sent_after_leaving_arrives_and_leaves_nothing_open(servers: Servers) -> None:
    town = KafkaTown(KafkaSettings(bootstrap=servers.kafka))
    await town.start()
    bus = await town.join("g")
    await until_held([bus], [PARTITIONS])
    await bus.stop()
    await bus.send([record(town, 0, b"x")])
    await bus.stop()
    assert [each.value for each in await receive(await town.join("g"), 1)] == [b"x"]
    await town.stop()
