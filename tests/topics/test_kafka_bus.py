"""The Kafka bus keeps the contract on a real broker, and says the right thing when there is none."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator

import pytest

from tests.servers import ROOT, Servers
from tests.topics.bus_contract import OCTETS_MAX, PARTITIONS, BusContract
from topics.bus import Bus, BusRefused, BusUnavailable, Inbound, Outbound
from topics.catalogue import Topic
from topics.kafka import KafkaBus
from topics.kafka_admin import create_topics, list_topics
from topics.kafka_clients import KafkaSettings

CASUALTY = """
import asyncio, sys
from topics.kafka import KafkaBus
from topics.kafka_clients import KafkaSettings

async def main(bootstrap, group, topic, receives):
    bus = KafkaBus(KafkaSettings(bootstrap=bootstrap, session_timeout_s=2.0), group, topic)
    await bus.start()
    taken = 0
    while taken < int(receives):
        batch = await bus.receive(int(receives) - taken, 0.2)
        taken += len(batch)
        bus._idle.set()
    print("taken", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


class KafkaTown:
    def __init__(self, settings: KafkaSettings) -> None:
        self.topic = f"t-{secrets.token_hex(6)}"
        self.settings = settings
        self.joined: list[KafkaBus] = []

    async def start(self) -> None:
        topic = Topic(self.topic, "", PARTITIONS, 60, frozenset(), frozenset(), octets_max=OCTETS_MAX)
        assert await create_topics(self.settings, [topic]) == (self.topic,)

    async def join(self, group: str) -> Bus:
        bus = KafkaBus(self.settings, f"{self.topic}-{group}", self.topic)
        await bus.start()
        self.joined.append(bus)
        return bus

    async def casualty(self, group: str, receives: int) -> None:
        """A process of its own, killed without warning."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CASUALTY, self.settings.bootstrap, f"{self.topic}-{group}", self.topic),
            str(receives),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                while (line := await process.stdout.readline()) != b"taken\n":
                    assert line, "it ended by itself"
        finally:
            process.kill()
            await process.communicate()

    async def stop(self) -> None:
        for bus in self.joined:
            bus.give_back([])
            await bus.stop()


@pytest.fixture
def kafka(servers: Servers) -> KafkaSettings:
    return KafkaSettings(bootstrap=servers.kafka, session_timeout_s=2.0)


@pytest.mark.servers
class TestKafkaBus(BusContract):
    @pytest.fixture
    async def broker(self, kafka: KafkaSettings) -> AsyncIterator[KafkaTown]:
        town = KafkaTown(kafka)
        await town.start()
        yield town
        await town.stop()

    async def test_a_topic_that_exists_is_left_as_it_is(self, broker: KafkaTown) -> None:
        other = Topic(broker.topic, "", PARTITIONS + 1, 60, frozenset(), frozenset())
        assert await create_topics(broker.settings, [other]) == ()
        [state] = await list_topics(broker.settings, broker.topic)
        assert (state.name, state.partitions, state.records) == (broker.topic, PARTITIONS, 0)

    async def test_an_inbox_that_is_not_there(self, kafka: KafkaSettings) -> None:
        with pytest.raises(BusRefused, match="otway topics create"):
            await KafkaBus(kafka, "g", f"t-{secrets.token_hex(6)}").start()

    async def test_a_batch_under_way_is_finished_before_the_partitions_go(self, broker: KafkaTown) -> None:
        one = await broker.join("g")
        await one.send([bus_record(broker, p) for p in range(PARTITIONS)])
        batch: list[Inbound] = []
        async with asyncio.timeout(30):
            while not (batch := list(await one.receive(200, 0.2))):
                pass
        joining = asyncio.create_task(broker.join("g"))
        two = await joining
        one.commit(batch)
        got: list[Inbound] = []
        async with asyncio.timeout(30):
            while len(one.partitions()) != 2 or len(two.partitions()) != 2:
                for bus in (one, two):
                    more = await bus.receive(10, 0.05)
                    got += more
                    bus.commit(more)
        assert len(batch) + len(got) == PARTITIONS


def bus_record(broker: KafkaTown, partition: int) -> Outbound:
    return Outbound(broker.topic, partition, b"k", b"%d" % partition)


async def test_nobody_listens() -> None:
    settings = KafkaSettings(bootstrap="127.0.0.1:1", deadline_s=1.0)
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1"):
        await KafkaBus(settings, "g", "t").start()
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1"):
        await list_topics(settings)
