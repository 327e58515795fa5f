"""What the loop writes down of itself is what has happened, and it tells the log what it told the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from agents.kms import Kms
from agents.runtime import Loop
from agents.vitals import LATENCIES_S, Histogram, Vitals
from chaos.lab import draw_codec
from protocol.profile import HARDENED
from storage.kms_records import Agreement
from storage.memory import MemoryStore
from storage.records import Key
from storage.store import NO_VERSION, Change, Stored, StoredPut, StoreUnavailable
from tests.agents.scene import ALICE, BOB, CALL, NOW, Town
from topics.bus import Outbound
from topics.catalogue import AUDIT, KMS, catalogue
from topics.codec import encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import KeyRequest


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines
    structlog.reset_defaults()


class Office:
    """A KMS's loop on a memory bus, whose clock goes on by a second whenever it is asked."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.broker = MemoryBroker(catalogue(["alice", "bob"]))
        self.bus = MemoryBus(self.broker, "kms", KMS.name)
        self.town = Town()
        self.store = store or MemoryStore()
        self.codec = draw_codec(self.town.random)
        self.seconds = 0.0
        self.loop = Loop(
            Kms(HARDENED),
            self.bus,
            self.store,
            self.codec,
            clock=lambda: NOW,
            random=self.town.random,
            monotonic=self._monotonic,
        )

    @property
    def vitals(self) -> Vitals:
        return self.loop.vitals

    async def open(self) -> None:
        """The store learns of the town's people."""
        for name, record in self.town.records.items():
            value = self.codec.encode(Key(name, type(record)), record)
            assert await self.store.write([Change([StoredPut(name, NO_VERSION, bytes(16), value)])]) == [True]

    def take(self, request: KeyRequest | None, partition: int = 0) -> None:
        """One record for the inbox; None: poison."""
        value = b"\xc1" if request is None else encode(request)
        self.broker.append(Outbound(KMS.name, partition, b"call", value))

    def _monotonic(self) -> float:
        self.seconds += 1
        return self.seconds


async def test_a_batch_of_grants_refusals_and_poison(log: list[Any]) -> None:
    office = Office()
    await office.open()
    office.take(office.town.request())
    office.take(office.town.request(caller_key="psk:eve"))  # OR-03: not alice's key
    office.take(office.town.request(caller_key="psk:eve", callee_key="psk:bob2"))
    office.take(None)
    office.take(office.town.request(office.town.run(call=bytes(16)), host="nowhere"))
    assert office.bus.lag().records == 5
    assert await office.loop.step(0) == 5
    vitals = office.vitals
    assert (vitals.handled, vitals.dead_letters, vitals.dealt_with) == (4, 1, 5)
    assert vitals.inputs == {"KeyRequest": 4}
    assert vitals.refusals == {("OR-03", "not-authorised"): 2}
    assert vitals.conflicts == 0
    assert vitals.sent == 4 + 3 + 1, (
        "audit, answers but the one for a host that is not there, the dead letter"
    )
    assert sum(vitals.batches.counts) == 1
    assert vitals.batches.total == 5
    assert sum(vitals.latency.counts) == 5, "one for each input and dead letter"
    assert vitals.latency.total == 5 * 5, "receive, then twice each for read and write, then commit"
    assert {name: trips.count for name, trips in vitals.store.items()} == {"due": 1, "read": 1, "write": 1}
    assert vitals.store["read"].seconds == 1
    assert vitals.partitions == frozenset(range(12))
    assert vitals.lag.records == 0
    assert vitals.turned_at == office.seconds

    told = [line for line in log if line["event"] in {"granted", "refused"}]
    names = {"call": CALL.hex(), "caller": ALICE, "callee": BOB}
    assert [line["event"] for line in told] == ["granted", "refused", "refused", "granted"]
    assert told[0].items() >= names.items()
    assert told[1].items() >= {**names, "check": "OR-03", "code": "not-authorised"}.items()
    assert all(line["log_level"] == "info" for line in told)


