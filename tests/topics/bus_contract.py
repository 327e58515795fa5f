"""What every bus keeps to: the rules of topics/bus.py, one test for each, run on each bus."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import pytest

from topics.bus import Bus, BusRefused, Inbound, Outbound
from topics.catalogue import BATCH_OCTETS_MAX

PARTITIONS = 4
OCTETS_MAX = BATCH_OCTETS_MAX


class Broker(Protocol):
    """A broker with one fresh topic of PARTITIONS partitions, whose records are at most OCTETS_MAX octets."""

    topic: str

    async def join(self, group: str) -> Bus:
        """A new member of a group on the topic."""
        ...

    async def casualty(self, group: str, receives: int) -> None:
        """A member joins, takes so many records, commits none of them, and dies. Returns when it is dead."""
        ...


def record(broker: Broker, partition: int, value: bytes | None, key: bytes = b"k") -> Outbound:
    return Outbound(broker.topic, partition, key, value, (("h", b"1"), ("h", b"2")))


async def receive(bus: Bus, count: int, limit: int = 200) -> list[Inbound]:
    """So many records, each batch given up as dealt with."""
    found: list[Inbound] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            batch = await bus.receive(limit, 0.2)
            assert len(batch) <= limit
            found += batch
            bus.commit(batch)
    assert len(found) == count
    return found


async def until_held(buses: Sequence[Bus], shares: Sequence[int]) -> None:
    """Until the members hold so many partitions each; they must receive for a group to move on."""
    async with asyncio.timeout(30):
        while [len(bus.partitions()) for bus in buses] != list(shares):
            for bus in buses:
                bus.give_back(await bus.receive(10, 0.05))


def values(records: Sequence[Inbound]) -> list[bytes | None]:
    return [found.value for found in records]


class BusContract:
    """Inherit it, and give a fixture `broker`."""

    async def test_a_record_arrives_as_it_was_sent(self, broker: Broker) -> None:
        bus = await broker.join("g")
        await bus.send([record(broker, 2, bytes(range(256)), b"key \xff")])
        [found] = await receive(bus, 1)
        assert replace(found, timestamp_ms=0) == Inbound(
            broker.topic, 2, 0, b"key \xff", bytes(range(256)), (("h", b"1"), ("h", b"2"))
        )

    async def test_a_tombstone_and_an_empty_value_differ(self, broker: Broker) -> None:
        bus = await broker.join("g")
        await bus.send([record(broker, 0, None), record(broker, 0, b"")])
        assert values(await receive(bus, 2)) == [None, b""]

    async def test_a_partition_keeps_its_order(self, broker: Broker) -> None:
        bus = await broker.join("g")
        numbers = [b"%d" % number for number in range(1000)]
        await bus.send([record(broker, int(number) % PARTITIONS, number) for number in numbers[:500]])
        await bus.send([record(broker, int(number) % PARTITIONS, number) for number in numbers[500:]])
        found = await receive(bus, 1000)
        for partition in range(PARTITIONS):
            mine = [r.value for r in found if r.partition == partition]
            assert mine == numbers[partition::PARTITIONS]
            assert [r.offset for r in found if r.partition == partition] == list(range(250))

    async def test_a_batch_is_no_longer_than_asked(self, broker: Broker) -> None:
        bus = await broker.join("g")
        await bus.send([record(broker, 1, b"%d" % number) for number in range(7)])
        assert values(await receive(bus, 7, limit=3)) == [b"%d" % number for number in range(7)]

    async def test_nothing_comes_when_nothing_was_sent(self, broker: Broker) -> None:
        bus = await broker.join("g")
        assert list(await bus.receive(10, 0.05)) == []
        assert list(await bus.receive(10, 0)) == []
        await bus.send([])
        bus.commit([])
        bus.give_back([])

    async def test_what_was_sent_before_the_group_began_arrives(self, broker: Broker) -> None:
        first = await broker.join("other")
        await first.send([record(broker, 3, b"early")])
        assert values(await receive(await broker.join("g"), 1)) == [b"early"]

    async def test_each_group_gets_everything(self, broker: Broker) -> None:
        one, two = await broker.join("one"), await broker.join("two")
        await one.send([record(broker, 0, b"x")])
        assert values(await receive(one, 1)) == values(await receive(two, 1)) == [b"x"]

    async def test_what_was_committed_does_not_come_again(self, broker: Broker) -> None:
        bus = await broker.join("g")
        await bus.send([record(broker, p, b"%d" % p) for p in range(PARTITIONS)])
        await receive(bus, PARTITIONS)
        await bus.stop()
        again = await broker.join("g")
        await again.send([record(broker, 0, b"new")])
        assert values(await receive(again, 1)) == [b"new"]

    async def test_what_was_given_back_comes_again(self, broker: Broker) -> None:
        bus = await broker.join("g")
        await bus.send([record(broker, 0, b"a"), record(broker, 0, b"b"), record(broker, 1, b"c")])
        batch: Sequence[Inbound] = ()
        async with asyncio.timeout(30):
            while len(batch) < 3:  # they may come in parts: then all of them are given back, and come again
                bus.give_back(batch)
                batch = await bus.receive(10, 0.2)
        bus.give_back(batch)
        found = await receive(bus, 3)
        assert sorted(values(found), key=str) == [b"a", b"b", b"c"]
        assert [r.value for r in found if r.partition == 0] == [b"a", b"b"]

    async def test_what_a_dead_member_had_not_committed_comes_again(self, broker: Broker) -> None:
        sender = await broker.join("other")
        await sender.send([record(broker, 0, b"a"), record(broker, 0, b"b")])
        await broker.casualty("g", receives=2)
        assert values(await receive(await broker.join("g"), 2)) == [b"a", b"b"]

    async def test_members_share_the_partitions(self, broker: Broker) -> None:
        one, two = await broker.join("g"), await broker.join("g")
        await until_held([one, two], [2, 2])
        assert one.partitions() | two.partitions() == frozenset(range(PARTITIONS))
        await one.send([record(broker, p, b"%d" % p) for p in range(PARTITIONS)])
        for bus in (one, two):
            held = bus.partitions()
            assert {r.partition for r in await receive(bus, 2)} == held

    async def test_the_others_take_over_from_one_that_leaves(self, broker: Broker) -> None:
        one, two = await broker.join("g"), await broker.join("g")
        await until_held([one, two], [2, 2])
        await one.send([record(broker, p, b"old") for p in range(PARTITIONS)])
        await receive(two, 2)
        await two.stop()
        await until_held([one], [PARTITIONS])
        await one.send([record(broker, p, b"new") for p in range(PARTITIONS)])
        found = await receive(one, 6)
        assert sorted(str(value) for value in values(found)) == ["b'new'"] * 4 + ["b'old'"] * 2

    async def test_the_others_take_over_from_one_that_dies(self, broker: Broker) -> None:
        one = await broker.join("g")
        await until_held([one], [PARTITIONS])
        await one.send([record(broker, p, b"%d" % p) for p in range(PARTITIONS)])
        await broker.casualty("g", receives=2)
        assert sorted(values(await receive(one, PARTITIONS)), key=str) == [b"0", b"1", b"2", b"3"]
        await until_held([one], [PARTITIONS])

    async def test_no_such_topic_and_no_such_partition(self, broker: Broker) -> None:
        """They are handed back, and hold up nothing else."""
        bus = await broker.join("g")
        nowhere = [Outbound(f"{broker.topic}-not", 0, b"k", b"v"), record(broker, PARTITIONS, b"v")]
        assert list(await bus.send([nowhere[0], record(broker, 0, b"one"), nowhere[1]])) == nowhere
        assert list(await bus.send([record(broker, 0, b"two")])) == []
        assert values(await receive(bus, 2)) == [b"one", b"two"]

    async def test_a_loop_may_send_all_that_it_has_to_one_partition(self, broker: Broker) -> None:
        bus = await broker.join("g")
        numbers = [b"%05d" % number + bytes(2000) for number in range(1000)]
        await bus.send([record(broker, 1, number) for number in numbers])
        assert values(await receive(bus, 1000)) == numbers

    async def test_a_record_that_is_too_large_is_refused(self, broker: Broker) -> None:
        bus = await broker.join("g")
        await bus.send([record(broker, 0, bytes(OCTETS_MAX))])
        with pytest.raises(BusRefused):
            await bus.send([record(broker, 0, bytes(2 * OCTETS_MAX))])
        await bus.send([record(broker, 0, b"small")])
        assert values(await receive(bus, 2)) == [bytes(OCTETS_MAX), b"small"]

    async def test_lag_is_what_is_there_and_not_dealt_with(self, broker: Broker) -> None:
        bus = await broker.join("g")
        await until_held([bus], [PARTITIONS])
        assert bus.joined()
        await bus.send([record(broker, p, value) for p in range(PARTITIONS) for value in (b"a", b"b")])
        batch: Sequence[Inbound] = ()
        async with asyncio.timeout(30):
            while len(batch) < 2 * PARTITIONS:  # they may come in parts: then all of them are given back
                bus.give_back(batch)
                batch = await bus.receive(200, 0.2)
        assert bus.lag().records == 2 * PARTITIONS, "received is not dealt with"
        bus.give_back(batch)
        assert bus.lag().records == 2 * PARTITIONS
        await receive(bus, 2 * PARTITIONS)
        assert bus.lag().records == 0
        await bus.send([record(broker, 1, b"%d" % number) for number in range(5)])
        async with asyncio.timeout(30):
            while bus.lag().records != 5:  # a bus over a network comes to know of them
                bus.give_back(await bus.receive(1, 0.05))
        await receive(bus, 3, limit=3)
        assert bus.lag().records == 2
        assert bus.lag().silent_s < 5

    async def test_a_spare_has_joined_and_lags_behind_nothing(self, broker: Broker) -> None:
        members = [await broker.join("g") for _ in range(PARTITIONS + 1)]
        async with asyncio.timeout(30):
            while sorted(len(bus.partitions()) for bus in members) != [0] + [1] * PARTITIONS:
                for bus in members:
                    bus.give_back(await bus.receive(10, 0.05))
        [spare] = [bus for bus in members if not bus.partitions()]
        await spare.send([record(broker, p, b"x") for p in range(PARTITIONS)])
        assert spare.joined()
        assert (spare.lag().records, spare.lag().silent_s) == (0, 0.0)

    async def test_sends_that_fail_do_not_fail_others_beside_them(self, broker: Broker) -> None:
        bus = await broker.join("g")
        numbers = [b"%03d" % number + bytes(OCTETS_MAX // 2) for number in range(120)]

        async def steady() -> None:
            for start in range(0, len(numbers), 4):  # more than fits into one batch
                some = [record(broker, 1, number) for number in numbers[start : start + 4]]
                assert list(await bus.send(some)) == []

        async def failing() -> None:
            for _ in range(20):
                with pytest.raises(BusRefused):
                    await bus.send([record(broker, 0, bytes(2 * OCTETS_MAX))])

        await asyncio.gather(steady(), failing())
        assert values(await receive(bus, len(numbers))) == numbers
