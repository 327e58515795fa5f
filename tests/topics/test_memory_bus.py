"""The memory bus keeps the contract."""

from __future__ import annotations

import pytest

from tests.topics.bus_contract import OCTETS_MAX, PARTITIONS, BusContract
from topics.bus import Bus
from topics.catalogue import Topic
from topics.memory import MemoryBroker, MemoryBus


class MemoryTown:
    topic = "t"

    def __init__(self) -> None:
        topic = Topic(self.topic, "", PARTITIONS, 60, frozenset(), frozenset(), octets_max=OCTETS_MAX)
        self._broker = MemoryBroker([topic])

    async def join(self, group: str) -> Bus:
        return MemoryBus(self._broker, group, self.topic)

    async def casualty(self, group: str, receives: int) -> None:
        bus = MemoryBus(self._broker, group, self.topic)
        assert len(await bus.receive(receives, 1.0)) == receives
        bus.abandon()


class TestMemoryBus(BusContract):
    @pytest.fixture
    def broker(self) -> MemoryTown:
        return MemoryTown()