async def test_a_record_that_does_not_open_makes_a_dead_letter() -> None:
    office = Office()
    await office.open()
    name = Agreement.key_for(ALICE, CALL).name
    broken = Change([StoredPut(name, NO_VERSION, bytes(16), b"wrapped under another key")])
    assert await office.store.write([broken]) == [True]
    office.take(office.town.request())
    await office.loop.step(0)
    assert (office.vitals.dead_letters, office.vitals.sent) == (1, 1)


async def test_an_idle_turn_counts_nothing_and_is_seen() -> None:
    office = Office()
    before = office.vitals.turned_at, office.vitals.partitions
    assert before == (None, None)
    assert await office.loop.step(0) == 0
    assert office.vitals.turned_at == office.seconds
    assert sum(office.vitals.batches.counts) == sum(office.vitals.latency.counts) == 0
    office.bus.abandon()
    await office.loop.step(0)
    assert office.vitals.partitions is None, "it belongs to no group any more"


class Racing(MemoryStore):
    """Somebody else writes the agreement between the first read and the write."""

    theirs = b""

    async def write(self, changes: Sequence[Change]) -> list[bool]:
        puts = [put for change in changes for put in change.puts if ":agreement:" in put.name]
        if puts and self.theirs:
            other = Change([StoredPut(puts[0].name, NO_VERSION, b"o" * 16, self.theirs)])
            self.theirs = b""
            assert await super().write([other]) == [True]
        return await super().write(changes)


async def test_an_input_that_meets_a_conflict_is_counted_once_and_the_conflict_too() -> None:
    store = Racing()
    office = Office(store)
    await office.open()
    request = office.town.request()
    other = Town()
    other.records = dict(office.town.records)
    other.give(request)
    store.theirs = office.codec.encode(Agreement.key_for(ALICE, CALL), other.agreement() or Agreement())
    office.take(request)
    await office.loop.step(0)
    vitals = office.vitals
    assert (vitals.conflicts, vitals.handled) == (1, 1)
    assert (vitals.store["read"].count, vitals.store["write"].count) == (2, 2)
    assert len(office.broker.records(AUDIT.name)) == 1


class Away(MemoryStore):
    """A store that can be away, as the port has it."""

    away: Exception | None = None

    def __init__(self) -> None:
        super().__init__()
        self.asked_in_vain = asyncio.Semaphore(0)

    async def read(self, names: Sequence[str]) -> list[Stored]:
        if self.away is not None:
            self.asked_in_vain.release()
            raise self.away
        return await super().read(names)


async def test_what_it_waits_for_is_said_and_the_batch_counts_when_it_is_done() -> None:
    store = Away()
    office = Office(store)
    await office.open()
    store.away = StoreUnavailable("redis://store: no answer within 2.0 s")
    office.take(office.town.request())
    stopping, answered = asyncio.Event(), asyncio.Event()
    office.broker.on_append.append(lambda record: answered.set() if "ue" in record.topic else None)
    running = asyncio.create_task(office.loop.run(stopping))
    async with asyncio.timeout(10):
        for _ in range(2):
            await store.asked_in_vain.acquire()
        waiting_for = office.vitals.waiting_for
        assert waiting_for == "store: redis://store: no answer within 2.0 s"
        assert (office.vitals.handled, office.vitals.lag.records) == (0, 1)
        assert office.vitals.store["read"].count >= 2, "one that failed counts"
        store.away = None
        await answered.wait()
    stopping.set()
    await running
    assert office.vitals.waiting_for is None
    assert office.vitals.handled == 1
    assert office.vitals.inputs == {"KeyRequest": 1}


def test_a_histogram_puts_a_value_below_the_first_bound_that_is_not_smaller() -> None:
    seen = Histogram((1, 2, 5))
    for value in (0, 1, 1.5, 2, 5, 6):
        seen.note(value)
    seen.note(3, times=10)
    assert seen.counts == [2, 2, 11, 1]
    assert seen.total == 15.5 + 30
    assert list(LATENCIES_S) == sorted(LATENCIES_S)
